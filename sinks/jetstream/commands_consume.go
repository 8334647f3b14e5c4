package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

const (
	ownerKey = "rowcall-owner"
	// spareDeliveries are those above MaxAttempts that the server still makes, so that a
	// worker buries the command with a reason. After them the safety net does.
	spareDeliveries = 3
	// pullHeartbeat is how often, while a pull request is open, the server says
	// that it is there.
	pullHeartbeat = 2 * time.Second
)

// A commandConsumer pulls exactly as many commands as there is room for, so
// that none waits in this process while another worker is idle.
type commandConsumer struct {
	broker   *CommandBroker
	queue    string
	opts     sinks.ConsumeOptions
	consumer natsjs.Consumer

	batch     natsjs.MessageBatch // nil if no request is open
	endBatch  context.CancelFunc
	connected chan nats.Status

	stop context.CancelFunc // ends the safety net
	wg   sync.WaitGroup
}

// Consume implements [sinks.CommandBroker].
func (b *CommandBroker) Consume(ctx context.Context, queue string, o sinks.ConsumeOptions) (sinks.CommandConsumer, error) {
	if err := b.open(); err != nil {
		return nil, err
	}
	consumer, err := b.ensureConsumer(ctx, queue, &o)
	if err != nil {
		return nil, err
	}
	c := &commandConsumer{
		broker: b, queue: queue, opts: o, consumer: consumer,
		connected: b.nc.StatusChanged(nats.CONNECTED),
	}
	net, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.wg.Go(func() { c.catchFallen(net) })
	return c, nil
}

// ensureConsumer makes the one consumer of a queue, or takes over its settings
// if its owner is this one.
func (b *CommandBroker) ensureConsumer(ctx context.Context, queue string, o *sinks.ConsumeOptions) (natsjs.Consumer, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	stream := CommandStream(queue)
	want := natsjs.ConsumerConfig{
		Durable:       queue,
		Description:   "the workers of queue " + queue,
		FilterSubject: CommandSubject(queue, ">"),
		AckPolicy:     natsjs.AckExplicitPolicy,
		AckWait:       o.Lease,
		MaxDeliver:    o.MaxAttempts + spareDeliveries,
		MaxAckPending: maxAckPending,
		Replicas:      b.opts.Replicas,
		Metadata:      map[string]string{ownerKey: o.Owner},
	}
	c, err := b.js.Consumer(ctx, stream, queue)
	if errors.Is(err, natsjs.ErrConsumerNotFound) {
		c, err = b.js.CreateConsumer(ctx, stream, want)
		if errors.Is(err, natsjs.ErrConsumerExists) { // somebody else was faster
			c, err = b.js.Consumer(ctx, stream, queue)
		}
	}
	if err != nil {
		return nil, b.explainConsumer(queue, err)
	}
	has := c.CachedInfo().Config
	if owner := has.Metadata[ownerKey]; owner != o.Owner && owner != "" {
		return nil, &sinks.OwnerError{Queue: queue, Owner: owner, Want: o.Owner}
	}
	if has.AckWait == want.AckWait && has.MaxDeliver == want.MaxDeliver && has.Metadata[ownerKey] == o.Owner {
		return c, nil
	}
	set := has
	set.AckWait, set.MaxDeliver, set.MaxAckPending, set.BackOff = want.AckWait, want.MaxDeliver, want.MaxAckPending, nil
	set.Metadata = maps.Clone(has.Metadata)
	if set.Metadata == nil {
		set.Metadata = make(map[string]string)
	}
	set.Metadata[ownerKey] = o.Owner
	if c, err = b.js.UpdateConsumer(ctx, stream, set); err != nil {
		return nil, b.explainConsumer(queue, err)
	}
	return c, nil
}

func (b *CommandBroker) explainConsumer(queue string, err error) error {
	var api *natsjs.APIError
	switch {
	case errors.Is(err, natsjs.ErrStreamNotFound):
		return b.missing(queue)
	case errors.As(err, &api) && (api.ErrorCode == codeConsumerNotUnique || api.ErrorCode == codeFilteredNotUnique):
		return &sinks.QueueError{
			Queue:  queue,
			Reason: fmt.Sprintf("stream %s has another consumer, and a work queue takes one: remove that", CommandStream(queue)), Err: err,
		}
	}
	return b.explain(queue, CommandStream(queue), err)
}

// Receive implements [sinks.CommandConsumer].
func (c *commandConsumer) Receive(ctx context.Context, most int) ([]sinks.CommandDelivery, error) {
	for {
		if err := c.broker.open(); err != nil {
			return nil, err
		}
		if err := c.request(ctx, most); err != nil {
			return nil, err
		}
		var found []sinks.CommandDelivery
		select {
		case <-ctx.Done():
			c.giveBack()
			return nil, context.Cause(ctx)
		case <-c.connected:
			// What was asked of the old connection is not answered on the new
			// one.
			c.endBatch()
			continue
		case m, ok := <-c.batch.Messages():
			if !ok {
				if err := c.ended(ctx); err != nil {
					return nil, err
				}
				continue
			}
			found = c.add(found, m)
		}
		for more := true; more && len(found) < most; {
			select {
			case m, ok := <-c.batch.Messages():
				if more = ok; ok {
					found = c.add(found, m)
				}
			default:
				more = false
			}
		}
		if len(found) > 0 {
			return found, nil
		}
	}
}

// request opens a pull request if none is open. One that is has no more left than there
// is room for: what it delivered is what took the room.
func (c *commandConsumer) request(ctx context.Context, n int) error {
	if c.batch != nil {
		return nil
	}
	open, cancel := context.WithCancel(context.WithoutCancel(ctx))
	batch, err := c.consumer.Fetch(n, natsjs.FetchContext(open), natsjs.FetchHeartbeat(pullHeartbeat))
	if err != nil {
		cancel()
		return fmt.Errorf("queue %s: %w", c.queue, err)
	}
	c.batch, c.endBatch = batch, cancel
	return nil
}

// ended forgets a request that is over, and returns an error if it was not a
// good end.
func (c *commandConsumer) ended(ctx context.Context) error {
	err := c.batch.Error()
	c.endBatch()
	c.batch = nil
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, natsjs.ErrConsumerDeleted), errors.Is(err, natsjs.ErrConsumerNotFound),
		errors.Is(err, nats.ErrNoResponders), errors.Is(err, natsjs.ErrNoHeartbeat):
		// The consumer may be gone; a stream that is gone is final.
		consumer, again := c.broker.ensureConsumer(ctx, c.queue, &c.opts)
		if again != nil {
			return fmt.Errorf("%w (%w)", again, err)
		}
		c.consumer = consumer
		return nil
	}
	return fmt.Errorf("queue %s: %w", c.queue, err)
}

// add takes a message that is due. Others are not before their time, on a queue
// without schedules.
func (c *commandConsumer) add(found []sinks.CommandDelivery, m natsjs.Msg) []sinks.CommandDelivery {
	meta, err := m.Metadata()
	if err != nil {
		return found // no message of a stream
	}
	d := &commandDelivery{broker: c.broker, queue: c.queue, msg: m, meta: meta, attempt: int(meta.NumDelivered)}
	if at, err := time.Parse(time.RFC3339Nano, m.Headers().Get(headerNotBefore)); err == nil && m.Headers().Get(natsjs.SchedulerHeader) == "" {
		if wait := time.Until(at); wait > 0 {
			_ = m.NakWithDelay(wait) // lost, it comes again after the lease
			return found
		}
		if at.After(meta.Timestamp) && d.attempt > 1 {
			d.attempt-- // the delivery before its time
		}
	}
	return append(found, d)
}

// giveBack ends the open request, and what it has brought meanwhile goes back.
func (c *commandConsumer) giveBack() {
	if c.batch == nil {
		return
	}
	c.endBatch()
	for m := range c.batch.Messages() {
		_ = m.Nak()
	}
	c.batch = nil
}

// Close implements [sinks.CommandConsumer].
func (c *commandConsumer) Close() {
	c.giveBack()
	c.broker.nc.RemoveStatusListener(c.connected)
	c.stop()
	c.wg.Wait()
}

// A commandDelivery is one delivery of one message.
type commandDelivery struct {
	broker  *CommandBroker
	queue   string
	msg     natsjs.Msg
	meta    *natsjs.MsgMetadata
	attempt int
}

func (d *commandDelivery) origin() string {
	return fmt.Sprintf("%s/%d", d.meta.Stream, d.meta.Sequence.Stream)
}

// Envelope implements [sinks.CommandDelivery].
func (d *commandDelivery) Envelope() (*sinks.CommandEnvelope, error) {
	return getEnvelope(d.msg.Subject(), d.msg.Headers(), d.msg.Data(), d.origin())
}

// Attempt implements [sinks.CommandDelivery].
func (d *commandDelivery) Attempt() int { return d.attempt }

// Ack implements [sinks.CommandDelivery].
func (d *commandDelivery) Ack(ctx context.Context) error { return d.confirm(ctx) }

func (d *commandDelivery) confirm(ctx context.Context) error {
	ctx, cancel := d.broker.bounded(ctx)
	defer cancel()
	err := d.msg.DoubleAck(ctx)
	if errors.Is(err, natsjs.ErrMsgAlreadyAckd) {
		return nil
	}
	return err
}

// Retry implements [sinks.CommandDelivery]. It is not confirmed: if it is
// lost, the command comes again when the lease is over.
func (d *commandDelivery) Retry(_ context.Context, after time.Duration) error {
	var err error
	if after <= 0 {
		err = d.msg.Nak()
	} else {
		err = d.msg.NakWithDelay(after)
	}
	if errors.Is(err, natsjs.ErrMsgAlreadyAckd) {
		return nil
	}
	return err
}

// Extend implements [sinks.CommandDelivery].
func (d *commandDelivery) Extend(context.Context) error { return d.msg.InProgress() }

// Bury implements [sinks.CommandDelivery].
func (d *commandDelivery) Bury(ctx context.Context, letter sinks.DeadLetter) error {
	env, _ := d.Envelope() // the id is there even if the rest is not
	err := d.broker.bury(ctx, d.queue, &buried{
		letter: letter, subject: d.msg.Subject(), header: d.msg.Headers(), body: d.msg.Data(), id: env.ID,
		origin: d.origin(), stored: d.meta.Timestamp,
	})
	if err != nil {
		return err
	}
	return d.confirm(ctx)
}
