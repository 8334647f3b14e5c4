package rabbitmq

import (
	"context"
	"fmt"
	"iter"

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
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil {
			return err
		}
		var last uint64
		for range q.Messages {
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
				continue
			}
			if err := m.Ack(false); err != nil {
				return err
			}
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
