package jetstream_test

import (
	"context"
	"fmt"
	"os"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A transaction becomes visible as a whole, to plain readers, too: its last
// message commits it.
func ExampleOptions_atomic() {
	natstest.Example(func(ctx context.Context, url string) error {
		return exampleStored(ctx, url, &jetstream.Options{Atomic: true})
	})
	// Output:
	// 1 cdc.shop.public.seats.create.013: number "1" of a transaction, commit ""
	// 2 cdc.shop.public.seats.create.010: number "2" of a transaction, commit "1"
	// 3 cdc.shop.public.seats.create.014: number "" of a transaction, commit ""
}

// Messages of a loader go in batches of fast ingest from the first one on.
// What is stored is the same.
func ExampleFastIngest() {
	natstest.Example(func(ctx context.Context, url string) error {
		return exampleStored(ctx, url, &jetstream.Options{FastIngest: jetstream.FastIngestAlways})
	})
	// Output:
	// 1 cdc.shop.public.seats.create.013: number "" of a transaction, commit ""
	// 2 cdc.shop.public.seats.create.010: number "" of a transaction, commit ""
	// 3 cdc.shop.public.seats.create.014: number "" of a transaction, commit ""
}

func exampleStored(ctx context.Context, url string, opts *jetstream.Options) error {
	nc, err := jetstream.Connect(url, nil)
	if err != nil {
		return err
	}
	defer nc.Close()
	firehose, err := jetstream.New(nc, "shop", opts)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()
	for commit, events := range []int{2, 1} {
		if err := firehose.OnBatch(ctx, transaction(uint64(commit+1), events)); err != nil { // a subscription does this
			return err
		}
	}
	if err := firehose.Flush(ctx); err != nil {
		return err
	}

	js, err := natsjs.New(nc)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, firehose.Name())
	if err != nil {
		return err
	}
	for seq := range uint64(3) {
		m, err := stream.GetMsg(ctx, seq+1)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "%d %s: number %q of a transaction, commit %q\n", m.Sequence, m.Subject,
			m.Header.Get("Nats-Batch-Sequence"), m.Header.Get("Nats-Batch-Commit"))
	}
	return nil
}
