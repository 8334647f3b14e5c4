package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/internal/kafkatest"
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
	all, err := kafkatest.Records(tb(ts).Context(), strings.Split(strings.TrimPrefix(ts.Getenv("KAFKA_URL"), "kafka://"), ","), args[0])
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
