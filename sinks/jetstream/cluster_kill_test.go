package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// anyOf connects to whichever server of a cluster is there.
func anyOf(t *testing.T, servers []*server.Server) *nats.Conn {
	t.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	nc, err := jetstream.Connect(strings.Join(urls, ","), &jetstream.ConnectOptions{ReconnectWait: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// killLeader ends the server that leads a stream, and waits until another one
// does.
func killLeader(t *testing.T, servers []*server.Server, stream string) {
	t.Helper()
	leader := func() *server.Server {
		for _, s := range servers {
			if s.Running() && s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
				return s
			}
		}
		return nil
	}
	eventually(t, "a leader of "+stream, func() bool { return leader() != nil })
	killed := leader()
	killed.Shutdown()
	killed.WaitForShutdown()
	eventually(t, "another leader of "+stream, func() bool { return leader() != nil })
}

// The server that leads the queue dies under load: no command is lost, and with
// the inbox each has one effect.
func TestClusterLeaderOfAQueueIsKilled(t *testing.T) {
	t.Parallel()
	const commands, killAt = 300, 100
	servers := clusterServers(t)
	opts := &jetstream.CommandOptions{Replicas: 3, AckTimeout: 2 * time.Second}
	sender := newCommands(t, anyOf(t, servers), opts)
	eventually(t, "the queue", func() bool { return sender.Open(t.Context(), "fleet") == nil })

	var mu sync.Mutex
	effects := make(map[string]int)
	done := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(effects)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 2 {
		nc := anyOf(t, servers)
		inbox := openInbox(t, nc, &jetstream.InboxOptions{Replicas: 3, Claim: 10 * time.Second})
		worker := newCommands(t, nc, opts)
		wg.Go(func() {
			err := worker.Serve(ctx, "fleet", func(_ context.Context, r *sinks.Received) error {
				mu.Lock()
				defer mu.Unlock()
				effects[r.ID]++
				return nil
			}, &sinks.ServePolicy{Inbox: inbox, Lease: 5 * time.Second, MaxAttempts: 1000, FirstDelay: 10 * time.Millisecond, MaxDelay: time.Second})
			if err != nil {
				t.Errorf("Serve = %v", err)
			}
		})
	}
	all := benchCommands(commands)
	begun, sent := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		defer close(sent)
		for i := range all {
			if i == killAt {
				close(begun)
			}
			if err := sender.Send(ctx, all[i]); err != nil {
				t.Errorf("Send(%s) = %v", all[i].ID, err)
				return
			}
		}
	})
	select {
	case <-begun:
	case <-sent: // all of them already, or an error
	}
	killLeader(t, servers, "CMD_FLEET")

	for n := done(); n < commands; n = done() { // for as long as there is progress
		eventually(t, fmt.Sprintf("more than %d of %d commands", n, commands), func() bool { return done() > n })
	}
	<-sent // the last answer may come after the effect
	// What would come again is in the queue until it is confirmed.
	eventually(t, "an empty queue", func() bool {
		q, err := sender.Queues(t.Context())
		return err == nil && len(q) == 1 && q[0].Waiting+q[0].Running == 0
	})
	mu.Lock()
	defer mu.Unlock()
	for i := range all {
		if n := effects[all[i].ID]; n != 1 {
			t.Errorf("command %s had %d effects, want 1", all[i].ID, n)
		}
	}
	for d, err := range sender.Dead(t.Context(), "fleet") {
		t.Errorf("dead letter %+v, %v", d.Dead, err)
	}
}

// The server that leads the stream dies while one firehose writes it and a
// source reads it: the source tells each event once, in order.
func TestClusterLeaderIsKilledBeforeASource(t *testing.T) {
	t.Parallel()
	const transactions, killAt = 150, 50
	servers := clusterServers(t)
	f := openAnew(t, anyOf(t, servers), &jetstream.Options{Replicas: 3, AckTimeout: 2 * time.Second})
	var batches []*listeners.Batch
	for i := range uint64(transactions) {
		batches = append(batches, transaction(i+1, 5))
	}
	store(t, f, batches[:1])
	s := source(t, anyOf(t, servers), &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	r := new(listenertest.Recorder)
	sinktest.Subscribe(t, s, r, nil)
	sinktest.Start(t, s)

	reached, written := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(written)
		for i, b := range batches[1:] {
			if i == killAt {
				close(reached)
			}
			if err := feed(t.Context(), f, []*listeners.Batch{b}); err != nil {
				written <- fmt.Errorf("batch %s: %w", b.Position, err)
				return
			}
		}
	}()
	select {
	case <-reached:
	case err := <-written: // all of them already, or an error
		if err != nil {
			t.Fatal(err)
		}
	}
	killLeader(t, servers, "CDC_SHOP")
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	flush(t, f)
	want := sinktest.Events(sinktest.Recorded(batches...))
	eventually(t, "all events", func() bool { return len(sinktest.Events(r.Batches())) >= len(want) })
	if diff := cmp.Diff(want, sinktest.Events(r.Batches())); diff != "" {
		t.Errorf("events of the source (-want +got):\n%s", diff)
	}
}
