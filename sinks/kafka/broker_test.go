package kafka_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/internal/kafkaserver"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A broker is a real one, in a process of its own.
type broker struct {
	*cluster
	server *kafkaserver.Server
}

// runBroker starts a Kafka from the jars in ROWCALL_KAFKA_LIBS.
func runBroker(t *testing.T) *broker {
	t.Helper()
	libs := os.Getenv(kafkaserver.LibsVariable)
	if libs == "" {
		t.Skip("no real Kafka: ROWCALL_KAFKA_LIBS names no directory with its jars; make test-kafka gets them")
	}
	s, err := kafkaserver.Start(t.Context(), &kafkaserver.Options{Libs: libs, Dir: t.TempDir(), Settings: map[string]string{"log.cleaner.backoff.ms": "100"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return &broker{cluster: &cluster{seeds: []string{s.Addr()}}, server: s}
}

// start returns when the broker answers.
func (b *broker) start(t *testing.T) {
	t.Helper()
	if err := b.server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// kill ends the broker without a word.
func (b *broker) kill() { b.server.Kill() }

// settle waits until no transaction is under way in a topic: a broker answers a
// commit before its marks are in all partitions.
func (b *broker) settle(t *testing.T, topic string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("a transaction does not end"))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		committed, err := admin.ListCommittedOffsets(ctx, topic)
		ends, endErr := admin.ListEndOffsets(ctx, topic)
		open := err != nil || endErr != nil
		ends.Each(func(end kadm.ListedOffset) {
			stable, ok := committed.Lookup(topic, end.Partition)
			open = open || !ok || stable.Err != nil || end.Err != nil || stable.Offset != end.Offset
		})
		if !open {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx), errors.Join(err, endErr))
		}
	}
}

// A real broker is killed and started again, and the writer with it, at random.
func TestRealBrokerIsKilledAndNothingIsLostOrDoubled(t *testing.T) {
	b := runBroker(t)
	for name, opts := range map[string]kafka.Options{"transactions": {}, "no transactions": {NoTransactions: true}} {
		t.Run(name, func(t *testing.T) {
			r := random(t, 11)
			batches := sinktest.History(r, 20_000)
			f := open(t, b.cluster, &opts)
			from := 0
			for from < len(batches) {
				to := min(from+1+r.IntN(len(batches)/6), len(batches))
				fed := make(chan error, 1)
				go func() { fed <- sinktest.Feed(t.Context(), f, batches[from:to]) }()
				if r.IntN(4) == 0 {
					b.kill()
					b.start(t)
				}
				if err := <-fed; err != nil {
					t.Fatal(err)
				}
				if r.IntN(2) == 0 {
					from = to
					continue
				}
				if opts.NoTransactions || r.IntN(2) == 0 {
					f.Close() // nothing else would keep it from going on
				}
				f = open(t, b.cluster, &opts)
				store(t, f, batches[:to]) // everything again
				from = to
			}
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.settle(t, seatsTopic)
			verify(t, b.cluster, batches)
			deleteTopics(t, b.cluster)
		})
	}
}

func deleteTopics(t *testing.T, c *cluster) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).DeleteTopics(t.Context(), seatsTopic); err != nil {
		t.Fatal(err)
	}
}
