package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
)

// jetStreamOf returns that of $NATS_URL.
func jetStreamOf(ts *testscript.TestScript) jetstream.JetStream {
	nc, err := nats.Connect(ts.Getenv("NATS_URL"))
	ts.Check(err)
	ts.Defer(nc.Close)
	js, err := jetstream.New(nc)
	ts.Check(err)
	return js
}

// scriptBucket prints the keys of a bucket at $NATS_URL, and how their values begin.
func scriptBucket(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "bucket NAME")
	ctx := tb(ts).Context()
	js := jetStreamOf(ts)
	kv, err := js.KeyValue(ctx, args[0])
	ts.Check(err)
	keys, err := kv.Keys(ctx)
	ts.Check(err)
	slices.Sort(keys)
	for _, key := range keys {
		entry, err := kv.Get(ctx, key)
		ts.Check(err)
		if !strings.HasPrefix(key, "-control.") {
			fmt.Fprintf(ts.Stdout(), "%s %.200s\n", key, entry.Value())
		}
	}
}

// scriptNoBucket deletes a bucket.
func scriptNoBucket(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "nobucket NAME")
	ts.Check(jetStreamOf(ts).DeleteKeyValue(tb(ts).Context(), args[0]))
}
