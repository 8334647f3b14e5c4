package kafka_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A member of a group hears the events of the partitions that fall to it, here
// of all.
func ExampleGroups() {
	if err := exampleGroups(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 20 events were handled
}

func exampleGroups(ctx context.Context) error {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1)) // stands for yours
	if err != nil {
		return err
	}
	defer broker.Close()
	url := "kafka://" + strings.Join(broker.ListenAddrs(), ",")
	firehose, err := kafka.New(url, "shop", nil)
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

	groups, err := kafka.NewGroups(url, "shop", nil)
	if err != nil {
		return err
	}
	group, err := sinks.NewGroup(groups, "repricer", &sinks.GroupOptions{Start: sinks.GroupStart{Oldest: true}})
	if err != nil {
		return err
	}
	running, leave := context.WithCancel(ctx)
	defer leave()
	handled := make(chan int, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- group.Run(running, func(sinks.GroupPartition) listeners.Listener {
			return listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
				handled <- len(b.Events)
				return nil
			})
		})
	}()
	events := 0
	for events < 20 {
		events += <-handled
	}
	leave()
	if err := <-ended; err != nil {
		return err
	}
	fmt.Println(events, "events were handled")
	return nil
}
