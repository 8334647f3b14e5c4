package jetstream_test

import (
	"context"
	"fmt"
	"os"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A batch job reads what is stored behind a position, and ends at the tip.
func ExampleNew_read() {
	if err := exampleRead(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// create {"id":2000,"seat":"20C"}
	// create {"id":3000,"seat":"30A"}
	// sent 3, in flight 0, retries 0
}

func exampleRead(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "firehose")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := natsserver.Start(ctx, &natsserver.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer server.Stop()
	nc, err := jetstream.Connect(server.URL(), nil)
	if err != nil {
		return err
	}
	defer nc.Close()

	firehose, err := jetstream.New(nc, "shop", &jetstream.Options{TooLarge: sinks.TooLargePark})
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()
	first := transaction(1, 1)
	for _, b := range []*listeners.Batch{first, transaction(2, 1), transaction(3, 1)} {
		if err := firehose.OnBatch(ctx, b); err != nil { // a subscription does this
			return err
		}
	}
	if err := firehose.Flush(ctx); err != nil {
		return err
	}

	job := listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		for i := range b.Events {
			fmt.Printf("%s %s\n", b.Events[i].Op, b.Events[i].After.AppendJSON(nil))
		}
		return nil
	})
	err = firehose.Read(ctx, sinks.Start{After: first.Position}, job, &sinks.SourceOptions{UntilTip: true})
	s := firehose.Stats()
	fmt.Printf("sent %d, in flight %d, retries %d\n", s.Sent, s.InFlight, s.Retries)
	return err
}
