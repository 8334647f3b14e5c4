package sinktest

import (
	"context"
	"errors"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

func callReplies(b *bench) {
	caller, service := b.connect(), b.connect()
	b.serve(service, func(_ context.Context, r *sinks.Received) error {
		switch {
		case r.ID == "refused":
			return sinks.Permanent(errors.New("no such\ntrain: ü"))
		case r.Attempt == 1:
			return errors.New("once more")
		}
		r.Reply(append([]byte("carried out "), r.Body...))
		return nil
	}, &sinks.ServePolicy{FirstDelay: 10 * time.Millisecond})
	ctx, cancel := context.WithTimeout(b.Context(), b.patience())
	defer cancel()
	got, err := caller.Call(ctx, command("call"))
	if err != nil || string(got.Body) != `carried out {"train":7}` {
		b.Errorf("Call = %q, %v; want the handler's reply", got.Body, err)
	}
	_, err = caller.Call(ctx, command("refused"))
	var failed *sinks.CommandFailedError
	if !errors.As(err, &failed) || failed.Reason != sinks.DeadPermanent || failed.Attempts != 1 || failed.Text != "no such\ntrain: ü" {
		b.Errorf("Call of a command that fails = %v, want a CommandFailedError with its reason and text", err)
	}
	b.empty(caller)
}

func callAgain(b *bench) {
	var effects tally
	caller, service := b.connect(), b.connect()
	b.serve(service, func(_ context.Context, r *sinks.Received) error {
		effects.add(r.ID)
		r.Reply([]byte("done"))
		return nil
	}, &sinks.ServePolicy{Inbox: new(Inbox)})
	for range 3 {
		got, err := caller.Call(b.Context(), command("call"))
		if err != nil || string(got.Body) != "done" {
			b.Errorf("Call = %q, %v; want done", got.Body, err)
		}
	}
	if n := len(effects.of("call")); n != 1 {
		b.Errorf("three calls with one id had %d effects, want 1", n)
	}
}

func callDeadline(b *bench) {
	var seen tally
	c := b.connect()
	if err := c.Open(b.Context(), fleet); err != nil { // it may take longer than the call may
		b.Fatalf("Open: %v", err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := c.Call(ctx, command("call"))
	var late *sinks.CallTimeoutError
	if !errors.As(err, &late) || !errors.Is(err, context.DeadlineExceeded) || late.ID != "call" {
		b.Errorf("Call that nobody serves = %v, want a CallTimeoutError", err)
	}
	// Nobody waits for it any more: it is not carried out behind the caller's
	// back.
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		seen.add(r.ID)
		return nil
	}, nil)
	if d := b.dead(c, 1)[0]; d.Dead.Reason != sinks.DeadExpired {
		b.Errorf("dead letter %+v, want reason %s", d.Dead, sinks.DeadExpired)
	}
	if seen.len() != 0 {
		b.Error("the command was carried out after the deadline")
	}
}
