package kafka

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// headerPart is in a tombstone behind which there is more to store of the event at
// its position: a writer that finds it at the end of a partition stores the event
// again. Its value is isGrave where a marker behind it tells of the row's end, and isTrue
// in that of an old key.
const headerPart = "rowcall-part"

var isGrave = []byte("swept")

// LatestName returns what the names of the topics begin with that hold the latest
// state of a database, such as "latest.shop".
func LatestName(database string) string { return "latest." + sinks.EscapeToken(database) }

// NewLatest returns a firehose that keeps the latest state of each key of a
// database in compacted topics, rather than its history. Each table has one, such as
// "latest.shop.public.seats". Subscribe it with
// [listeners.SubscribeOptions].Current. The URL is as for [New].
//
// The key of a record is the key's text, see [listeners.Key.String], and its
// partition that of the firehose. Its value is the body that the firehose has,
// without before. A deleted key has a record with a null value, a tombstone. An
// update of the key is a tombstone of the old one and a create of the new. A
// truncate, and a reset, become a tombstone of each key that the topics
// hold; what a snapshot holds follows. So whoever keeps the last value of each
// key, and forgets those whose value is null, has the table. Headers are those of
// the firehose; the tombstones that an event causes have its position and its id.
//
// What the package promises of order, acknowledgements and fencing holds. Each
// record is stored once, but tombstones may be there again after a crash. A
// transaction is visible at once to readers with isolation.level=read_committed,
// unless there is a truncate in it; a snapshot is not. For a truncate and a reset
// the records are read that were stored since the last one, or since ever after a
// start, a few MiB of them at a time.
//
// These end the subscription with a [TopicError]: a table without a key; an update
// with columns that Postgres left out, since Kafka cannot be asked for the value
// of a key (give tables with large values REPLICA IDENTITY FULL: then the old row
// has them, and they are filled in); a topic that exists and whose cleanup.policy
// is not compact.
//
// Options are those of [New], but for Retention, which has no meaning here, and
// [sinks.TooLargePark], since nothing would remove the bodies of records that are
// compacted away. The default of TransactionalID is "rowcall-" and [LatestName].
//
// A partition whose last tombstones were compacted away, a day after the delete
// unless delete.retention.ms of the topic says otherwise, ends earlier for a
// firehose that starts. What the source then sends again from behind that is
// stored again, with the same state at the end.
//
// A topic that is deleted, or made anew, ends a firehose that writes to it. One that
// starts later finds out too, by the topic [LatestTopics], and
// [sinks.Firehose.Empty] says so: subscribe it without a position then, so that the present
// state is told again.
func NewLatest(brokersURL, database string, opts *Options) (*sinks.Firehose, error) {
	o := opts.withDefaults(database)
	if opts == nil || opts.TransactionalID == "" {
		o.TransactionalID = "rowcall-" + LatestName(database)
	}
	var faults []string
	if o.Retention != 0 {
		faults = append(faults, "Retention must be 0: the latest record of each key is kept for ever")
	}
	if o.TooLarge == sinks.TooLargePark {
		faults = append(faults, "TooLarge must not be TooLargePark: nothing would remove the bodies of records that are compacted away")
	}
	w, err := newWriter(brokersURL, database, o, faults...)
	if err != nil {
		return nil, err
	}
	w.prefix, w.compacts = LatestName(database)+".", true
	l := &latest{writer: w, log: &topicsLog{brokers: w.brokers, client: o.Client, prefix: w.prefix, kind: latestTopics, log: o.Logger}}
	w.made = l.remember
	return sinks.NewFirehose(l, w.config()), nil
}

// A latest is a writer that keeps the latest state of each key.
//
// The tail of a partition is before an event as long as not all of it is stored
// there. So a partition whose tail is before a truncate or a reset holds what was
// before that, and nothing else.
type latest struct {
	*writer
	log   *topicsLog
	empty bool // nothing was stored at Open, or not all any more

	forgotten []*kgo.Record // what is to be remembered of the topics that were lost, once the state is told again

	// Of the firehose's goroutine, for Send.
	frame   sinks.Frame
	message sinks.FirehoseMessage
}

var (
	_ sinks.FirehoseShaper  = (*latest)(nil)
	_ sinks.FirehoseEmptier = (*latest)(nil)
)

// Source is [NewLatestSource] for what it stores.
func (l *latest) Source(opts *sinks.SourceOptions) (*sinks.Source, error) {
	return NewLatestSource(l.url, l.database, opts, l.opts.Client...)
}

// Plain returns the position as it is: shaped batches have those of the source.
func (l *latest) Plain(p listeners.Position) listeners.Position { return p }

// Shape stores a batch, and first the tombstones that it causes.
func (l *latest) Shape(ctx context.Context, b *listeners.Batch, store func(context.Context, *listeners.Batch) error, flush func(context.Context) error) error {
	s := &sweep{latest: l, batch: b, store: store, flush: flush}
	switch b.Kind {
	case listeners.Reset:
		if b.Source == l.database { // otherwise the firehose refuses it
			var topics []*topic
			for _, t := range l.topics {
				if t.name != LatestMarkers(l.database) && (b.Collections == nil || slices.Contains(b.Collections, t.collection)) {
					topics = append(topics, t)
				}
			}
			if err := s.run(ctx, b.Position, topics); err != nil {
				return err
			}
			if b.Collections == nil {
				if err := l.forget(ctx); err != nil {
					return err
				}
			}
		}
		return store(ctx, b)
	case listeners.Live:
		return store(ctx, b)
	case listeners.Changes, listeners.Snapshot:
	}
	c := *b
	c.Events = make([]listeners.Event, 0, len(b.Events))
	for i := range b.Events {
		e := b.Events[i]
		switch e.Op {
		case listeners.Message:
		case listeners.Truncate:
			if len(c.Events) > 0 {
				part := c
				part.Position, part.Last = justBefore(e.Position), false
				if err := store(ctx, &part); err != nil {
					return err
				}
				c.Events, c.First = nil, false
			}
			stored, err := s.truncate(ctx, &e)
			if err != nil {
				return err
			}
			if stored {
				c.Events = append(c.Events, e)
			}
		default:
			var err error
			if c.Events, err = l.entry(c.Events, &e); err != nil {
				return err
			}
		}
	}
	return store(ctx, &c)
}

// entry appends what is to be stored of the event of a row.
func (l *latest) entry(events []listeners.Event, e *listeners.Event) ([]listeners.Event, error) {
	refuse := func(reason string) error {
		return &sinks.PlaceError{Place: place(l.topicName(e.Schema)), Reason: fmt.Sprintf("%s of %s at %s: %s", e.Op, e.Schema.Collection(), e.Position, reason)}
	}
	if e.Key().Len() == 0 {
		return nil, refuse("the table has no key, which records of a compacted topic need; leave it out, or give it a replica identity")
	}
	if e.Op == listeners.Delete {
		return append(events, *e), nil
	}
	if e.After.Unchanged() != nil {
		e.After = sinks.Fill(e.After, e.Before)
		if missing := e.After.Unchanged(); missing != nil {
			return nil, refuse(fmt.Sprintf(
				"Postgres did not send the columns %s, which did not change, and Kafka cannot be asked for them; ALTER TABLE ... REPLICA IDENTITY FULL, leave the columns out of the publication, or leave the table out, and begin with a new snapshot",
				strings.Join(missing, ", ")))
		}
	}
	if _, changed := e.ChangedKey(); changed {
		events = append(events, listeners.Event{
			Op: listeners.Delete, Cause: e.Cause, Schema: e.Schema, Position: e.Position, OldKey: e.OldKey, Before: e.Before,
		})
		e.Op = listeners.Create // under the new key
	}
	e.Before, e.OldKey = listeners.Record{}, listeners.Record{}
	return append(events, *e), nil
}

func (l *latest) topicName(s *listeners.Schema) string {
	return l.prefix + sinks.EscapeToken(s.Namespace) + "." + sinks.EscapeToken(s.Name)
}

// Lanes returns the partition of a key, or that of the markers.
func (l *latest) Lanes(ctx context.Context, m *sinks.FirehoseMessage) ([]*sinks.FirehoseLane, error) {
	if isMarker(m) {
		return l.markers(ctx)
	}
	if g := graveOf(m); g != nil {
		l.lane[0] = l.topics[g.lane.Topic].lanes[g.lane.Partition] // g.lane may be one from before a recovery
		return l.lane[:], nil
	}
	return l.writer.Lanes(ctx, m)
}

// Send sends an entry, a tombstone, or a marker.
func (l *latest) Send(_ context.Context, m *sinks.FirehoseMessage) error {
	if isMarker(m) {
		key := []byte(l.markerKey(m))
		return l.send(m, func(r *kgo.Record) { r.Key = key })
	}
	events := m.Batch.Events
	gone := events[m.Index].Op == listeners.Delete
	// The tombstone of an old key has the new one behind it.
	part := []byte(nil)
	if m.Index+1 < len(events) && events[m.Index+1].Position == m.Position {
		part = isTrue
	}
	var key kgo.RecordHeader
	g := graveOf(m)
	switch {
	case g != nil:
		part = isGrave
		collection, _, _ := strings.Cut(m.Frame.Subject, "/")
		l.frame, l.message = *m.Frame, *m
		l.frame.Subject = collection + "/" + string(g.key)
		l.message.Frame = &l.frame
		m = &l.message
	case gone:
		var err error
		if key, err = keyOf(m.Frame.Body); err != nil {
			return sinks.Permanent(err)
		}
	}
	return l.send(m, func(r *kgo.Record) {
		_, r.Key, _ = bytes.Cut(r.Key, []byte("/")) // the first one ends the collection
		if gone {
			r.Value = nil
		}
		if gone && g == nil {
			r.Headers = append(r.Headers, key)
		}
		if part != nil {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: headerPart, Value: part})
		}
	})
}

// tailOf returns the position up to which a partition that ends with this record holds
// everything.
func tailOf(r *kgo.Record) (listeners.Position, error) {
	p, err := positionOf(r)
	if headerOf(r, headerPart) != nil {
		p = justBefore(p)
	}
	return p, err
}

// justBefore returns the greatest position before another.
func justBefore(p listeners.Position) listeners.Position {
	switch {
	case p.Index > 0:
		p.Index--
	case p.Commit > 0:
		p.Commit, p.Index = p.Commit-1, math.MaxUint32
	case p.Epoch > 0:
		p.Epoch, p.Commit, p.Index = p.Epoch-1, math.MaxUint64, math.MaxUint32
	}
	return p
}

const compactPolicy = "compact"

// checkPolicy makes sure that existing topics of a latest state are compacted.
func (w *writer) checkPolicy(ctx context.Context, names ...string) error {
	if !w.compacts || len(names) == 0 {
		return nil
	}
	found, err := w.admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("ask for the topics' cleanup.policy: %w", err)
	}
	for _, name := range names {
		t, err := found.On(name, nil)
		if err == nil {
			err = t.Err
		}
		if err != nil {
			return explain(name, err)
		}
		policy := ""
		for _, c := range t.Configs {
			if c.Key == "cleanup.policy" && c.Value != nil {
				policy = *c.Value
			}
		}
		if policy != compactPolicy {
			return &sinks.PlaceError{Place: place(name), Reason: fmt.Sprintf(
				"its cleanup.policy is %q, which removes rows that are still there or keeps what is not; set it to %q, or delete the topic", policy, compactPolicy)}
		}
	}
	return nil
}
