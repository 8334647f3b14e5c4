package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func connect(t testing.TB, s *natstest.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := jetstream.Connect(s.URL(), &jetstream.ConnectOptions{ReconnectWait: 10 * time.Millisecond, Nats: opts})
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// beside has the tests of a suite run beside others. Each has a server of its own.
func beside[S any](start func(testing.TB) S) func(testing.TB) S {
	return func(t testing.TB) S {
		t.Helper()
		if test, ok := t.(*testing.T); ok {
			test.Parallel()
		}
		return start(t)
	}
}

// serverHas reports whether the server is NATS 2.minor or later.
func serverHas(t testing.TB, nc *nats.Conn, minor int) bool {
	t.Helper()
	var major, has int
	if _, err := fmt.Sscanf(nc.ConnectedServerVersion(), "%d.%d", &major, &has); err != nil {
		t.Fatalf("the server's version is %q: %v", nc.ConnectedServerVersion(), err)
	}
	return major > 2 || major == 2 && has >= minor
}

// needs skips a test of what the server cannot do.
func needs(t testing.TB, nc *nats.Conn, minor int) {
	t.Helper()
	if !serverHas(t, nc, minor) {
		t.Skipf("the server is NATS %s, and this needs 2.%d", nc.ConnectedServerVersion(), minor)
	}
}

// needsFor is needs for what options ask for. Fast ingest is done without where the
// server has none.
func needsFor(t testing.TB, nc *nats.Conn, opts *jetstream.Options) {
	t.Helper()
	if opts != nil && opts.Atomic {
		needs(t, nc, 12)
	}
}

// open returns a firehose that is closed at the test's end.
func open(t testing.TB, nc *nats.Conn, opts *jetstream.Options) *sinks.Firehose {
	t.Helper()
	f, err := tryOpen(t, nc, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return f
}

// openAnew is open behind the deletion of the stream, since the server may still be at
// work on its files, and where a short AckTimeout or an election may end one try.
func openAnew(t testing.TB, nc *nats.Conn, opts *jetstream.Options) *sinks.Firehose {
	t.Helper()
	var f *sinks.Firehose
	eventually(t, "the stream is made anew", func() bool {
		var err error
		f, err = tryOpen(t, nc, opts)
		return err == nil
	})
	return f
}

func tryOpen(t testing.TB, nc *nats.Conn, opts *jetstream.Options) (*sinks.Firehose, error) {
	t.Helper()
	var o jetstream.Options
	if opts != nil {
		o = *opts
	}
	if os.Getenv("ROWCALL_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	f, err := jetstream.New(nc, "shop", &o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(f.Close)
	return f, f.Open(t.Context())
}

// feed does what a subscription does.
func feed(ctx context.Context, f *sinks.Firehose, batches []*listeners.Batch) error {
	for _, b := range batches {
		select {
		case <-f.Stalled():
			if err := f.Flush(ctx); err != nil {
				return fmt.Errorf("flush before %s: %w", b.Position, err)
			}
		default:
		}
		if err := f.OnBatch(ctx, b); err != nil {
			return fmt.Errorf("batch %s: %w", b.Position, err)
		}
	}
	return nil
}

func store(t testing.TB, f *sinks.Firehose, batches []*listeners.Batch) {
	t.Helper()
	if err := feed(t.Context(), f, batches); err != nil {
		t.Fatal(err)
	}
	flush(t, f)
	if last := batches[len(batches)-1].Position; f.Stored().Compare(last) < 0 {
		t.Errorf("Stored after a flush = %s, want %s at least", f.Stored(), last)
	}
}

func flush(t testing.TB, f *sinks.Firehose) {
	t.Helper()
	if err := f.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

// contents reads a whole stream, a line for each message.
func contents(t testing.TB, nc *nats.Conn) []string {
	t.Helper()
	return readLines(t, nc, nil)
}

func readLines(t testing.TB, nc *nats.Conn, opts *jetstream.ReadOptions) []string {
	t.Helper()
	// After a fault the connection may still be on its way back.
	for tries := 0; nc.FlushTimeout(2*time.Second) != nil; tries++ {
		if tries == 10 {
			t.Fatalf("the connection does not come back: %v", nc.LastError())
		}
	}
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream has a leader", func() bool { // a fault may have been the last thing
		s, err := js.Stream(t.Context(), "CDC_SHOP")
		return errors.Is(err, natsjs.ErrStreamNotFound) || err == nil && (s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader != "")
	})
	var lines []string
	var last uint64
	for m, err := range jetstream.Read(t.Context(), nc, "CDC_SHOP", opts) {
		if err != nil {
			t.Fatalf("Read after sequence %d: %v", last, err)
		}
		last = m.Sequence
		lines = append(lines, line(&m))
	}
	return lines
}

func line(m *jetstream.Message) string {
	if m.Reset {
		return "reset " + m.Position.String()
	}
	_, key, _ := strings.Cut(string(m.Key), ":")
	l := fmt.Sprintf("%s %s %s %s", m.Op, m.Position, strings.TrimSuffix(key, "}"), m.After)
	if m.TxEnd {
		l += " end"
	}
	return l
}

func verify(t testing.TB, nc *nats.Conn, batches []*listeners.Batch) {
	t.Helper()
	got, want := contents(t, nc), stored(batches)
	if diff := cmp.Diff(want, got); diff != "" {
		if len(diff) > 3000 {
			diff = diff[:3000] + "…"
		}
		t.Errorf("the stream holds %d messages, want %d (-want +got):\n%s", len(got), len(want), diff)
	}
}

// eventually polls.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-timeout.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
