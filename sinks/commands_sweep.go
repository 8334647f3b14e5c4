package sinks

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A DeadSweeper is a [CommandBroker] that removes many dead letters in one
// pass, where one at a time would each take a pass of its own.
type DeadSweeper interface {
	// SweepDead goes through the dead letters of a queue, oldest first, those
	// that were there at its start. It gives those that pick accepts to take,
	// some at a time, which returns how many of them, from the first on, are to be
	// removed; these are when take is called again, or SweepDead returns nil. An error of
	// take ends it, and is wrapped. The two are called one at a time, on any
	// goroutine, and not any more when SweepDead has returned. They may keep
	// what they get. SweepDead blocks for round trips and for take, and retries
	// nothing; after an error, what take has taken may still be there.
	SweepDead(ctx context.Context, queue string, pick func(*DeadCommand) bool, take func(context.Context, []DeadCommand) (int, error)) error
}

// RetryAllDead is [Commands.RetryDead] for all dead letters that pick accepts,
// nil for all that there are, in one pass. It returns how many it has put back.
//
// The first one that cannot be put back ends it, with an error that names it if
// it is that one's fault; the rest stays. After an error some more may be in
// the queue and dead letters still: what the broker does not recognise when it is
// put back again, an [Inbox] does.
func (c *Commands) RetryAllDead(ctx context.Context, queue string, pick func(*DeadCommand) bool) (int, error) {
	return c.sweep(ctx, queue, pick, func(ctx context.Context, some []DeadCommand) (int, error) {
		envelopes := make([]CommandEnvelope, 0, len(some))
		var fault error
		for i := range some {
			var e CommandEnvelope
			if e, fault = some[i].again(); fault != nil {
				break
			}
			envelopes = append(envelopes, e)
		}
		if len(envelopes) > 0 {
			if err := c.within(ctx, func(ctx context.Context) error { return c.publish(ctx, envelopes) }); err != nil {
				return 0, err
			}
		}
		return len(envelopes), fault
	})
}

// DiscardAllDead removes all dead letters that pick accepts for good, nil for
// all that there are, in one pass. It returns how many it has removed; after an
// error some of them may still be there.
func (c *Commands) DiscardAllDead(ctx context.Context, queue string, pick func(*DeadCommand) bool) (int, error) {
	return c.sweep(ctx, queue, pick, func(_ context.Context, some []DeadCommand) (int, error) { return len(some), nil })
}

func (c *Commands) sweep(ctx context.Context, queue string, pick func(*DeadCommand) bool, take func(context.Context, []DeadCommand) (int, error)) (int, error) {
	if err := ValidQueue(queue); err != nil {
		return 0, err
	}
	if pick == nil {
		pick = func(*DeadCommand) bool { return true }
	}
	count := 0
	counted := func(ctx context.Context, some []DeadCommand) (int, error) {
		n, err := take(ctx, some)
		count += n
		return n, err
	}
	sweep := c.sweepEach
	if s, ok := c.broker.(DeadSweeper); ok {
		sweep = s.SweepDead
	}
	err := sweep(ctx, queue, pick, counted)
	return count, err
}

// sweepEach is SweepDead for brokers that find each dead letter by its ref.
func (c *Commands) sweepEach(ctx context.Context, queue string, pick func(*DeadCommand) bool, take func(context.Context, []DeadCommand) (int, error)) error {
	for d, err := range c.broker.Dead(ctx, queue) {
		if err != nil {
			return err
		}
		if !pick(&d) {
			continue
		}
		if _, err := take(ctx, []DeadCommand{d}); err != nil {
			return err
		}
		if err := c.broker.RemoveDead(ctx, queue, d.Ref); err != nil && !errors.Is(err, ErrNoDeadLetter) {
			return err
		}
	}
	return nil
}

// again returns the command to be sent once more.
func (d *DeadCommand) again() (CommandEnvelope, error) {
	if d.Cut > 0 {
		return CommandEnvelope{}, fmt.Errorf("dead letter %s: the last %d bytes of its body are missing: send the whole command, and discard this one", d.Ref, d.Cut)
	}
	e := d.Envelope
	e.Expires, e.At, e.ReplyTo, e.Call = time.Time{}, time.Time{}, "", ""
	if err := e.Validate(); err != nil {
		return CommandEnvelope{}, fmt.Errorf("dead letter %s: %w", d.Ref, err)
	}
	e.Dedupe = "retry " + d.Ref + " " + d.Dead.Time.UTC().Format(time.RFC3339Nano)
	return e, nil
}
