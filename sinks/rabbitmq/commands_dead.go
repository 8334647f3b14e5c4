package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

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
		err := b.visitDead(ctx, queue, func(m stored) bool {
			letters = append(letters, m.dead(b.Queue(queue)))
			return false
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
	err := b.visitDead(ctx, queue, func(m stored) bool {
		mine := m.ref() == ref
		found = found || mine
		return mine
	})
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("queue %s, %s: %w", b.DeadQueue(queue), ref, sinks.ErrNoDeadLetter)
	}
	return nil
}

// visitDead shows every letter to a function that returns whether to remove it.
// The rest goes back to where it was: a quorum queue delivers what was returned before
// what it had behind it, in the order of the returns.
func (b *CommandBroker) visitDead(ctx context.Context, queue string, remove func(stored) bool) error {
	if err := b.open(); err != nil {
		return err
	}
	name := b.DeadQueue(queue)
	// A queue with many letters takes longer than one request may.
	err := b.connector.locked(ctx, name+".lock", func(ctx context.Context, ch *amqp.Channel) error {
		// A count would be of no use: the server counts what somebody has just put
		// back a moment later than it hands it out.
		var last uint64
		var kept []stored
		worn := false
		for {
			if ctx.Err() != nil {
				return context.Cause(ctx) // they go back with the channel
			}
			m, ok, err := ch.Get(name, false)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if last = m.DeliveryTag; !remove(stored{queue: queue, Delivery: &m}) {
				kept = append(kept, stored{queue: queue, Delivery: &m})
				worn = worn || number(m.Headers, headerDeliveries) >= maxLooks
				continue
			}
			if err := m.Ack(false); err != nil {
				return err
			}
		}
		if worn {
			err := b.renewDead(ctx, queue, kept)
			if err == nil {
				if err := ch.Ack(0, true); err != nil {
					return err
				}
				return syncChannel(ch)
			}
			b.opts.Logger.WarnContext(ctx, "dead letters cannot be stored anew, and a policy with a delivery limit may drop them", "queue", name, "error", err)
		}
		if last > 0 {
			// Those that were acknowledged are not among them any more.
			if err := ch.Nack(0, true, true); err != nil {
				return err
			}
		}
		return syncChannel(ch)
	})
	switch {
	case code(err) == amqp.NotFound:
		return fmt.Errorf("queue %s: %w; there is no queue %s, or it was never opened", name, err, queue)
	case err != nil:
		return fmt.Errorf("queue %s: %w", name, err)
	}
	return nil
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
