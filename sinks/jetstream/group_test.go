package jetstream_test

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestGroups(t *testing.T) {
	t.Parallel()
	sinktest.Groups(t, beside(groupServer))
}

const groupPartitions = 8

// groupServer starts a server that can be restarted.
func groupServer(t testing.TB) sinktest.GroupServer {
	dir := t.TempDir()
	s, err := natstest.Start(t.Context(), &natsserver.Options{Dir: dir, Port: natstest.Port(t)})
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
	nc := connectTo(t, url)
	needs(t, nc, 11)
	f := openAnew(t, nc, &jetstream.Options{Partitions: groupPartitions, AckTimeout: time.Second}) // which bounds Open, too
	return sinktest.GroupServer{
		Partitions: groupPartitions, Markers: true, SlowDrains: true,
		Store: func(t testing.TB, batches []*listeners.Batch) { store(t, f, batches) },
		Join:  func(t testing.TB) *sinktest.GroupClient { return groupClient(t, url, 1) },
		Forget: func(t testing.TB) {
			js, err := natsjs.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), "CDC_SHOP")
			if err == nil {
				err = stream.Purge(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		Fault: func(t testing.TB) {
			mu.Lock()
			defer mu.Unlock()
			s.Stop()
			next, err := natstest.Start(t.Context(), &natsserver.Options{Dir: dir, Port: port})
			if err != nil {
				t.Errorf("restart: %v", err)
				return
			}
			s = next
		},
	}
}

func connectTo(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := jetstream.Connect(url, &jetstream.ConnectOptions{ReconnectWait: 10 * time.Millisecond, Nats: opts})
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func groupClient(t testing.TB, url string, replicas int) *sinktest.GroupClient {
	t.Helper()
	w := new(sinktest.Wire)
	nc := connectTo(t, url, nats.SetCustomDialer(w))
	g, err := jetstream.NewGroups(nc, sinktest.Database, &jetstream.GroupsOptions{Partitions: groupPartitions, Replicas: replicas})
	if err != nil {
		t.Fatalf("NewGroups: %v", err)
	}
	return &sinktest.GroupClient{Broker: g, Wire: w}
}
