package kafka_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func ExampleNewLatest() {
	if err := exampleLatest(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1000 {"op":"create","key":{"id":1000},"before":null,"after":{"id":1000,"seat":"10E"}}
	// 1000 is gone
	// 3000 {"op":"create","key":{"id":3000},"before":null,"after":{"id":3000,"seat":"30A"}}
}

func exampleLatest(ctx context.Context) error {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1)) // stands for yours
	if err != nil {
		return err
	}
	defer broker.Close()
	seeds := strings.Join(broker.ListenAddrs(), ",")

	latest, err := kafka.NewLatest("kafka://"+seeds, "shop", &kafka.Options{Partitions: 1})
	if err != nil {
		return err
	}
	if err := latest.Open(ctx); err != nil {
		return err
	}
	defer latest.Close()

	// A subscription to a source makes these calls.
	for _, b := range []*listeners.Batch{sinktest.Transaction(1, 1), sinktest.Truncate(2), sinktest.Transaction(3, 1)} {
		if err := latest.OnBatch(ctx, b); err != nil {
			return err
		}
	}
	if err := latest.Flush(ctx); err != nil {
		return err
	}

	reader, err := kgo.NewClient(kgo.SeedBrokers(seeds), kgo.ConsumeTopics("latest.shop.public.seats"))
	if err != nil {
		return err
	}
	defer reader.Close()
	for n := 0; n < 3; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, r := range fetches.Records() {
			n++
			if r.Value == nil {
				fmt.Println(string(r.Key), "is gone")
				continue
			}
			fmt.Println(string(r.Key), string(r.Value))
		}
	}
	return nil
}
