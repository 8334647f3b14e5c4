package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// scriptKafka starts a fake Kafka and sets $KAFKA_URL.
func scriptKafka(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "kafka")
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	ts.Check(err)
	ts.Defer(c.Close)
	ts.Setenv("KAFKA_URL", "kafka://"+strings.Join(c.ListenAddrs(), ","))
}

// scriptRecords prints the committed records of a topic, in the order of their
// positions: its key and its value.
func scriptRecords(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "records TOPIC")
	all, err := committed(tb(ts).Context(), strings.TrimPrefix(ts.Getenv("KAFKA_URL"), "kafka://"), func(topic string) bool { return topic == args[0] })
	ts.Check(err)
	sequence := func(r *kgo.Record) string {
		i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "ce_sequence" })
		return string(r.Headers[i].Value)
	}
	slices.SortStableFunc(all, func(a, b *kgo.Record) int { return cmp.Compare(sequence(a), sequence(b)) })
	for _, r := range all {
		fmt.Fprintf(ts.Stdout(), "%s %s\n", r.Key, r.Value)
	}
}

// committed reads what topics hold at this moment, each partition in its order.
func committed(ctx context.Context, brokers string, wanted func(topic string) bool) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("reading from Kafka does not end"))
	defer cancel()
	asker, err := kgo.NewClient(kgo.SeedBrokers(brokers))
	if err != nil {
		return nil, err
	}
	defer asker.Close()
	admin := kadm.NewClient(asker)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(topics.Names(), func(topic string) bool { return !wanted(topic) })
	if len(names) == 0 {
		return nil, nil
	}
	ends, err := admin.ListCommittedOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	type partition struct {
		topic  string
		number int32
	}
	left := make(map[partition]int64) // the last offset to come
	from := make(map[string]map[int32]kgo.Offset)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[partition{o.Topic, o.Partition}] = o.Offset - 1
			if from[o.Topic] == nil {
				from[o.Topic] = make(map[int32]kgo.Offset)
			}
			from[o.Topic][o.Partition] = kgo.NewOffset().AtStart()
		}
	})
	reader, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumePartitions(from), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var all []*kgo.Record
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := partition{r.Topic, r.Partition}
			last, unread := left[p]
			if !unread {
				return
			}
			if r.Offset <= last && !r.Attrs.IsControl() {
				all = append(all, r)
			}
			if r.Offset >= last {
				delete(left, p)
			}
		})
	}
	return all, nil
}

// scriptPurge removes what the only stream holds before a sequence.
func scriptPurge(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "purge SEQUENCE")
	seq, err := strconv.ParseUint(args[0], 10, 64)
	ts.Check(err)
	ctx := tb(ts).Context()
	nc, err := nats.Connect(ts.Getenv("NATS_URL"))
	ts.Check(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	ts.Check(err)
	names, err := firehoseStreams(ctx, js)
	ts.Check(err)
	stream, err := js.Stream(ctx, names[0])
	ts.Check(err)
	ts.Check(stream.Purge(ctx, jetstream.WithPurgeSequence(seq)))
}
