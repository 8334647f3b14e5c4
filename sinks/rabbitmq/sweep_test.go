package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// To look at a dead letter is to take it out of its queue: with a look for each
// letter, 500 of them would be taken out a quarter of a million times.
func TestAllDeadLettersAreRetriedInOnePass(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const letters = 500
	for i := range letters {
		r.publish(t, r.broker.DeadQueue("fleet"), letter(i))
		if i%100 == 7 { // buried twice, it is one
			r.publish(t, r.broker.DeadQueue("fleet"), letter(i))
		}
	}
	even := func(d *sinks.DeadCommand) bool { return (d.Ref[3]-'0')%2 == 0 }
	before := r.wire.gets.Load()
	if n, err := r.commands.RetryAllDead(t.Context(), "fleet", even); err != nil || n != letters/2 {
		t.Fatalf("RetryAllDead(even) = %d, %v; want %d", n, err, letters/2)
	}
	if n := r.wire.gets.Load() - before; n != letters+letters/100 {
		t.Errorf("RetryAllDead took %d letters out of the queue, want each of the %d once", n, letters+letters/100)
	}
	var left, want []string
	for _, d := range r.letters(t) {
		left = append(left, d.Ref)
	}
	for i := 1; i < letters; i += 2 {
		want = append(want, fmt.Sprintf("m%03d", i))
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("Dead shows letters other than the odd ones, oldest first (-want +got):\n%s", diff)
	}
	served := serveAll(t, r, letters/2)
	for i := range letters {
		want := 1 - i%2
		if n := served[fmt.Sprintf("c%03d", i)]; n != want {
			t.Errorf("command c%03d was served %d times, want %d", i, n, want)
		}
	}
	before = r.wire.gets.Load()
	if n, err := r.commands.DiscardAllDead(t.Context(), "fleet", nil); err != nil || n != letters/2 {
		t.Fatalf("DiscardAllDead = %d, %v; want %d", n, err, letters/2)
	}
	if n := r.wire.gets.Load() - before; n != letters/2+letters/100 {
		t.Errorf("DiscardAllDead took %d letters out of the queue, want each of the %d once", n, letters/2+letters/100)
	}
	if got := r.letters(t); len(got) != 0 {
		t.Errorf("%d letters are left after DiscardAllDead, want none", len(got))
	}
}

// What comes before a letter that cannot be put back is put back, and the rest
// keeps its place.
func TestRetryAllDeadEndsAtWhatCannotBePutBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 6 {
		m := letter(i)
		if i == 3 {
			m.Type = "" // no command
		}
		r.publish(t, r.broker.DeadQueue("fleet"), m)
	}
	n, err := r.commands.RetryAllDead(t.Context(), "fleet", nil)
	var invalid *sinks.InvalidCommandError
	if n != 3 || !errors.As(err, &invalid) {
		t.Fatalf("RetryAllDead = %d, %v; want 3 and an InvalidCommandError", n, err)
	}
	var left []string
	for _, d := range r.letters(t) {
		left = append(left, d.Ref)
	}
	if want := []string{"m003", "m004", "m005"}; !slices.Equal(left, want) {
		t.Errorf("Dead = %v, want %v", left, want)
	}
	if served := serveAll(t, r, 3); len(served) != 3 {
		t.Errorf("served %v, want 3 commands", served)
	}
}

// A full queue takes nothing back, and the letters stay.
func TestRetryAllDeadIntoAFullQueueKeepsTheLetters(t *testing.T) {
	t.Parallel()
	s := rabbittest.Server(t)
	b, err := rabbitmq.NewCommandBroker(connector(t, s, new(wire)), &rabbitmq.CommandOptions{Prefix: prefix(t, s), MaxMessages: 1, ConfirmTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c, err := sinks.NewCommands(b, &sinks.CommandsOptions{SendTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := &rig{broker: b, commands: c, channel: confirmedChannel(t, s)}
	if err := b.OpenQueue(t.Context(), "fleet"); err != nil {
		t.Fatal(err)
	}
	full, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// A queue takes a little more than its limit, and a try may take long.
	for !errors.Is(err, sinks.ErrQueueFull) && full.Err() == nil {
		err = c.Send(full, sinks.Command{Queue: "fleet", Name: "recall"})
	}
	if !errors.Is(err, sinks.ErrQueueFull) {
		t.Fatalf("Send = %v, want ErrQueueFull", err)
	}
	for i := range 3 {
		r.publish(t, b.DeadQueue("fleet"), letter(i))
	}
	if n, err := c.RetryAllDead(t.Context(), "fleet", nil); n != 0 || err == nil {
		t.Errorf("RetryAllDead into a full queue = %d, %v; want an error", n, err)
	}
	if got := r.letters(t); len(got) != 3 {
		t.Errorf("%d letters are left, want all 3", len(got))
	}
}

func letter(i int) amqp.Publishing {
	return amqp.Publishing{
		DeliveryMode: amqp.Persistent, MessageId: fmt.Sprintf("m%03d", i), Type: "recall",
		Headers: amqp.Table{
			"Rowcall-Dead-Reason": "attempts", "cloudEvents:id": fmt.Sprintf("c%03d", i),
			"Rowcall-Dead-Time": time.Date(2026, 11, 23, 9, 0, i, 0, time.UTC).Format(time.RFC3339Nano),
		},
	}
}

// serveAll serves until so many commands are done, and returns how often each was.
func serveAll(t *testing.T, r *rig, commands int) map[string]int {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	served := make(map[string]int)
	err := r.commands.Serve(ctx, "fleet", func(_ context.Context, got *sinks.Received) error {
		if served[got.ID]++; len(served) == commands {
			stop()
		}
		return nil
	}, &sinks.ServePolicy{Concurrency: 1})
	if err != nil || len(served) != commands {
		t.Errorf("Serve = %v after %d commands, want %d", err, len(served), commands)
	}
	return served
}
