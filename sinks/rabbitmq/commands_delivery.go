package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

// A commandDelivery is one delivery of one message.
type commandDelivery struct {
	consumer *commandConsumer
	session  *session
	message  stored
	lease    *time.Timer

	mu sync.Mutex // held while it is brought to an end
	// moved: the message is stored elsewhere, only its end here is missing.
	moved bool
	// over: it has come to its end, with this outcome.
	over    bool
	outcome error
}

var (
	errNoChannel = errors.New("the connection was lost, and the server has given it to another worker")
	errNoSign    = errors.New("no sign of life for a whole lease")
)

// Envelope implements [sinks.CommandDelivery].
func (d *commandDelivery) Envelope() (*sinks.CommandEnvelope, error) { return d.message.envelope() }

// Attempt implements [sinks.CommandDelivery].
func (d *commandDelivery) Attempt() int { return d.message.attempts() + 1 }

// lost is the error of a delivery that went back to the queue.
func (d *commandDelivery) lost(why error) error {
	return fmt.Errorf("queue %s: %w (%w)", d.consumer.queue, sinks.ErrLeaseLost, why)
}

// Ack implements [sinks.CommandDelivery].
func (d *commandDelivery) Ack(ctx context.Context) error {
	return d.end(ctx, nil)
}

// Retry implements [sinks.CommandDelivery]: the message is stored anew, with
// the number of its attempts.
func (d *commandDelivery) Retry(ctx context.Context, after time.Duration) error {
	return d.end(ctx, func(ctx context.Context) error {
		m := d.message.again()
		m.Headers[headerAttempts] = strconv.Itoa(d.Attempt())
		var at time.Time
		if delete(m.Headers, headerNotBefore); after > 0 {
			at = time.Now().Add(after)
			m.Headers[headerNotBefore] = timeText(at)
		}
		return d.consumer.broker.store(ctx, d.consumer.queue, m, at)
	})
}

// Bury implements [sinks.CommandDelivery].
func (d *commandDelivery) Bury(ctx context.Context, letter sinks.DeadLetter) error {
	return d.end(ctx, func(ctx context.Context) error {
		b := d.consumer.broker
		env, _ := d.Envelope() // the id is there even if the rest is not
		m := d.message.again()
		putDead(&m, &letter, b.Queue(d.consumer.queue), env.ID)
		name := b.DeadQueue(d.consumer.queue)
		if err := b.out.one(ctx, outgoing{key: name, mandatory: true, message: m}); err != nil {
			return fmt.Errorf("queue %s: %w", name, err)
		}
		return nil
	})
}

// end stores the message elsewhere, if that is what its end is, and then takes
// it off the queue.
func (d *commandDelivery) end(ctx context.Context, move func(context.Context) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return d.outcome
	}
	if d.session.ch.IsClosed() {
		return d.finish(d.lost(errNoChannel))
	}
	if d.consumer.stopping() {
		d.session.cancel()
	}
	if move != nil && !d.moved {
		ctx, cancel := d.consumer.broker.bounded(ctx)
		defer cancel()
		if err := move(ctx); err != nil {
			return err
		}
		d.moved = true
	}
	err := d.session.end(func() error { return d.message.Ack(false) })
	if err == nil {
		err = d.session.sync.do()
	}
	if err != nil {
		err = d.lost(err)
	}
	return d.finish(err)
}

// finish needs mu.
func (d *commandDelivery) finish(outcome error) error {
	d.over, d.outcome = true, outcome
	if d.lease != nil {
		d.lease.Stop()
	}
	d.consumer.settled(d)
	return outcome
}

// Extend implements [sinks.CommandDelivery]. The server needs no sign of life
// but the connection's.
func (d *commandDelivery) Extend(context.Context) error {
	if d.session.ch.IsClosed() {
		return d.lost(errNoChannel)
	}
	if d.mu.TryLock() { // otherwise it is about to end
		defer d.mu.Unlock()
		if d.over {
			return d.outcome
		}
	}
	d.lease.Reset(d.consumer.opts.Lease)
	return nil
}

// expire gives a message back whose worker gives no sign of life: its handler
// ended without a report, or nobody could be told of its end.
func (d *commandDelivery) expire() {
	if !d.mu.TryLock() { // it is about to end
		d.lease.Reset(d.consumer.opts.Lease)
		return
	}
	defer d.mu.Unlock()
	if d.over {
		return
	}
	// Unlike nack, reject counts as a failed attempt in all versions.
	_ = d.session.end(func() error { return d.message.Reject(true) })
	_ = d.finish(d.lost(errNoSign))
}

// postpone sends a message that came before its time on.
func (d *commandDelivery) postpone(ctx context.Context, at time.Time) {
	c := d.consumer
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() { _ = d.finish(nil) }()
	m := d.message.again()
	if n := d.message.attempts(); n > 0 {
		m.Headers[headerAttempts] = strconv.Itoa(n)
	}
	storing, cancel := c.broker.bounded(context.WithoutCancel(ctx))
	defer cancel()
	if err := c.broker.store(storing, c.queue, m, at); err != nil {
		c.broker.opts.Logger.WarnContext(ctx, "a delayed command cannot be put back", "queue", c.queue, "error", err)
		pause(ctx, time.Second) // the server would send it again at once
		_ = d.session.end(func() error { return d.message.Nack(false, true) })
		return
	}
	_ = d.session.end(func() error { return d.message.Ack(false) })
}
