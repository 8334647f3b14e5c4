package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/rowcall/rowcall/sinks"
)

// maxTopicName is what Kafka allows.
const maxTopicName = 249

// A topic is one that the firehose writes to.
type topic struct {
	name       string
	id         kadm.TopicID // of the one that was found or made
	namespace  string
	table      string
	collection string                // as [listeners.Schema.Collection]
	lanes      []*sinks.FirehoseLane // by partition
	swept      map[int32]int64       // of compacted ones: what every key is deleted before, by partition
}

// place names a topic in errors.
func place(topic string) string { return "topic " + topic }

// loadTopics finds the topics of the database that exist, and where they end.
func (w *writer) loadTopics(ctx context.Context) error {
	all, err := w.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	for name, detail := range all {
		if !strings.HasPrefix(name, w.prefix) || strings.Count(name[len(w.prefix):], ".") != 1 {
			continue
		}
		if err := w.checkTopic(&detail); err != nil {
			return err
		}
		t := w.newTopic(name)
		t.id = detail.ID
		w.topics[name] = t
	}
	if err := w.checkPolicy(ctx, slices.Sorted(maps.Keys(w.topics))...); err != nil {
		return err
	}
	return w.readTails(ctx, w.topics)
}

func (w *writer) newTopic(name string) *topic {
	t := &topic{name: name, swept: make(map[int32]int64)}
	for p := range w.opts.Partitions {
		t.lanes = append(t.lanes, &sinks.FirehoseLane{Place: place(name), Topic: name, Partition: p})
	}
	namespace, table, _ := strings.Cut(name[len(w.prefix):], ".")
	// What is no escaped token was not made by a firehose, and is in no batch.
	t.namespace, _ = sinks.UnescapeToken(namespace)
	t.table, _ = sinks.UnescapeToken(table)
	t.collection = t.namespace + "." + t.table
	return t
}

func (w *writer) checkTopic(d *kadm.TopicDetail) error {
	if d.Err != nil {
		return explain(d.Topic, d.Err)
	}
	if n := len(d.Partitions); n != w.opts.Partitions {
		return &sinks.PlaceError{Place: place(d.Topic), Reason: fmt.Sprintf(
			"it has %d partitions, not %d, so a key's events would be in two of them; set the number of partitions to %d, or delete the topic", n, w.opts.Partitions, n)}
	}
	return nil
}

// ensureTopic returns the topic of a collection, which it creates if need be. It
// tries again what may pass until ctx ends.
func (w *writer) ensureTopic(ctx context.Context, name string) (*topic, error) {
	if t, ok := w.topics[name]; ok {
		return t, nil
	}
	if len(name) > maxTopicName {
		return nil, &sinks.PlaceError{Place: place(name), Reason: fmt.Sprintf("its name has %d bytes, Kafka allows %d; rename the table, or leave it out", len(name), maxTopicName)}
	}
	configs := map[string]*string{"cleanup.policy": new("delete")}
	if w.compacts {
		configs["cleanup.policy"] = new(compactPolicy)
	}
	if r := w.opts.Retention; r != 0 {
		configs["retention.ms"] = new(strconv.FormatInt(max(r.Milliseconds(), -1), 10))
	}
	t := w.newTopic(name)
	var err error
	if t.id, err = w.createTopic(ctx, name, int32(w.opts.Partitions), configs, func() (kadm.TopicID, error) { return w.adoptTopic(ctx, t) }); err != nil {
		return nil, err
	}
	if w.made != nil {
		if err := w.made(ctx, t); err != nil {
			return nil, err
		}
	}
	w.topics[name] = t
	w.opts.Logger.InfoContext(ctx, "topic created", "topic", name, "partitions", w.opts.Partitions)
	return t, nil
}

// createTopic tries again what may pass until ctx ends. Adopt is called if the
// topic exists: the answer to an earlier try was lost, or somebody else has made
// it. The id is zero if brokers do not tell.
func (w *writer) createTopic(ctx context.Context, name string, partitions int32, configs map[string]*string, adopt func() (kadm.TopicID, error)) (kadm.TopicID, error) {
	return backoff.RetryWithData(func() (kadm.TopicID, error) {
		made, err := w.admin.CreateTopic(ctx, partitions, int16(w.opts.Replicas), configs, name)
		id := made.ID
		if errors.Is(err, kerr.TopicAlreadyExists) {
			id, err = adopt()
		}
		if err == nil {
			return id, nil
		}
		if _, known := errors.AsType[*sinks.PlaceError](err); !known {
			err = explain(name, err)
		}
		_, final := errors.AsType[*sinks.PlaceError](err)
		if refused, ok := errors.AsType[*kerr.Error](err); final || ok && !refused.Retriable && !errors.Is(err, kerr.UnknownServerError) {
			return id, backoff.Permanent(err)
		}
		w.opts.Logger.DebugContext(ctx, "topic not created so far", "topic", name, "error", err)
		return id, err
	}, backoff.WithContext(backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(2*time.Second), backoff.WithMaxElapsedTime(0)), ctx))
}

// adoptTopic takes a topic that was made since Open, as long as it is empty.
func (w *writer) adoptTopic(ctx context.Context, t *topic) (kadm.TopicID, error) {
	var none kadm.TopicID
	found, err := w.admin.ListTopics(ctx, t.name)
	if err != nil {
		return none, err
	}
	detail, ok := found[t.name]
	if !ok || errors.Is(detail.Err, kerr.UnknownTopicOrPartition) {
		return none, fmt.Errorf("topic %s is not to be seen yet", t.name)
	}
	if err := w.checkTopic(&detail); err != nil {
		return none, err
	}
	if err := w.checkPolicy(ctx, t.name); err != nil {
		return none, err
	}
	if err := w.readTails(ctx, map[string]*topic{t.name: t}); err != nil {
		return none, err
	}
	if slices.ContainsFunc(t.lanes, func(l *sinks.FirehoseLane) bool { return l.Begun }) {
		return none, &sinks.PlaceError{Place: place(t.name), Reason: "somebody else has made it and stored in it while this firehose ran; start it again, and see who writes there"}
	}
	return detail.ID, nil
}

// explain turns what a broker says about a topic into words and a remedy.
// Faults that may pass stay as they are.
func explain(name string, err error) error {
	fail := func(reason string) error { return &sinks.PlaceError{Place: place(name), Reason: reason, Err: err} }
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fail("this user may not do that; allow it to describe, create, read and write the topic, or create the topic for it")
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return fail("there are fewer brokers than replicas; set the number of replicas to what the cluster has")
	case errors.Is(err, kerr.PolicyViolation):
		return fail("the cluster's policy refuses such a topic; create it as the policy asks for")
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID): // the latter: there is another one of the name
		return goneTopic(name, err)
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fail("this user may not use the transactional id; allow write and describe on it, or set NoTransactions")
	}
	return fmt.Errorf("topic %s: %w", name, err)
}

// goneTopic is the error for a topic that was deleted while the firehose wrote to it, and
// perhaps made anew.
func goneTopic(name string, err error) error {
	return &sinks.PlaceError{Place: place(name), Reason: "it is gone: somebody has deleted it; start again to make a new one", Err: err}
}
