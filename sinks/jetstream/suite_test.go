package jetstream_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestFirehoses(t *testing.T) {
	t.Parallel()
	sinktest.Firehoses(t, beside(startFirehoses))
}

func startFirehoses(t testing.TB) sinktest.FirehoseServer {
	return startFirehosesWith(t, jetstream.Options{})
}

func startFirehosesWith(t testing.TB, base jetstream.Options) sinktest.FirehoseServer {
	dir := t.TempDir()
	s := natstest.RunWith(t, &natsserver.Options{Dir: dir})
	port := s.Port()
	reader := connect(t, s)
	js, err := natsjs.New(reader)
	if err != nil {
		t.Fatal(err)
	}
	const ackTimeout, grace = time.Second, 5 * time.Second
	create := func(t testing.TB, c natsjs.StreamConfig) {
		t.Helper()
		if _, err := js.CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	return sinktest.FirehoseServer{
		Lanes: 1, Grace: grace, MaxMessage: int(reader.MaxPayload()),
		Connect: func(t testing.TB, o sinktest.FirehoseSetup) *sinktest.FirehoseClient {
			w := new(wire)
			nc, err := jetstream.Connect(s.URL(), &jetstream.ConnectOptions{
				ReconnectWait: 10 * time.Millisecond, Nats: []nats.Option{nats.SetCustomDialer(w)},
			})
			if err != nil {
				t.Fatalf("Connect: %v", err)
			}
			t.Cleanup(nc.Close)
			opts := base
			opts.AckTimeout, opts.TooLarge = ackTimeout, o.TooLarge
			if o.Patient {
				opts.AckTimeout = grace
			}
			if os.Getenv("ROWCALL_TEST_LOG") != "" {
				opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
			if o.Narrow {
				opts.MaxPending = 64
			}
			f, err := jetstream.New(nc, sinktest.Database, &opts)
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			return &sinktest.FirehoseClient{
				Firehose: f, Cut: w.cut,
				Kill:     func() { w.kill(); nc.Close() },
				LoseAcks: func(n int) { w.lose.Store(int64(n)) },
			}
		},
		Contents: func(t testing.TB) [][]string { return [][]string{streamLines(t, reader, js)} },
		Restart: func(t testing.TB) {
			s.Stop()
			next, err := natstest.Start(context.WithoutCancel(t.Context()), &natsserver.Options{Dir: dir, Port: port})
			if err != nil {
				t.Errorf("restart: %v", err)
				return
			}
			t.Cleanup(next.Stop)
			s = next
		},
		Fill: func(t testing.TB) func() {
			stream, err := js.Stream(t.Context(), "CDC_SHOP")
			if err != nil {
				t.Fatal(err)
			}
			free := stream.CachedInfo().Config
			full := free
			full.Discard, full.MaxBytes = natsjs.DiscardNew, int64(stream.CachedInfo().State.Bytes)+2000
			set := func(c natsjs.StreamConfig) {
				if _, err := js.UpdateStream(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
			set(full)
			return func() { set(free) }
		},
		Unpark: func(ctx context.Context, ref string) ([]byte, error) { return jetstream.Unpark(ctx, reader, ref) },
		Misfits: map[string]sinktest.FirehoseMisfit{
			"a work queue": {Make: func(t testing.TB) {
				create(t, natsjs.StreamConfig{Name: "CDC_SHOP", Subjects: []string{"cdc.shop.>"}, Retention: natsjs.WorkQueuePolicy})
			}, Want: "retention"},
			"subjects of another stream": {Make: func(t testing.TB) {
				create(t, natsjs.StreamConfig{Name: "OTHER", Subjects: []string{"cdc.shop.>"}})
			}, Want: "belong to OTHER already"},
			"a stranger's message": {Make: func(t testing.TB) {
				create(t, natsjs.StreamConfig{Name: "CDC_SHOP", Subjects: []string{"cdc.shop.>"}, AllowAtomicPublish: base.Atomic})
				if _, err := js.Publish(t.Context(), "cdc.shop.hello", nil); err != nil {
					t.Fatal(err)
				}
			}, Want: "was not stored by a firehose"},
		},
	}
}

// streamLines reads what the stream holds at this moment.
func streamLines(t testing.TB, nc *nats.Conn, js natsjs.JetStream) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// The server may just have been restarted.
	var stream natsjs.Stream
	eventually(t, "the stream can be asked", func() bool {
		var err error
		stream, err = js.Stream(ctx, "CDC_SHOP")
		return err == nil || errors.Is(err, natsjs.ErrStreamNotFound)
	})
	if stream == nil {
		return nil
	}
	var lines []string
	consumer, err := stream.OrderedConsumer(ctx, natsjs.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for left := int(stream.CachedInfo().State.Msgs); left > 0; {
		fetched, err := consumer.Fetch(min(left, 500), natsjs.FetchMaxWait(9*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range fetched.Messages() {
			left--
			attribute := func(name string) string {
				v, err := sinks.UnescapeHeader(m.Headers().Get("ce-" + name))
				if err != nil {
					t.Errorf("header %s: %v", name, err)
				}
				return v
			}
			body := m.Data()
			if ref := attribute("dataref"); ref != "" {
				if body, err = jetstream.Unpark(ctx, nc, ref); err != nil {
					t.Fatal(err)
				}
			}
			lines = append(lines, sinktest.Line(attribute("id"), attribute("subject"), attribute("txend") != "", body))
		}
		if err := fetched.Error(); err != nil {
			t.Fatal(err)
		}
	}
	return lines
}
