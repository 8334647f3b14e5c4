package jetstream_test

import (
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// One of three servers is killed, the one that leads the stream, under load.
func TestGroupGoesOnWhenAServerIsKilled(t *testing.T) {
	t.Parallel()
	servers := clusterServers(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	url := strings.Join(urls, ",")
	nc := connectTo(t, url)
	f := openAnew(t, nc, &jetstream.Options{Partitions: groupPartitions, Replicas: 3, AckTimeout: 2 * time.Second})
	server := sinktest.GroupServer{
		Partitions: groupPartitions,
		Store:      func(t testing.TB, batches []*listeners.Batch) { store(t, f, batches) },
		Join:       func(t testing.TB) *sinktest.GroupClient { return groupClient(t, url, 3) },
	}
	sinktest.GroupUnderLoad(t, server, func() {
		js, err := natsjs.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		leader := ""
		eventually(t, "the stream has a leader", func() bool {
			stream, err := js.Stream(t.Context(), "CDC_SHOP")
			if err == nil && stream.CachedInfo().Cluster != nil {
				leader = stream.CachedInfo().Cluster.Leader
			}
			return leader != ""
		})
		for _, s := range servers {
			if s.Name() == leader {
				t.Logf("%s is killed", s.Name())
				s.Shutdown()
				return
			}
		}
		t.Fatalf("no server is the leader, %q", leader)
	})
}
