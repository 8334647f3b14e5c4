package sinktest

import (
	"context"
	"errors"
	"fmt"
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
	// A deadline before the command was stored is another error: the next one
	// is later.
	id := ""
	for within := 200 * time.Millisecond; id == ""; within *= 2 {
		this := fmt.Sprint("call-", within)
		ctx, cancel := context.WithTimeout(b.Context(), within)
		_, err := c.Call(ctx, command(this))
		cancel()
		var late *sinks.CallTimeoutError
		var unsent *sinks.SendError
		switch {
		case !errors.Is(err, context.DeadlineExceeded), within > b.patience():
			b.Fatalf("Call that nobody serves within %s = %v, want a CallTimeoutError", within, err)
		case errors.As(err, &late):
			if id = late.ID; id != this {
				b.Errorf("Call of %s = %v with the id %s", this, err, id)
			}
		case !errors.As(err, &unsent):
			b.Logf("Call within %s = %v", within, err)
		}
	}
	// Nobody waits for it any more: it is not carried out behind the caller's
	// back.
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		seen.add(r.ID)
		return nil
	}, nil)
	b.eventually("the dead letter of "+id, func() error {
		for d, err := range c.Dead(b.Context(), fleet) {
			if err != nil {
				return err
			}
			if d.Dead.Reason != sinks.DeadExpired {
				b.Fatalf("dead letter %+v, want reason %s", d.Dead, sinks.DeadExpired)
			}
			if d.Envelope.ID == id {
				return nil
			}
		}
		return errors.New("there is none")
	})
	if seen.len() != 0 {
		b.Error("the command was carried out after the deadline")
	}
}
