package kafka_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// cdc.shop.public.seats public.seats/1000 {"op":"create","key":{"id":1000},"before":null,"after":{"id":1000,"seat":"10E"}}
}

func example(ctx context.Context) error {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1)) // stands for yours
	if err != nil {
		return err
	}
	defer broker.Close()
	seeds := strings.Join(broker.ListenAddrs(), ",")

	firehose, err := kafka.New("kafka://"+seeds, "shop", nil)
	if err != nil {
		return err
	}
	if err := firehose.Open(ctx); err != nil {
		return err
	}
	defer firehose.Close()

	// A subscription to a source makes these calls.
	if err := firehose.OnBatch(ctx, sinktest.Transaction(1, 1)); err != nil {
		return err
	}
	if err := firehose.Flush(ctx); err != nil {
		return err
	}

	reader, err := kgo.NewClient(kgo.SeedBrokers(seeds), kgo.ConsumeTopics("cdc.shop.public.seats"))
	if err != nil {
		return err
	}
	defer reader.Close()
	for _, r := range reader.PollFetches(ctx).Records() {
		fmt.Println(r.Topic, string(r.Key), string(r.Value))
	}
	return nil
}
