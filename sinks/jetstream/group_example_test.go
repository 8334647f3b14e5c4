package jetstream_test

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// Two processes with the same group name share the partitions of a firehose.
func ExampleGroups() {
	if err := exampleGroups(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 20 events were handled, each by one of two members
}

func exampleGroups(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "groups")
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
	firehose, err := jetstream.New(nc, "shop", nil)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()
	// A subscription to a source makes these calls.
	if err := firehose.OnBatch(ctx, sinktest.Transaction(1, 20)); err != nil {
		return err
	}
	if err := firehose.Flush(ctx); err != nil {
		return err
	}

	broker, err := jetstream.NewGroups(nc, "shop", nil)
	if err != nil {
		return err
	}
	handled := make(chan int, 100)
	running, leave := context.WithCancel(ctx)
	defer leave()
	var members sync.WaitGroup
	for range 2 { // in real life, two processes
		group, err := sinks.NewGroup(broker, "repricer", &sinks.GroupOptions{Start: sinks.GroupStart{Oldest: true}})
		if err != nil {
			return err
		}
		members.Go(func() {
			err := group.Run(running, func(sinks.GroupPartition) listeners.Listener {
				return listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
					handled <- len(b.Events)
					return nil
				})
			})
			if err != nil {
				fmt.Println(err)
			}
		})
	}
	events := 0
	for events < 20 {
		events += <-handled
	}
	leave() // each finishes the batch in hand, and stores its checkpoints
	members.Wait()
	fmt.Println(events, "events were handled, each by one of two members")
	return nil
}
