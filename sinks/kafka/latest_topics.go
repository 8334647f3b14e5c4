package kafka

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// LatestTopics returns the name of the compacted topic that remembers which topics hold the
// latest state of a database: a record's key is the name of a topic, and its value the
// topic's id in hexadecimal, empty for one that was found to be gone. It has one
// partition.
func LatestTopics(database string) string { return LatestName(database) + "._topics" }

// Open opens the topics, and finds out whether those are there that were.
func (l *latest) Open(ctx context.Context, acks *sinks.FirehoseAcks) (listeners.Position, error) {
	at, err := l.writer.Open(ctx, acks)
	if err != nil {
		return at, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.opts.OpenTimeout, fmt.Errorf("no answer within %s: %w", l.opts.OpenTimeout, context.DeadlineExceeded))
	defer cancel()
	if err := l.recall(ctx); err != nil {
		l.Close()
		return at, l.unready(err)
	}
	return at, nil
}

// Empty implements [sinks.FirehoseEmptier].
func (l *latest) Empty() bool { return l.empty }

// recall compares the topics with those that were remembered.
func (l *latest) recall(ctx context.Context) error {
	known, _, err := remembered(ctx, l.admin, LatestTopics(l.database), append(l.base(), untilTheEnd...))
	if err != nil {
		return err
	}
	l.empty = true
	for _, t := range l.topics {
		l.empty = l.empty && (t.name == LatestMarkers(l.database) || !slices.ContainsFunc(t.lanes, func(lane *sinks.FirehoseLane) bool { return lane.Begun }))
	}
	lost := make(map[string]bool)
	for name, id := range known {
		t, found := l.topics[name]
		if id == "" || found && (idText(t.id) == id || t.id == kadm.TopicID{}) {
			continue
		}
		lost[name], l.empty = true, true
		l.opts.Logger.WarnContext(ctx, "a topic of the latest state was deleted since it was written to; the rest is not the whole state any more", "topic", name, "made_anew", found)
		if !found {
			l.forgotten = append(l.forgotten, l.memory(name, ""))
		}
	}
	var news []*kgo.Record
	for name, t := range l.topics {
		switch id := idText(t.id); {
		case known[name] == id:
		case lost[name]:
			l.forgotten = append(l.forgotten, l.memory(name, id))
		default:
			news = append(news, l.memory(name, id))
		}
	}
	return l.keep(ctx, news...)
}

// forget stops to speak of what was lost: all of it is told again.
func (l *latest) forget(ctx context.Context) error {
	err := l.keep(ctx, l.forgotten...)
	if err == nil {
		l.forgotten = nil
	}
	return err
}

func idText(id kadm.TopicID) string { return hex.EncodeToString(id[:]) }

func (l *latest) memory(name, id string) *kgo.Record {
	return &kgo.Record{Topic: LatestTopics(l.database), Key: []byte(name), Value: []byte(id)}
}

// remember is called with a topic that was made, before anything is stored in it.
func (l *latest) remember(ctx context.Context, t *topic) error {
	return l.keep(ctx, l.memory(t.name, idText(t.id)))
}

// keep stores what is to be remembered. It tries until ctx ends.
func (l *latest) keep(ctx context.Context, records ...*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	name := LatestTopics(l.database)
	configs := map[string]*string{"cleanup.policy": new(compactPolicy)}
	if _, err := l.createTopic(ctx, name, 1, configs, func() (id kadm.TopicID, err error) { return id, nil }); err != nil {
		return err
	}
	client, err := l.plainClient(kgo.RequiredAcks(kgo.AllISRAcks()), kgo.UnknownTopicRetries(10), kgo.MetadataMinAge(250*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("remember the topics of the latest state: %w", explain(name, err))
	}
	return nil
}

// untilTheEnd has a client try again until a context ends.
var untilTheEnd = []kgo.Opt{kgo.RequestRetries(math.MaxInt32), kgo.RetryTimeout(0)}

// plainClient returns a client that tries again until a context ends.
func (l *latest) plainClient(opts ...kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(append(append(l.base(), untilTheEnd...), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return client, nil
}

// remembered returns the ids of topics by name from [LatestTopics], and when the first of them
// was remembered, as far as that is known; none if there is no such topic.
func remembered(ctx context.Context, admin *kadm.Client, name string, opts []kgo.Opt) (known map[string]string, since time.Time, err error) {
	ends, err := admin.ListEndOffsets(ctx, name)
	if err == nil {
		err = ends.Error()
	}
	end, _ := ends.Lookup(name, 0)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition), err == nil && end.Offset <= 0:
		return nil, since, nil
	case err != nil:
		return nil, since, fmt.Errorf("ask where topic %s ends: %w", name, err)
	}
	client, err := kgo.NewClient(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		return nil, since, fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	known = make(map[string]string)
	// The last record is there: none is a tombstone, and compaction leaves the last
	// one of each key.
	for last := int64(-1); last < end.Offset-1; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, since, context.Cause(ctx)
		}
		for _, e := range fetches.Errors() {
			return nil, since, explain(e.Topic, e.Err)
		}
		for r := range fetches.RecordsAll() {
			known[string(r.Key)] = string(r.Value)
			if since.IsZero() {
				since = r.Timestamp
			}
			last = r.Offset
		}
	}
	return known, since, nil
}
