package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestFirehoses(t *testing.T) {
	sinktest.Firehoses(t, func(t testing.TB) sinktest.FirehoseServer { return startFirehoses(t, kafka.Options{}) })
}

func TestFirehosesWithoutTransactions(t *testing.T) {
	if os.Getenv("ROWCALL_FIREHOSE_FAULTS") == "" {
		t.Skip("the same suite again, for make soak; other tests do without transactions, too")
	}
	sinktest.Firehoses(t, func(t testing.TB) sinktest.FirehoseServer {
		s := startFirehoses(t, kafka.Options{NoTransactions: true})
		s.Unfenced = true
		return s
	})
}

// A suiteWire is a dialer whose connections break, lose answers and die on demand.
type suiteWire struct {
	lose atomic.Int64 // answers still to be lost

	mu    sync.Mutex
	dead  bool
	conns map[net.Conn]bool
}

func (w *suiteWire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		conn.Close()
		return nil, net.ErrClosed
	}
	if w.conns == nil {
		w.conns = make(map[net.Conn]bool)
	}
	w.conns[conn] = true
	return &lossy{Conn: conn, wire: w}, nil
}

func (w *suiteWire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
}

func (w *suiteWire) kill() {
	w.mu.Lock()
	w.dead = true
	w.mu.Unlock()
	w.cut()
}

// lossy closes a connection in place of an answer.
type lossy struct {
	net.Conn
	wire *suiteWire
}

func (c *lossy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.wire.lose.Add(-1) >= 0 {
		c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// runWith starts a fake cluster that keeps its state in a directory.
func runWith(t testing.TB, dir string, ports ...int) *cluster {
	t.Helper()
	opts := []kfake.Opt{kfake.NumBrokers(3), kfake.DataDir(dir)}
	if len(ports) > 0 {
		opts = append(opts, kfake.Ports(ports...))
	}
	// A client that dials a port while nobody listens may get just this port for
	// itself, until it sees that nobody answers.
	c, err := kfake.NewCluster(opts...)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; errors.Is(err, syscall.EADDRINUSE) && tries < 1000; tries++ {
		<-tick.C
		c, err = kfake.NewCluster(opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &cluster{Cluster: c, seeds: c.ListenAddrs()}
}

func (c *cluster) ports(t testing.TB) []int {
	t.Helper()
	var ports []int
	for _, seed := range c.seeds {
		address, err := net.ResolveTCPAddr("tcp", seed)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, address.Port)
	}
	return ports
}

func startFirehoses(t testing.TB, base kafka.Options) sinktest.FirehoseServer {
	dir := t.TempDir()
	c := runWith(t, dir)
	ports := c.ports(t)
	const maxMessage = 20_000
	return sinktest.FirehoseServer{
		Lanes: partitions, MaxMessage: maxMessage,
		Connect: func(t testing.TB, o sinktest.FirehoseSetup) *sinktest.FirehoseClient {
			w := new(suiteWire)
			opts := base
			opts.Partitions, opts.MaxMessageBytes, opts.TooLarge = partitions, maxMessage, o.TooLarge
			opts.Client = []kgo.Opt{kgo.Dialer(w.dial)}
			if o.Narrow {
				opts.MaxPendingBytes = 10_000
			}
			f, err := kafka.New(c.url(), sinktest.Database, &opts)
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			return &sinktest.FirehoseClient{
				Firehose: f, Cut: w.cut, Kill: w.kill,
				LoseAcks: func(n int) { w.lose.Store(int64(1 + n%2)) }, // each breaks a connection
			}
		},
		Contents: func(t testing.TB) [][]string { return contents(t, c) },
		Restart: func(t testing.TB) {
			c.Close()
			next := runWith(t, dir, ports...)
			c.Cluster = next.Cluster
		},
		Fill: func(t testing.TB) func() {
			full := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.KafkaStorageError, Count: -1})
			return full.Remove
		},
		Unpark: func(ctx context.Context, ref string) ([]byte, error) { return kafka.Unpark(ctx, c.url(), ref) },
		Misfits: map[string]sinktest.FirehoseMisfit{
			"another number of partitions": {Make: func(t testing.TB) {
				if err := c.CreateTopic(seatsTopic, 3, nil); err != nil {
					t.Fatal(err)
				}
			}, Want: "it has 3 partitions, not 4"},
			"a stranger's record": {Make: func(t testing.TB) {
				if err := c.CreateTopic(seatsTopic, partitions, nil); err != nil {
					t.Fatal(err)
				}
				produce(t, c, &kgo.Record{Topic: seatsTopic, Value: []byte("hello")})
			}, Want: "was not stored by a firehose"},
		},
	}
}

func TestUnparkNeedsAReference(t *testing.T) {
	t.Parallel()
	for _, ref := range []string{"", "cdc.shop._parked", "kafka:x?offset=1", "kafka:?offset=1&pieces=1", "kafka:x?offset=-1&pieces=1", "nats-object:X/1"} {
		if body, err := kafka.Unpark(t.Context(), "kafka://127.0.0.1:1", ref); err == nil {
			t.Errorf("Unpark(%q) = %d bytes, want an error", ref, len(body))
		}
	}
}

// A body is there twice, since a process died between storing it and storing its
// record.
func TestABodyParkedTwiceIsFound(t *testing.T) {
	t.Parallel()
	c := run(t, kfake.SeedTopics(1, "x"))
	produce(t, c, &kgo.Record{Topic: "x", Value: []byte("a piece of another one")})
	for _, piece := range []string{"one ", "and ", "two"} {
		produce(t, c, &kgo.Record{Topic: "x", Value: []byte(piece)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	body, err := kafka.Unpark(ctx, c.url(), "kafka:x?offset=1&pieces=3")
	if err != nil || !bytes.Equal(body, []byte("one and two")) {
		t.Errorf("Unpark = %q, %v; want the pieces in order", body, err)
	}
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	if _, err := kafka.Unpark(short, c.url(), "kafka:x?offset=3&pieces=3"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Unpark of pieces that are not there = %v, want that it waits for them", err)
	}
}
