package jetstream_test

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestCommands(t *testing.T) {
	t.Parallel()
	sinktest.Commands(t, beside(commandServer))
}

// commandServer starts a server that can be restarted.
func commandServer(t testing.TB) sinktest.CommandServer {
	opts := &natsserver.Options{Dir: t.TempDir(), MaxPayload: 64 << 10, Port: natstest.Port(t)}
	s, err := natstest.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		s.Stop()
	})
	url, port := s.URL(), s.Port()
	client := func(t testing.TB, o *jetstream.CommandOptions) *sinktest.CommandClient {
		t.Helper()
		w := &wire{stream: "CMD_FLEET"}
		nc, err := jetstream.Connect(url, &jetstream.ConnectOptions{
			ReconnectWait: 10 * time.Millisecond, Nats: natsDialer(w),
		})
		if err != nil {
			t.Fatalf("Connect: %v", err)
		}
		t.Cleanup(nc.Close)
		b, err := jetstream.NewCommandBroker(nc, o)
		if err != nil {
			t.Fatalf("NewCommandBroker: %v", err)
		}
		return &sinktest.CommandClient{
			Broker: b, Cut: w.cut, LoseAcks: func(n int) { w.lose.Store(int64(n)) },
			Kill: func() {
				w.kill() // nothing is flushed
				nc.Close()
			},
		}
	}
	quick := jetstream.CommandOptions{AckTimeout: time.Second}
	return sinktest.CommandServer{
		Connect: func(t testing.TB) *sinktest.CommandClient { return client(t, &quick) },
		Calm: func(t testing.TB) *sinktest.CommandClient {
			return client(t, &jetstream.CommandOptions{AckTimeout: 30 * time.Second})
		},
		Restart: func(t testing.TB) {
			mu.Lock()
			defer mu.Unlock()
			s.Stop()
			next, err := natstest.Start(t.Context(), &natsserver.Options{Dir: opts.Dir, Port: port, MaxPayload: opts.MaxPayload})
			if err != nil {
				t.Errorf("restart: %v", err)
				return
			}
			s = next
		},
		Bounded: func(t testing.TB, n int) *sinktest.CommandClient {
			return client(t, &jetstream.CommandOptions{MaxMessages: int64(n)})
		},
		Misconfigure: func(t testing.TB, queue string) {
			createCommandStream(t, url, natsjs.StreamConfig{Name: jetstream.CommandStream(queue), Subjects: []string{"cmd." + queue + ".>"}})
		},
		MaxMessage: 64 << 10,
	}
}

func createCommandStream(t testing.TB, url string, config natsjs.StreamConfig) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatalf("CreateStream(%s): %v", config.Name, err)
	}
}

func natsDialer(d nats.CustomDialer) []nats.Option { return []nats.Option{nats.SetCustomDialer(d)} }
