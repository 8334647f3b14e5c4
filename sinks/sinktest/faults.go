package sinktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func lostAck(b *bench) {
	client := b.server.Connect(b.TB)
	if client.LoseAcks == nil {
		b.Skip("this broker's confirmations cannot be lost")
	}
	c := b.commands(client, nil)
	var seen tally
	b.send(c, command("first")) // the queue exists
	client.LoseAcks(2)
	b.send(c, command("lost"), command("lost-2"))
	if s := c.Stats(); s.SendRetries == 0 {
		b.Errorf("Stats = %+v: nothing was sent again, so no confirmation was lost", s)
	}
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		seen.add(r.ID)
		return nil
	}, b.once())
	b.empty(c)
	for _, id := range []string{"first", "lost", "lost-2"} {
		if n := len(seen.of(id)); n != 1 {
			b.Errorf("%s was received %d times, want once", id, n)
		}
	}
}

func brokerRestart(b *bench) {
	c := b.connect()
	var seen tally
	for i := range 100 {
		b.send(c, command(fmt.Sprint("b", i)))
	}
	b.server.Restart(b.TB)
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		if seen.add(r.ID); seen.len() == 20 {
			b.server.Restart(b.TB)
		}
		return nil
	}, &sinks.ServePolicy{Lease: time.Second})
	b.empty(c)
	if seen.len() != 100 {
		b.Errorf("%d of 100 commands were carried out", seen.len())
	}
}

func eventsSendOnce(b *bench) {
	schema := listeners.NewSchema("shop", "public", "trains", []listeners.Column{{Name: "id", Key: true}})
	var batches []*listeners.Batch
	for i := range uint64(20) {
		p := listeners.Position{Epoch: 1, Commit: i + 1}
		batches = append(batches, &listeners.Batch{
			Source: "shop", Position: p, First: true, Last: true,
			Events: []listeners.Event{{Op: listeners.Update, Position: p, Schema: schema}},
		})
	}
	c := b.connect()
	l := sinks.CommandsFor(c, func(e *listeners.Event) (*sinks.Command, error) {
		if e.Position.Commit%2 == 0 {
			return nil, nil
		}
		return &sinks.Command{Queue: "fleet", Name: "add-carriage"}, nil
	})
	for range 3 { // as a source does after restarts
		for _, batch := range batches {
			if err := l.OnBatch(b.Context(), batch); err != nil {
				b.Fatalf("OnBatch(%s) = %v", batch.Position, err)
			}
		}
	}
	var seen tally
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		seen.add(r.ID)
		return nil
	}, b.once())
	b.empty(c)
	for _, batch := range batches {
		id, want := "postgres/shop/"+batch.Position.String()+"/add-carriage", 1
		if batch.Position.Commit%2 == 0 {
			want = 0
		}
		if n := len(seen.of(id)); n != want {
			b.Errorf("command %s was received %d times, want %d", id, n, want)
		}
	}
}

// Faults returns how many faults a test injects: 20, or what
// ROWCALL_COMMAND_FAULTS says.
func Faults(t testing.TB) int {
	t.Helper()
	v := os.Getenv("ROWCALL_COMMAND_FAULTS")
	if v == "" {
		return 20
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("ROWCALL_COMMAND_FAULTS=%q is no number of faults", v)
	}
	return n
}

func randomFaults(b *bench) {
	var effects tally
	OnceUnderFaults(b.TB, b.server, &sinks.ServePolicy{Inbox: new(Inbox)}, func(_ context.Context, id string) error {
		effects.add(id)
		return nil
	}, func(id string) int { return len(effects.of(id)) })
}

// OnceUnderFaults sends commands and serves them with three workers, while at
// random moments connections break, workers die, confirmations are lost and the
// broker restarts. In the end each command has to have had one effect. The
// policy brings the inbox; effect is called at the end of an attempt and counted
// by count.
func OnceUnderFaults(t testing.TB, server CommandServer, policy *sinks.ServePolicy, effect func(ctx context.Context, id string) error, count func(id string) int) {
	t.Helper()
	b := &bench{TB: t, server: server}
	seed := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("ROWCALL_TEST_SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with ROWCALL_TEST_SEED=%d", seed)
		}
	})
	p := *policy
	p.Lease, p.MaxAttempts, p.FirstDelay, p.MaxDelay, p.DrainTimeout = time.Second, 1000, 5*time.Millisecond, 50*time.Millisecond, time.Second
	handler := func(ctx context.Context, r *sinks.Received) error {
		wait := time.NewTimer(time.Duration(rand.IntN(4000)) * time.Microsecond)
		defer wait.Stop()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wait.C:
		}
		if rand.IntN(10) == 0 {
			return errors.New("a bad moment")
		}
		return effect(ctx, r.ID)
	}
	var clients [3]*CommandClient
	start := func(i int) {
		clients[i] = server.Connect(t)
		b.serve(b.commands(clients[i], nil), handler, &p)
	}
	for i := range clients {
		start(i)
	}

	faults := Faults(t)
	sender := server.Connect(t)
	c := b.commands(sender, &sinks.CommandsOptions{SendTimeout: b.patience()})
	b.eventually("an open queue", func() error { return c.Open(t.Context(), fleet) })
	stop := make(chan struct{})
	var progress atomic.Int64
	var wg sync.WaitGroup
	sent := make([]int, 3)
	for s := range sent {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := c.Send(t.Context(), command(fmt.Sprintf("%d-%d", s, sent[s]))); err != nil {
					t.Errorf("Send: %v", err)
					return
				}
				sent[s]++
				progress.Add(1)
				pause := time.NewTimer(2 * time.Millisecond) // the workers keep up
				<-pause.C
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 0))
	const between = 10
	for n := range faults {
		// A fault harms nothing if all are still busy with the last one.
		b.eventually("commands between two faults", func() error {
			if got := progress.Load(); got < int64(n*between) {
				return fmt.Errorf("%d commands are sent, want %d", got, n*between)
			}
			return nil
		})
		moment := time.NewTimer(time.Duration(r.IntN(100)) * time.Millisecond)
		<-moment.C
		i := r.IntN(len(clients))
		switch r.IntN(5) {
		case 0:
			server.Restart(t)
		case 1:
			clients[i].Kill()
			start(i)
		case 2:
			clients[i].Cut()
		case 3:
			sender.Cut()
		case 4:
			if sender.LoseAcks != nil {
				sender.LoseAcks(1 + r.IntN(3))
			}
		}
	}
	close(stop)
	wg.Wait()
	operator := b.calm()
	b.empty(operator)
	for s, n := range sent {
		for i := range n {
			if id := fmt.Sprintf("%d-%d", s, i); count(id) != 1 {
				t.Errorf("command %s had %d effects, want 1", id, count(id))
			}
		}
	}
	for d, err := range operator.Dead(t.Context(), fleet) {
		t.Errorf("dead letter %+v of %s, %v; want none", d.Dead, d.Envelope.ID, err)
	}
}
