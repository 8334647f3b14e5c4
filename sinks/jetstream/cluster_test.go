package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// bareServer starts a server with options that the embedded one does not have.
func bareServer(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	o.Host, o.Port, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server is not ready after a minute")
	}
	return s
}

func dialBare(t *testing.T, s *server.Server) *nats.Conn {
	t.Helper()
	nc, err := jetstream.Connect(s.ClientURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// cluster starts three servers and connects to one.
func cluster(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := jetstream.Connect(clusterServers(t)[0].ClientURL(), &jetstream.ConnectOptions{ReconnectWait: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// clusterServers starts three servers.
func clusterServers(t *testing.T) []*server.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("three servers take a while")
	}
	ports := make([]int, 3)
	routes := make([]*url.URL, len(ports))
	for i := range ports {
		for ports[i] = natstest.Port(t); slices.Contains(ports[:i], ports[i]); ports[i] = natstest.Port(t) {
		}
		routes[i] = &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[i])}
	}
	var servers []*server.Server
	for i, port := range ports {
		servers = append(servers, bareServer(t, &server.Options{
			ServerName: fmt.Sprintf("n%d", i), JetStream: true, StoreDir: t.TempDir(), Routes: routes,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
		}))
	}
	eventually(t, "the cluster has a leader and three members", func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() {
				return len(s.JetStreamClusterPeers()) == 3
			}
		}
		return false
	})
	return servers
}

// A stream on three servers whose leader steps down in mid-load.
func TestClusterLeaderChangesInMidLoad(t *testing.T) {
	leaderChangesInMidLoad(t, jetstream.Options{FastIngest: jetstream.FastIngestOff})
}

func leaderChangesInMidLoad(t *testing.T, opts jetstream.Options) {
	t.Helper()
	t.Parallel()
	nc := cluster(t)
	changes := 0
	opts.Replicas, opts.MaxPending, opts.AckTimeout = 3, 256, 2*time.Second
	chaos(t, nc, &opts, 50, 12, func() {
		stepDown := func() bool {
			// Between two leaders nobody answers.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN.CDC_SHOP", nil); err == nil {
				changes++
			}
			return changes > 0
		}
		// One change there has to be, the others may be.
		for tries := 0; !stepDown() && tries < 60; tries++ {
		}
	})
	if t.Logf("%d leader changes", changes); changes == 0 {
		t.Error("no leader stepped down in a minute")
	}
}

// With replicas the server does store events behind a stranger's message that
// took the place of one, if they were on their way when it refused the first.
// They must not stay.
func TestClusterForeignMessageLeavesNoGap(t *testing.T) {
	t.Parallel()
	nc := cluster(t)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	untilStoredBehindAStranger(t, js, func(opts *jetstream.Options) (*sinks.Firehose, func()) {
		return openAnew(t, nc, opts), func() {}
	})
}

// Nor must they stay when the connection breaks before the server's answers have come.
func TestClusterForeignMessageAndLostAnswersLeaveNoGap(t *testing.T) {
	t.Parallel()
	servers := clusterServers(t)
	js, err := natsjs.New(dialBare(t, servers[0]))
	if err != nil {
		t.Fatal(err)
	}
	untilStoredBehindAStranger(t, js, func(opts *jetstream.Options) (*sinks.Firehose, func()) {
		w := new(wire)
		nc, err := jetstream.Connect(servers[0].ClientURL(), &jetstream.ConnectOptions{
			ReconnectWait: time.Millisecond, Nats: []nats.Option{nats.SetCustomDialer(w)},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		o := *opts
		o.AckTimeout = 5 * time.Second
		return openAnew(t, nc, &o), func() { w.lose.Store(1 << 30) }
	})
}

func untilStoredBehindAStranger(t *testing.T, js natsjs.JetStream, open func(*jetstream.Options) (*sinks.Firehose, func())) {
	t.Helper()
	for range 50 {
		if behindAStranger(t, js, open) {
			return
		}
		deleted(t, js)
	}
	t.Log("nothing was ever stored behind the stranger's message, so this run shows nothing")
}

// deleted deletes the stream, which on a busy cluster may take several tries.
func deleted(t *testing.T, js natsjs.JetStream) {
	t.Helper()
	eventually(t, "the stream is deleted", func() bool {
		err := js.DeleteStream(t.Context(), "CDC_SHOP")
		return err == nil || errors.Is(err, natsjs.ErrStreamNotFound)
	})
}

// fencedBehindAStranger feeds a firehose whose place a stranger's message has
// taken, and returns the stream behind that.
func fencedBehindAStranger(t *testing.T, js natsjs.JetStream, f *sinks.Firehose, batches []*listeners.Batch) natsjs.Stream {
	t.Helper()
	err := feed(t.Context(), f, batches)
	if err == nil {
		err = f.Flush(t.Context())
	}
	if _, ok := errors.AsType[*sinks.FencedError](err); !ok {
		t.Fatalf("behind a stranger's message: %v, want a FencedError", err)
	}
	stream, err := js.Stream(t.Context(), "CDC_SHOP")
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// behindAStranger reports whether events were stored behind the stranger's message.
func behindAStranger(t *testing.T, js natsjs.JetStream, opened func(*jetstream.Options) (f *sinks.Firehose, deafen func())) bool {
	t.Helper()
	nc, opts := js.Conn(), &jetstream.Options{Replicas: 3}
	f, deafen := opened(opts)
	batches := []*listeners.Batch{transaction(1, 5), transaction(2, 100), transaction(3, 3)}
	store(t, f, batches[:1])
	if _, err := nc.Request("cdc.shop.hello", nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	deafen()
	stream := fencedBehindAStranger(t, js, f, batches[1:2])
	info := stream.CachedInfo().State
	t.Logf("%d messages, the last sequence is %d", info.Msgs, info.LastSeq)
	if info.Msgs != 6 {
		t.Errorf("%d messages are left, want 5 and the stranger's", info.Msgs)
	}
	if err := stream.DeleteMsg(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	store(t, openAnew(t, nc, opts), batches)
	verify(t, nc, batches)
	return info.LastSeq > 6
}

func TestNoJetStream(t *testing.T) {
	t.Parallel()
	s := bareServer(t, &server.Options{})
	nc, err := jetstream.Connect(s.ClientURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, err = tryOpen(t, nc, nil)
	wantStreamError(t, err, "has no JetStream; start it with -js")
}

func TestInProcess(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	if conn, err := s.InProcessConn(); err != nil {
		t.Skip(err)
	} else if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	nc, err := jetstream.Connect("", &jetstream.ConnectOptions{InProcess: s})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	batches := history(random(t, 60), 1000)
	store(t, open(t, nc, nil), batches)
	verify(t, nc, batches)
}
