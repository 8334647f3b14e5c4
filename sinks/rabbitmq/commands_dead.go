package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// Dead implements [sinks.CommandBroker]. It takes all letters out of the queue
// at once, into memory, and puts them back in their order before it goes through
// them, under a lock: a queue shows nothing but by handing it out. A letter that
// is there twice, since its worker died while it buried it, is one.
func (b *CommandBroker) Dead(ctx context.Context, queue string) iter.Seq2[sinks.DeadCommand, error] {
	return func(yield func(sinks.DeadCommand, error) bool) {
		var letters []sinks.DeadCommand
		err := b.visitDead(ctx, queue, func(_ context.Context, all []stored, _ func([]stored) error) error {
			for _, l := range all {
				letters = append(letters, l.dead(b.Queue(queue)))
			}
			return nil
		})
		if err != nil {
			yield(sinks.DeadCommand{}, err)
			return
		}
		seen := make(map[string]bool, len(letters))
		for _, d := range letters {
			if seen[d.Ref] {
				continue
			}
			seen[d.Ref] = true
			if !yield(d, nil) {
				return
			}
		}
	}
}

// RemoveDead implements [sinks.CommandBroker].
func (b *CommandBroker) RemoveDead(ctx context.Context, queue, ref string) error {
	found := false
	err := b.visitDead(ctx, queue, func(_ context.Context, all []stored, remove func([]stored) error) error {
		mine := slices.DeleteFunc(slices.Clone(all), func(l stored) bool { return l.ref() != ref })
		found = len(mine) > 0
		return remove(mine)
	})
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("queue %s, %s: %w", b.DeadQueue(queue), ref, sinks.ErrNoDeadLetter)
	}
	return nil
}

// sweepChunk is how many letters are taken at once, and so how many are at most in
// two places if that is interrupted.
const sweepChunk = 100

// SweepDead implements [sinks.DeadSweeper]. Others who look at the dead letters wait for it.
func (b *CommandBroker) SweepDead(ctx context.Context, queue string, pick func(*sinks.DeadCommand) bool, take func(context.Context, []sinks.DeadCommand) (int, error)) error {
	// A visit may outlive the call, whose context has ended.
	var mu sync.Mutex
	over := false
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}()
	during := func(do func()) bool {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			do()
		}
		return !over
	}
	return b.visitDead(ctx, queue, func(ctx context.Context, all []stored, remove func([]stored) error) error {
		var picked []sinks.DeadCommand
		places := make(map[string][]stored) // one that is there twice is one
		if !during(func() {
			for _, l := range all {
				d := l.dead(b.Queue(queue))
				if _, again := places[d.Ref]; !again && !pick(&d) {
					continue
				} else if !again {
					picked = append(picked, d)
				}
				places[d.Ref] = append(places[d.Ref], l)
			}
		}) {
			return context.Cause(ctx)
		}
		for some := range slices.Chunk(picked, sweepChunk) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var n int
			var err error
			if !during(func() { n, err = take(ctx, some) }) {
				return context.Cause(ctx)
			}
			var gone []stored
			for i := range some[:n] {
				gone = append(gone, places[some[i].Ref]...)
			}
			if err := errors.Join(err, remove(gone)); err != nil {
				return err
			}
		}
		return nil
	})
}

// visitDead shows all letters to a function that may have some removed. The
// rest goes back to where it was: a quorum queue delivers what was returned before
// what it had behind it, in the order of the returns.
func (b *CommandBroker) visitDead(ctx context.Context, queue string, visit func(ctx context.Context, all []stored, remove func([]stored) error) error) error {
	if err := b.open(); err != nil {
		return err
	}
	name := b.DeadQueue(queue)
	// A queue with many letters takes longer than one request may.
	err := b.connector.locked(ctx, name+".lock", func(ctx context.Context, ch *amqp.Channel) error {
		all, err := b.takeDead(ctx, ch, queue)
		if err != nil {
			return err // they go back with the channel
		}
		removed := make(map[uint64]bool)
		visited := visit(ctx, all, func(some []stored) error {
			for _, l := range some {
				if err := l.Ack(false); err != nil {
					return err
				}
				removed[l.DeliveryTag] = true
			}
			return syncChannel(ch)
		})
		kept := slices.DeleteFunc(all, func(l stored) bool { return removed[l.DeliveryTag] })
		return errors.Join(visited, b.returnDead(ctx, ch, queue, kept))
	})
	switch {
	case code(err) == amqp.NotFound:
		return fmt.Errorf("queue %s: %w; there is no queue %s, or it was never opened", name, err, queue)
	case err != nil:
		return fmt.Errorf("queue %s: %w", name, err)
	}
	return nil
}

// takeDead takes all letters out of the queue. A count would be of no use: the
// server counts what somebody has just put back a moment later than it hands it
// out.
func (b *CommandBroker) takeDead(ctx context.Context, ch *amqp.Channel, queue string) ([]stored, error) {
	var all []stored
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		m, ok, err := ch.Get(b.DeadQueue(queue), false)
		if err != nil {
			return nil, err
		}
		if !ok {
			return all, nil
		}
		all = append(all, stored{queue: queue, Delivery: &m})
	}
}

// returnDead puts letters back that are all that the channel has.
func (b *CommandBroker) returnDead(ctx context.Context, ch *amqp.Channel, queue string, kept []stored) error {
	if len(kept) == 0 {
		return nil
	}
	if slices.ContainsFunc(kept, func(l stored) bool { return number(l.Headers, headerDeliveries) >= maxLooks }) {
		err := b.renewDead(ctx, queue, kept)
		if err == nil {
			if err := ch.Ack(0, true); err != nil {
				return err
			}
			return syncChannel(ch)
		}
		b.opts.Logger.WarnContext(ctx, "dead letters cannot be stored anew, and a policy with a delivery limit may drop them", "queue", b.DeadQueue(queue), "error", err)
	}
	// Those that were acknowledged are not among them any more.
	if err := ch.Nack(0, true, true); err != nil {
		return err
	}
	return syncChannel(ch)
}

// renewDead stores letters anew, in their order, so that the server counts from 0
// again: a policy may limit deliveries although the queue does not. Who dies before the
// old ones are acknowledged leaves each twice, which counts as one.
func (b *CommandBroker) renewDead(ctx context.Context, queue string, letters []stored) error {
	seen := make(map[string]bool, len(letters))
	var messages []outgoing
	for _, l := range letters {
		if seen[l.ref()] {
			continue
		}
		seen[l.ref()] = true
		m := l.again()
		if text(m.Headers, headerDeadReason) == "" { // the server's, which says why in what again leaves out
			d := l.dead(b.Queue(queue))
			putDead(&m, &d.Dead, d.Origin, d.Envelope.ID)
		}
		messages = append(messages, outgoing{key: b.DeadQueue(queue), mandatory: true, message: m})
	}
	for some := range slices.Chunk(messages, 100) {
		if err := errors.Join(b.out.publish(ctx, some)...); err != nil {
			return err
		}
	}
	return nil
}
