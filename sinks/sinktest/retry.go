package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

func retriesWait(b *bench) {
	const first = 400 * time.Millisecond
	var seen tally
	c := b.connect()
	b.send(c, command("r"))
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		if n := seen.add(r.ID); n != r.Attempt {
			b.Errorf("attempt %d has the number %d", n, r.Attempt)
		}
		if r.Attempt < 4 {
			return errors.New("not yet")
		}
		return nil
	}, &sinks.ServePolicy{FirstDelay: first})
	b.empty(c)
	times := seen.of("r")
	if len(times) != 4 {
		b.Fatalf("%d attempts, want 4", len(times))
	}
	for i, least := range []time.Duration{first, 2 * first, 4 * first} {
		// A quarter less is the variation, and clocks round.
		if gap := times[i+1].Sub(times[i]); gap < least*3/4-10*time.Millisecond {
			b.Errorf("attempt %d came %s after the one before, want at least %s", i+2, gap, least*3/4)
		}
	}
	b.counters(c, "3 retried, 1 done", func(s *sinks.CommandStats) bool { return s.Retried == 3 && s.Done == 1 && s.Dead == 0 })
}

func deadLettersSayWhy(b *bench) {
	c := b.commands(b.server.Connect(b.TB), &sinks.CommandsOptions{Owner: "fleet"})
	expired := command("expired")
	expired.Expires = time.Now().Add(-time.Second)
	fail, panics, permanent := command("fails"), command("panics"), command("permanent")
	fail.Headers = map[string]string{"trace": "7"}
	b.send(c, fail, panics, permanent, expired)
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		switch r.ID {
		case "panics":
			panic("no\nsuch train")
		case "permanent":
			return fmt.Errorf("add: %w", sinks.Permanent(errors.New("train 7 is scrap"+strings.Repeat("é", 60_000))))
		}
		return errors.New("the depot is closed")
	}, &sinks.ServePolicy{MaxAttempts: 2, FirstDelay: 10 * time.Millisecond})
	found := make(map[string]sinks.DeadCommand)
	for _, d := range b.dead(c, 4) {
		found[d.Envelope.ID] = d
	}
	for id, want := range map[string]struct {
		reason   sinks.DeadReason
		attempts int
		text     string
	}{
		"fails":     {sinks.DeadAttempts, 2, "the depot is closed"},
		"panics":    {sinks.DeadAttempts, 2, "handler panicked: no such train"},
		"permanent": {sinks.DeadPermanent, 1, "add: train 7 is scrap" + strings.Repeat("é", 989) + "..."},
		"expired":   {sinks.DeadExpired, 0, "expired"},
	} {
		d, ok := found[id]
		if !ok {
			b.Errorf("%s is no dead letter", id)
			continue
		}
		if d.Dead.Reason != want.reason || d.Dead.Attempts != want.attempts || !strings.Contains(d.Dead.Error, want.text) {
			b.Errorf("dead letter %s = %+v, want reason %s, %d attempts, an error with %q", id, d.Dead, want.reason, want.attempts, want.text)
		}
		if d.Origin == "" || d.Ref == "" || d.Dead.Worker == "" || time.Since(d.Dead.Time) > b.patience() {
			b.Errorf("dead letter %s = %+v, want origin, ref, worker and time", id, d)
		}
		if d.Envelope.Queue != "fleet" || d.Envelope.Name != "add-carriage" || string(d.Envelope.Body) != `{"train":7}` || d.Envelope.Sender != "fleet" {
			b.Errorf("dead letter %s holds %+v, want the command as it was sent", id, d.Envelope)
		}
	}
	if got := found["fails"].Envelope.Headers["trace"]; got != "7" {
		b.Errorf("dead letter has the header trace %q, want 7", got)
	}
	b.empty(c)
	b.counters(c, "4 dead, 2 panics", func(s *sinks.CommandStats) bool { return s.Dead == 4 && s.Panics == 2 })
}

func deadLetterRetried(b *bench) {
	var seen tally
	c := b.calm()
	b.send(c, command("good"), command("bad"))
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		if seen.add(r.ID) == 1 {
			return sinks.Permanent(errors.New("the first time it fails"))
		}
		return nil
	}, nil)
	for _, d := range b.dead(c, 2) {
		if d.Envelope.ID == "bad" {
			if err := c.DiscardDead(b.Context(), "fleet", d.Ref); err != nil {
				b.Errorf("DiscardDead(%s) = %v", d.Ref, err)
			}
			if err := c.DiscardDead(b.Context(), "fleet", d.Ref); !errors.Is(err, sinks.ErrNoDeadLetter) {
				b.Errorf("DiscardDead(%s) again = %v, want ErrNoDeadLetter", d.Ref, err)
			}
			continue
		}
		if err := c.RetryDead(b.Context(), "fleet", d.Ref); err != nil {
			b.Errorf("RetryDead(%s) = %v", d.Ref, err)
		}
		if err := c.RetryDead(b.Context(), "fleet", d.Ref); !errors.Is(err, sinks.ErrNoDeadLetter) {
			b.Errorf("RetryDead(%s) again = %v, want ErrNoDeadLetter", d.Ref, err)
		}
	}
	b.eventually("the retried command", func() error {
		if n := len(seen.of("good")); n != 2 {
			return fmt.Errorf("good was received %d times, want 2", n)
		}
		return nil
	})
	b.empty(c)
	b.dead(c, 0)
	if n := len(seen.of("bad")); n != 1 {
		b.Errorf("the discarded command was received %d times, want once", n)
	}
}

func allDeadLettersRetried(b *bench) {
	var seen tally
	c := b.calm()
	for i := range 6 {
		cmd := command(fmt.Sprint("a", i))
		if i%2 == 1 {
			cmd.Name = "recall"
		}
		b.send(c, cmd)
	}
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		if seen.add(r.ID) == 1 {
			return sinks.Permanent(errors.New("the first time it fails"))
		}
		return nil
	}, nil)
	b.dead(c, 6)
	recall := func(d *sinks.DeadCommand) bool { return d.Envelope.Name == "recall" }
	if n, err := c.RetryAllDead(b.Context(), "fleet", recall); err != nil || n != 3 {
		b.Errorf("RetryAllDead(recall) = %d, %v; want 3", n, err)
	}
	b.dead(c, 3)
	if n, err := c.DiscardAllDead(b.Context(), "fleet", recall); err != nil || n != 0 {
		b.Errorf("DiscardAllDead(recall) = %d, %v; want none", n, err)
	}
	if n, err := c.DiscardAllDead(b.Context(), "fleet", nil); err != nil || n != 3 {
		b.Errorf("DiscardAllDead = %d, %v; want 3", n, err)
	}
	b.dead(c, 0)
	b.empty(c)
	for i := range 6 {
		if n := len(seen.of(fmt.Sprint("a", i))); n != 1+i%2 {
			b.Errorf("a%d was received %d times, want %d", i, n, 1+i%2)
		}
	}
}

func delayed(b *bench) {
	const after = 1500 * time.Millisecond
	var seen tally
	c := b.connect()
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		if r.Attempt != 1 {
			b.Errorf("%s comes as attempt %d, want 1", r.ID, r.Attempt)
		}
		seen.add(r.ID)
		return nil
	}, b.once())
	received := func(id string) {
		b.eventually(id, func() error {
			if len(seen.of(id)) == 0 {
				return errors.New("not received")
			}
			return nil
		})
	}
	if err := c.SendAt(b.Context(), command("past"), time.Now().Add(-time.Minute)); err != nil {
		b.Fatalf("SendAt in the past: %v", err)
	}
	received("past")
	due := time.Now().Add(after)
	for range 2 { // sent twice, one command
		if err := c.SendAt(b.Context(), command("later"), due); err != nil {
			b.Fatalf("SendAt: %v", err)
		}
	}
	received("later")
	b.empty(c)
	if got := seen.of("later"); len(got) != 1 || got[0].Before(due) {
		b.Errorf("the delayed command was received %d times, first %s before its time; want once, not before", len(got), due.Sub(got[0]))
	}
	if got := seen.of("past"); len(got) != 1 {
		b.Errorf("a command for a time in the past was received %d times, want once", len(got))
	}
}

func delayedOverRestart(b *bench) {
	var seen tally
	c := b.connect()
	due := time.Now().Add(2 * time.Second)
	if err := c.SendAt(b.Context(), command("later"), due); err != nil {
		b.Fatalf("SendAt: %v", err)
	}
	b.server.Restart(b.TB)
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		seen.add(r.ID)
		return nil
	}, nil)
	b.eventually("the delayed command", func() error {
		if len(seen.of("later")) == 0 {
			return errors.New("not received")
		}
		return nil
	})
	if got := seen.of("later"); got[0].Before(due) {
		b.Errorf("received %s before its time", due.Sub(got[0]))
	}
	b.empty(c)
}
