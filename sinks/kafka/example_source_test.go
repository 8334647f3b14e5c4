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

// A listener of the topics hears the transactions of the database.
func ExampleNewSource() {
	if err := exampleSource(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// transaction 1: create 1000, create 1001
	// transaction 2: create 2000
}

func exampleSource(ctx context.Context) error {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1)) // stands for yours
	if err != nil {
		return err
	}
	defer broker.Close()
	url := "kafka://" + strings.Join(broker.ListenAddrs(), ",")

	// One process stores a database's events.
	firehose, err := kafka.New(url, "shop", nil)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()
	for _, b := range []*listeners.Batch{sinktest.Transaction(1, 2), sinktest.Transaction(2, 1)} {
		if err := firehose.OnBatch(ctx, b); err != nil { // as a subscription does
			return err
		}
	}
	if err := firehose.Flush(ctx); err != nil {
		return err
	}

	// Another one reads all that there is, and then ends.
	source, err := kafka.NewSource(url, "shop", &sinks.SourceOptions{Start: sinks.Start{Oldest: true}, UntilTip: true})
	if err != nil {
		return err
	}
	listener := listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		if b.Kind != listeners.Changes {
			return nil
		}
		var events []string
		for _, e := range b.Events {
			events = append(events, e.Op.String()+" "+e.Key().String())
		}
		fmt.Printf("transaction %d: %s\n", b.Tx.ID, strings.Join(events, ", "))
		return nil
	})
	if _, err := source.Subscribe("example", listener, nil); err != nil {
		return err
	}
	return source.Run(ctx)
}
