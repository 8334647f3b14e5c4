package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A queue is served from where JetStream has another name: behind a leaf node,
// which has none itself, and from an account that imports it.
func TestServeWhereJetStreamIsElsewhere(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		at   func(*testing.T) string
		opts jetstream.CommandOptions
	}{
		"domain": {leafURL, jetstream.CommandOptions{Domain: "hub"}},
		"prefix": {importURL, jetstream.CommandOptions{APIPrefix: "hub.API"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc, err := jetstream.Connect(tc.at(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			tc.opts.AckTimeout = time.Minute
			broker, err := jetstream.NewCommandBroker(nc, &tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			commands, err := sinks.NewCommands(broker, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(commands.Close)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			serving, stop := context.WithCancel(ctx)
			served := make(chan error, 1)
			go func() {
				served <- commands.Serve(serving, "fleet", func(_ context.Context, r *sinks.Received) error {
					switch {
					case r.Name == "bury":
						return sinks.Permanent(errors.New("no such train"))
					case r.Attempt == 1:
						return errors.New("not yet")
					}
					r.Reply([]byte("done at last"))
					return nil
				}, &sinks.ServePolicy{FirstDelay: time.Millisecond})
			}()
			reply, err := commands.Call(ctx, sinks.Command{Queue: "fleet", Name: "add", ID: "1"})
			if err != nil || string(reply.Body) != "done at last" {
				t.Errorf("Call = %q, %v, want the reply of the second attempt", reply.Body, err)
			}
			if err := commands.Send(ctx, sinks.Command{Queue: "fleet", Name: "bury", ID: "2"}); err != nil {
				t.Errorf("Send: %v", err)
			}
			eventually(t, "one dead letter", func() bool {
				var ids []string
				for d, err := range commands.Dead(ctx, "fleet") {
					if err != nil {
						t.Fatalf("Dead: %v", err)
					}
					ids = append(ids, d.Envelope.ID)
				}
				return len(ids) == 1 && ids[0] == "2"
			})
			eventually(t, "an empty queue", func() bool {
				queues, err := commands.Queues(ctx)
				return err == nil && len(queues) == 1 && queues[0].Waiting == 0 && queues[0].Dead == 1
			})
			stop()
			if err := <-served; err != nil {
				t.Errorf("Serve = %v, want nil", err)
			}
		})
	}
}

// leafURL starts a server with JetStream and one without that is its leaf node.
func leafURL(t *testing.T) string {
	hub := &server.Options{
		JetStream: true, StoreDir: t.TempDir(), JetStreamDomain: "hub", ServerName: "hub",
		LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT},
	}
	bareServer(t, hub) // which notes its port
	leaf := bareServer(t, &server.Options{ServerName: "leaf", LeafNode: server.LeafNodeOpts{
		ReconnectInterval: 20 * time.Millisecond,
		Remotes:           []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", hub.LeafNode.Port)}}}},
	}})
	eventually(t, "the leaf node is connected", func() bool { return leaf.NumLeafNodes() == 1 })
	return leaf.ClientURL()
}

// importURL starts a server whose account APP has JetStream as hub.API, from HUB.
func importURL(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "server.conf")
	err := os.WriteFile(file, fmt.Appendf(nil, `
		jetstream { store_dir: %q }
		accounts {
			HUB {
				jetstream: enabled
				exports: [
					{ service: "$JS.API.>", response_type: stream }, { service: "$JS.ACK.>" }, { service: "cmd.>" }, { service: "cmdat.>" }, { service: "dlq.>" }
				]
			}
			APP {
				users: [{ user: app, password: app }]
				imports: [
					{ service: { account: HUB, subject: "$JS.API.>" }, to: "hub.API.>" }, { service: { account: HUB, subject: "$JS.ACK.>" } }
					{ service: { account: HUB, subject: "cmd.>" } }, { service: { account: HUB, subject: "cmdat.>" } }, { service: { account: HUB, subject: "dlq.>" } }
				]
			}
		}`, t.TempDir()), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("nats://app:app@%s", bareServer(t, o).Addr())
}
