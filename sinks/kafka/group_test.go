package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

const groupPartitions = 8

func TestGroups(t *testing.T) {
	t.Parallel()
	sinktest.GroupsAtOnce(t, func(t testing.TB) sinktest.GroupServer { return groupServer(t, nil) })
}

// groupServer starts a fake cluster, and a firehose whose topics exist. Unlike
// Kafka, the fake one gives up members that wait in JoinGroup for longer than
// their session timeout, so it has no SlowDrains.
func groupServer(t testing.TB, opts *kafka.Options) sinktest.GroupServer {
	return groupServerOn(t, run(t, kfake.GroupMinSessionTimeout(100*time.Millisecond)), opts)
}

func groupServerOn(t testing.TB, c *cluster, opts *kafka.Options) sinktest.GroupServer {
	o := kafka.Options{Partitions: groupPartitions}
	if opts != nil {
		o.NoTransactions = opts.NoTransactions
	}
	f := open(t, c, &o)
	admin := adminOf(t, c)
	if _, err := admin.CreateTopic(t.Context(), groupPartitions, 1, nil, seatsTopic); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f = open(t, c, &o)
	return sinktest.GroupServer{
		Partitions: groupPartitions,
		Store:      func(t testing.TB, batches []*listeners.Batch) { store(t, f, batches) },
		Join:       func(t testing.TB) *sinktest.GroupClient { return groupClient(t, c) },
		Forget: func(t testing.TB) {
			ends, err := admin.ListEndOffsets(t.Context(), seatsTopic)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := admin.DeleteRecords(t.Context(), ends.Offsets()); err != nil {
				t.Fatal(err)
			}
		},
		Fault: func(testing.TB) { c.ShufflePartitionLeaders() },
	}
}

func adminOf(t testing.TB, c *cluster) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

func groupClient(t testing.TB, c *cluster) *sinktest.GroupClient {
	t.Helper()
	w := new(sinktest.Wire)
	g, err := kafka.NewGroups(c.url(), sinktest.Database, &kafka.GroupsOptions{
		NewTopics: 200 * time.Millisecond, Client: []kgo.Opt{kgo.Dialer(w.DialContext)},
	})
	if err != nil {
		t.Fatalf("NewGroups: %v", err)
	}
	return &sinktest.GroupClient{Broker: g, Wire: w}
}
