package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Topics returns the names of the topics that there are, sorted.
func Topics(ctx context.Context, seeds []string) ([]string, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx)
	return topics.Names(), err
}

// Records returns what is committed in a topic at this moment, partition by
// partition in order. A topic that does not exist has nothing.
func Records(ctx context.Context, seeds []string, topic string) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("reading does not end"))
	defer cancel()
	asker, err := kgo.NewClient(kgo.SeedBrokers(seeds...))
	if err != nil {
		return nil, err
	}
	defer asker.Close()
	ends, err := kadm.NewClient(asker).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	at := make(map[int32]kgo.Offset)
	left := make(map[int32]int64) // the last offset to come
	ends.Each(func(o kadm.ListedOffset) {
		switch {
		case errors.Is(o.Err, kerr.UnknownTopicOrPartition):
		case o.Err != nil:
			err = fmt.Errorf("topic %s, partition %d: %w", topic, o.Partition, o.Err)
		case o.Offset > 0:
			at[o.Partition], left[o.Partition] = kgo.NewOffset().AtStart(), o.Offset-1
		}
	})
	if err != nil || len(left) == 0 {
		return nil, err
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}), kgo.FetchMaxWait(50*time.Millisecond), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var all []*kgo.Record
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("topic %s, %d partitions are left: %w", topic, len(left), context.Cause(ctx))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			last, wanted := left[r.Partition]
			if !wanted {
				return // stored meanwhile
			}
			if r.Offset >= last {
				delete(left, r.Partition)
			}
			if r.Offset <= last && !r.Attrs.IsControl() {
				all = append(all, r)
			}
		})
	}
	return all, nil
}
