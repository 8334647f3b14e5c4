package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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
	reader, err := kgo.NewClient(kgo.SeedBrokers(strings.TrimPrefix(ts.Getenv("KAFKA_URL"), "kafka://")),
		kgo.ConsumeTopics(args[0]), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	ts.Check(err)
	defer reader.Close()
	var all []*kgo.Record
	for idle := 0; idle < 5; idle++ {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) { all, idle = append(all, r), 0 })
		cancel()
	}
	sequence := func(r *kgo.Record) string {
		i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "ce_sequence" })
		return string(r.Headers[i].Value)
	}
	slices.SortStableFunc(all, func(a, b *kgo.Record) int { return cmp.Compare(sequence(a), sequence(b)) })
	for _, r := range all {
		fmt.Fprintf(ts.Stdout(), "%s %s\n", r.Key, r.Value)
	}
}
