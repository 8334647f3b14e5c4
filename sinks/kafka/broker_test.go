package kafka_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/internal/kafkaserver"
	"github.com/rowcall/rowcall/internal/sharedtest"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A broker is a real one, in a process of its own.
type broker struct {
	*cluster
	server *kafkaserver.Server
}

func TestMain(m *testing.M) { os.Exit(sharedBroker.Wrap(m).Run()) }

// sharedBroker starts in seconds, so the tests share it, one after the other. Those that
// kill it start it again.
var sharedBroker = sharedtest.Server[*kafkaserver.Server]{
	Package: "kafka_test",
	Start: func(ctx context.Context) (*kafkaserver.Server, error) {
		dir, err := os.MkdirTemp("", "rowcall-kafka-")
		if err != nil {
			return nil, err
		}
		s, err := kafkaserver.Start(ctx, &kafkaserver.Options{Libs: os.Getenv(kafkaserver.LibsVariable), Dir: dir, Settings: map[string]string{
			"log.cleaner.backoff.ms":                                      "100",
			"group.initial.rebalance.delay.ms":                            "0",
			"group.min.session.timeout.ms":                                "100",
			"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
			"offsets.topic.num.partitions":                                "4",
		}})
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		return s, nil
	},
	Stop: func(s *kafkaserver.Server) error {
		s.Kill()
		return os.RemoveAll(s.Dir())
	},
}

// runBroker returns a Kafka from the jars in ROWCALL_KAFKA_LIBS, without topics of a
// database.
func runBroker(t *testing.T) *broker {
	t.Helper()
	if os.Getenv(kafkaserver.LibsVariable) == "" {
		t.Skip("no real Kafka: ROWCALL_KAFKA_LIBS names no directory with its jars; make test-kafka gets them")
	}
	s := sharedBroker.Get(t)
	b := &broker{cluster: &cluster{seeds: []string{s.Addr()}}, server: s}
	b.deleteTopics(t)
	return b
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
			b.deleteTopics(t)
			const parts, kills = 12, 2
			r := random(t, 11)
			batches := sinktest.History(r, 6000)
			killed := r.Perm(parts)[:kills]
			f := open(t, b.cluster, &opts)
			for i := range parts {
				from, to := len(batches)*i/parts, len(batches)*(i+1)/parts
				fed := make(chan error, 1)
				go func() { fed <- sinktest.Feed(t.Context(), f, batches[from:to]) }()
				if slices.Contains(killed, i) {
					b.kill()
					b.start(t)
				}
				if err := <-fed; err != nil {
					t.Fatal(err)
				}
				if r.IntN(2) == 0 {
					continue
				}
				if opts.NoTransactions || r.IntN(2) == 0 {
					f.Close() // nothing else would keep it from going on
				}
				f = open(t, b.cluster, patient(opts))
				store(t, f, batches[:to]) // everything again
			}
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.settle(t, seatsTopic)
			verify(t, b.cluster, batches)
		})
	}
}

// patient returns options for a broker that takes long to begin on a busy machine.
func patient(o kafka.Options) *kafka.Options {
	o.OpenTimeout = 5 * time.Minute
	return &o
}

// deleteTopics deletes what tests before have made.
func (b *broker) deleteTopics(t *testing.T) {
	t.Helper()
	a := admin(t, b.cluster)
	left := func() []string {
		all, err := a.ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(all.Names(), func(name string) bool { return strings.HasPrefix(name, "_") })
	}
	if names := left(); len(names) > 0 {
		if _, err := a.DeleteTopics(t.Context(), names...); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the topics are gone", func() bool { return len(left()) == 0 })
}
