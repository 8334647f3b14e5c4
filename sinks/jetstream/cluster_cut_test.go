package jetstream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A connection that breaks leaves messages behind that the leader has taken and
// not replicated yet: they are stored after the firehose has read the stream's
// end, and it sends the same ones again.
func TestClusterConnectionsCut(t *testing.T) {
	t.Parallel()
	servers := clusterServers(t)
	for name, opts := range map[string]jetstream.Options{"async": {FastIngest: jetstream.FastIngestOff}, "fast": always, "wholes": asWholes} {
		t.Run(name, func(t *testing.T) {
			w := new(wire)
			nc, err := jetstream.Connect(servers[0].ClientURL(), &jetstream.ConnectOptions{
				ReconnectWait: time.Millisecond, Nats: []nats.Option{nats.SetCustomDialer(w)},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			opts.Replicas, opts.MaxPending, opts.AckTimeout = 3, 256, 2*time.Second
			chaos(t, nc, &opts, 51, 10, w.cut)
			js, err := natsjs.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			deleted(t, js)
		})
	}
}
