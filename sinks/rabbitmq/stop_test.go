package rabbitmq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
)

// A server holds acknowledgements back that come faster than a quorum queue takes
// them, and forgets those when the channel is closed: what was carried out would
// be delivered again.
func TestStopAcknowledgesAllThatManyWorkersHaveDone(t *testing.T) {
	const commands = 100
	r, s := newRig(t), rabbittest.Server(t)
	all := make([]sinks.Command, commands)
	for i := range all {
		all[i] = sinks.Command{Queue: "fleet", Name: "recall", ID: fmt.Sprintf("c%03d", i)}
	}
	if err := r.commands.SendAll(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	begun, end, served := make(chan struct{}, commands), make(chan struct{}), make(chan error, 1)
	go func() {
		served <- r.commands.Serve(ctx, "fleet", func(context.Context, *sinks.Received) error {
			begun <- struct{}{}
			<-end
			return nil
		}, &sinks.ServePolicy{Concurrency: commands, MaxAttempts: 1, Lease: 10 * time.Minute, DrainTimeout: 3 * time.Minute})
	}()
	waitUntil(ctx, func() bool { return len(begun) == commands })
	stop()
	patient, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	waitUntil(patient, func() bool { return r.wire.ends.Load() > 0 })
	// What stores the log of all queues stands still for a moment.
	slow, err := s.Eval(t.Context(), `
		[begin sys:suspend(W), spawn(fun() -> timer:sleep(1000), sys:resume(W) end), W end
			|| W <- registered(), string:prefix(atom_to_list(W), "ra") =/= nomatch, string:find(atom_to_list(W), "wal") =/= nomatch,
			string:find(atom_to_list(W), "sup") =:= nomatch].`)
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(slow, "wal") {
		t.Logf("nothing stands still, so nothing is held back: %s", slow)
	}
	close(end)
	err = <-served
	if n := r.commands.Stats(); err != nil || n.Done != commands {
		t.Fatalf("Serve = %v, counters %+v; want %d done", err, n, commands)
	}
	if err := inWork(s, strings.TrimSuffix(r.broker.Queue("fleet"), "cmd.fleet"))(t, "fleet"); err != nil {
		t.Errorf("after Serve has ended: %v; want what was acknowledged to be off the queue", err)
	}
}
