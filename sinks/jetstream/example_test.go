package jetstream_test

import (
	"context"
	"fmt"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func Example() {
	natstest.Example(example)
	// Output:
	// 1 create public.seats {"id":1000} {"id":1000,"seat":"10E"}
}

func example(ctx context.Context, url string) error {
	nc, err := jetstream.Connect(url, nil)
	if err != nil {
		return err
	}
	defer nc.Close()
	firehose, err := jetstream.New(nc, "shop", nil)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()

	// A subscription to a source makes these calls.
	if err := firehose.OnBatch(ctx, transaction(1, 1)); err != nil {
		return err
	}
	if err := firehose.Flush(ctx); err != nil {
		return err
	}

	for m, err := range jetstream.Read(ctx, nc, firehose.Name(), nil) {
		if err != nil {
			return err
		}
		fmt.Println(m.Sequence, m.Op, m.Collection, string(m.Key), string(m.After))
	}
	return nil
}
