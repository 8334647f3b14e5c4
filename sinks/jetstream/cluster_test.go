package jetstream_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
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
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready after 10s")
	}
	return s
}

// A stream on three servers whose leader steps down and whose servers lose
// their connections in mid-load.
func TestClusterLeaderChangesInMidLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers take a while")
	}
	ports := make([]int, 3)
	routes := make([]*url.URL, len(ports))
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it is a TCP listener
		routes[i] = &url.URL{Scheme: "nats", Host: l.Addr().String()}
		l.Close()
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
	nc, err := jetstream.Connect(servers[0].ClientURL(), &jetstream.ConnectOptions{ReconnectWait: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	chaos(t, nc, &jetstream.Options{Replicas: 3, MaxPending: 256, AckTimeout: 2 * time.Second}, 50, 12, func() {
		if _, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN.CDC_SHOP", nil); err != nil {
			t.Logf("step down: %v", err)
		}
	})
}

func TestNoJetStream(t *testing.T) {
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
	s := natstest.Run(t)
	nc, err := jetstream.Connect("", &jetstream.ConnectOptions{InProcess: s})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	batches := history(random(t, 60), 1000)
	store(t, open(t, nc, nil), batches)
	verify(t, nc, batches)
}
