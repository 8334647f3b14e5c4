package kafka_test

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/internal/kafkatest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

const (
	partitions = 4
	seatsTopic = "cdc.shop.public.seats"
)

// A cluster is a fake one, or a real broker.
type cluster struct {
	*kfake.Cluster
	seeds []string
}

func (c *cluster) url() string { return "kafka://" + strings.Join(c.seeds, ",") }

// run starts a fake cluster of three brokers.
func run(t testing.TB, opts ...kfake.Opt) *cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &cluster{Cluster: c, seeds: c.ListenAddrs()}
}

func random(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func open(t testing.TB, c *cluster, opts *kafka.Options) *sinks.Firehose {
	t.Helper()
	f, err := tryOpen(t, c, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return f
}

func tryOpen(t testing.TB, c *cluster, opts *kafka.Options) (*sinks.Firehose, error) {
	t.Helper()
	o := kafka.Options{Partitions: partitions}
	if opts != nil {
		o = *opts
		if o.Partitions == 0 {
			o.Partitions = partitions
		}
	}
	if os.Getenv("ROWCALL_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	f, err := kafka.New(c.url(), sinktest.Database, &o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(f.Close)
	return f, f.Open(t.Context())
}

func store(t testing.TB, f *sinks.Firehose, batches []*listeners.Batch) {
	t.Helper()
	if err := sinktest.Feed(t.Context(), f, batches); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
	if last := batches[len(batches)-1].Position; f.Stored().Compare(last) < 0 {
		t.Errorf("Stored after a flush = %s, want %s at least", f.Stored(), last)
	}
}

// contents reads what is committed in the topic of the seats, a line for each
// record, by partition.
func contents(t testing.TB, c *cluster) [][]string {
	t.Helper()
	lines := make([][]string, partitions)
	for _, r := range records(t, c, seatsTopic) {
		var id, subject string
		end, body := false, r.Value
		for _, h := range r.Headers {
			switch h.Key {
			case "ce_id":
				id = string(h.Value)
			case "ce_subject":
				subject = string(h.Value)
			case "ce_txend":
				end = true
			case "ce_dataref":
				var err error
				if body, err = kafka.Unpark(t.Context(), c.url(), string(h.Value)); err != nil {
					t.Fatal(err)
				}
			}
		}
		lines[r.Partition] = append(lines[r.Partition], sinktest.Line(id, subject, end, body))
	}
	return lines
}

// records reads what is committed in a topic at this moment.
func records(t testing.TB, c *cluster, topic string) []*kgo.Record {
	t.Helper()
	all, err := kafkatest.Records(t.Context(), c.seeds, topic)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func verify(t testing.TB, c *cluster, batches []*listeners.Batch) {
	t.Helper()
	if diff := cmp.Diff(sinktest.Frames(batches, partitions), contents(t, c)); diff != "" {
		if len(diff) > 3000 {
			diff = diff[:3000] + "…"
		}
		t.Errorf("the topic does not hold the history (-want +got):\n%s", diff)
	}
}
