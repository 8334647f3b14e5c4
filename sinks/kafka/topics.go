package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// maxTopicName is what Kafka allows.
const maxTopicName = 249

// A topic is one that the firehose writes to.
type topic struct {
	name       string
	collection string // as [listeners.Schema.Collection]
	// By partition, at Open: what is at or before it is stored.
	tails []listeners.Position
	begun []bool // by partition: it holds something, or will
}

// loadTopics finds the topics of the database that exist, and where they end.
func (f *Firehose) loadTopics(ctx context.Context) error {
	prefix := sinks.DatabaseAddress(f.database) + "."
	all, err := f.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	for name, detail := range all {
		if !strings.HasPrefix(name, prefix) || strings.Count(name[len(prefix):], ".") != 1 {
			continue
		}
		if err := f.checkTopic(&detail); err != nil {
			return err
		}
		f.topics[name] = f.newTopic(name)
	}
	return f.readTails(ctx)
}

func (f *Firehose) newTopic(name string) *topic {
	t := &topic{name: name, tails: make([]listeners.Position, f.opts.Partitions), begun: make([]bool, f.opts.Partitions)}
	namespace, table, _ := strings.Cut(name[len(sinks.DatabaseAddress(f.database))+1:], ".")
	// What is no escaped token was not made by a firehose, and is in no batch.
	namespace, _ = sinks.UnescapeToken(namespace)
	table, _ = sinks.UnescapeToken(table)
	t.collection = namespace + "." + table
	return t
}

func (f *Firehose) checkTopic(d *kadm.TopicDetail) error {
	if d.Err != nil {
		return explain(d.Topic, d.Err)
	}
	if n := len(d.Partitions); n != f.opts.Partitions {
		return &TopicError{Topic: d.Topic, Reason: fmt.Sprintf(
			"it has %d partitions, not %d, so a key's events would be in two of them; set the number of partitions to %d, or delete the topic", n, f.opts.Partitions, n)}
	}
	return nil
}

// ensureTopic returns the topic of a collection, which it creates if need be.
func (f *Firehose) ensureTopic(ctx context.Context, name string) (*topic, error) {
	if t, ok := f.topics[name]; ok {
		return t, nil
	}
	if len(name) > maxTopicName {
		return nil, &TopicError{Topic: name, Reason: fmt.Sprintf("its name has %d bytes, Kafka allows %d; rename the table, or leave it out", len(name), maxTopicName)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.opts.OpenTimeout, fmt.Errorf("topic %s could not be made within %s", name, f.opts.OpenTimeout))
	defer cancel()
	configs := map[string]*string{"cleanup.policy": new("delete")}
	if r := f.opts.Retention; r != 0 {
		configs["retention.ms"] = new(strconv.FormatInt(max(r.Milliseconds(), -1), 10))
	}
	tries := 0
	err := backoff.Retry(func() error {
		tries++
		_, err := f.admin.CreateTopic(ctx, int32(f.opts.Partitions), int16(f.opts.Replicas), configs, name)
		switch {
		case err == nil, tries > 1 && errors.Is(err, kerr.TopicAlreadyExists):
			return nil // the answer to an earlier try was lost
		case errors.Is(err, kerr.TopicAlreadyExists):
			// Made since Open, so its tails are not known.
			return backoff.Permanent(&TopicError{Topic: name, Reason: "somebody else has made it while this firehose ran; start it again, and see who writes there"})
		}
		err = explain(name, err)
		if _, final := errors.AsType[*TopicError](err); final {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond), backoff.WithMaxInterval(2*time.Second), backoff.WithMaxElapsedTime(0)), ctx))
	if err != nil {
		return nil, err
	}
	t := f.newTopic(name)
	f.topics[name] = t
	f.opts.Logger.InfoContext(ctx, "topic created", "topic", name, "partitions", f.opts.Partitions)
	return t, nil
}

// explain turns what a broker says about a topic into words and a remedy.
// Faults that may pass stay as they are.
func explain(name string, err error) error {
	fail := func(reason string) error { return &TopicError{Topic: name, Reason: reason, Err: err} }
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fail("this user may not do that; allow it to describe, create, read and write the topic, or create the topic for it")
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return fail("there are fewer brokers than replicas; set the number of replicas to what the cluster has")
	case errors.Is(err, kerr.PolicyViolation):
		return fail("the cluster's policy refuses such a topic; create it as the policy asks for")
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fail("it is gone: somebody has deleted it; start again to make a new one")
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fail("this user may not use the transactional id; allow write and describe on it, or set NoTransactions")
	}
	return fmt.Errorf("topic %s: %w", name, err)
}
