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
)

// A commandConsumer pulls exactly as many commands as there is room for, so
// that none waits in this process while another worker is idle.
type commandConsumer struct {
	broker *CommandBroker
	queue  string
	opts   sinks.ConsumeOptions

	pull      *pull
	over      error // why the last request is over, if that was no good end
	connected chan nats.Status
	settled   settled

	stop context.CancelFunc // ends the safety net
	wg   sync.WaitGroup
}

// Consume implements [sinks.CommandBroker].
func (b *CommandBroker) Consume(ctx context.Context, queue string, o sinks.ConsumeOptions) (sinks.CommandConsumer, error) {
	if err := b.open(); err != nil {
		return nil, err
	}
	if err := b.ensureConsumer(ctx, queue, &o); err != nil {
		return nil, err
	}
	c := &commandConsumer{
		broker: b, queue: queue, opts: o,
		pull:      newPull(b.nc, (&Options{Domain: b.opts.Domain, APIPrefix: b.opts.APIPrefix}).api(), CommandStream(queue), queue, o.Concurrency),
		connected: b.nc.StatusChanged(nats.CONNECTED),
	}
	net, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.wg.Go(func() { c.catchFallen(net) })
	return c, nil
}

// ensureConsumer makes the one consumer of a queue, or takes over its settings
// if its owner is this one.
func (b *CommandBroker) ensureConsumer(ctx context.Context, queue string, o *sinks.ConsumeOptions) error {
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
		return b.explainConsumer(queue, err)
	}
	has := c.CachedInfo().Config
	if owner := has.Metadata[ownerKey]; owner != o.Owner && owner != "" {
		return &sinks.OwnerError{Queue: queue, Owner: owner, Want: o.Owner}
	}
	if has.AckWait == want.AckWait && has.MaxDeliver == want.MaxDeliver && has.Metadata[ownerKey] == o.Owner {
		return nil
	}
	set := has
	set.AckWait, set.MaxDeliver, set.MaxAckPending, set.BackOff = want.AckWait, want.MaxDeliver, want.MaxAckPending, nil
	set.Metadata = maps.Clone(has.Metadata)
	if set.Metadata == nil {
		set.Metadata = make(map[string]string)
	}
	set.Metadata[ownerKey] = o.Owner
	if _, err = b.js.UpdateConsumer(ctx, stream, set); err != nil {
		return b.explainConsumer(queue, err)
	}
	return nil
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
		if ctx.Err() != nil {
			return c.giveBack(ctx), context.Cause(ctx)
		}
		if err := c.mend(ctx); err != nil {
			return nil, err
		}
		// A request that is open has no more left than there is room for: what
		// it delivered is what took the room.
		if err := c.pull.open(most); err != nil {
			return nil, fmt.Errorf("queue %s: %w", c.queue, err)
		}
		var found []sinks.CommandDelivery
		select {
		case <-ctx.Done():
			continue
		case <-c.connected:
			// What was asked of the old connection is not answered on the new
			// one.
			found = c.addAll(c.end(ctx))
		case <-c.pull.silent.C:
			c.over = fmt.Errorf("%w: the server is silent for %s", errPullLost, 2*pullHeartbeat)
			found = c.addAll(c.end(ctx))
		case m := <-c.pull.messages:
			found = c.accept(found, m)
		}
		for more := true; more && len(found) < most; {
			select {
			case m := <-c.pull.messages:
				found = c.accept(found, m)
			default:
				more = false
			}
		}
		if len(found) > 0 {
			return found, nil
		}
	}
}

// mend looks at the consumer after a request was lost: it may be gone, and a
// stream that is gone is final.
func (c *commandConsumer) mend(ctx context.Context) error {
	if c.over == nil {
		return nil
	}
	if err := c.broker.ensureConsumer(ctx, c.queue, &c.opts); err != nil {
		return fmt.Errorf("%w (%w)", err, c.over)
	}
	c.over = nil
	return nil
}

func (c *commandConsumer) accept(found []sinks.CommandDelivery, m *nats.Msg) []sinks.CommandDelivery {
	ok, err := c.pull.accept(m)
	if err != nil {
		c.over = err
	}
	if !ok {
		return found
	}
	return c.add(found, m)
}

func (c *commandConsumer) addAll(all []*nats.Msg) []sinks.CommandDelivery {
	var found []sinks.CommandDelivery
	for _, m := range all {
		found = c.add(found, m)
	}
	return found
}

// add takes a message that is due. Others are not before their time, on a queue
// without schedules.
func (c *commandConsumer) add(found []sinks.CommandDelivery, m *nats.Msg) []sinks.CommandDelivery {
	meta, err := m.Metadata()
	if err != nil {
		return found // no message of a stream
	}
	d := &commandDelivery{broker: c.broker, queue: c.queue, msg: m, meta: meta, attempt: int(meta.NumDelivered), settled: &c.settled}
	if notBefore := m.Header.Get(headerNotBefore); notBefore != "" && m.Header.Get(natsjs.SchedulerHeader) == "" {
		at, err := time.Parse(time.RFC3339Nano, notBefore)
		switch wait := time.Until(at); {
		case err != nil: // Envelope says so
		case wait > 0:
			_ = d.giveBack(wait) // lost, it comes again after the lease
			return found
		case at.After(meta.Timestamp) && d.attempt > 1:
			d.attempt-- // the delivery before its time
		}
	}
	return append(found, d)
}

// end ends a request whose connection is gone, and returns what it has brought.
func (c *commandConsumer) end(ctx context.Context) []*nats.Msg {
	ctx, cancel := c.broker.bounded(context.WithoutCancel(ctx))
	defer cancel()
	return c.pull.end(ctx)
}

// more reports whether there are commands that the server has yet to deliver.
func (c *commandConsumer) more(ctx context.Context) bool {
	consumer, err := c.broker.js.Consumer(ctx, CommandStream(c.queue), c.queue)
	return err == nil && consumer.CachedInfo().NumPending > 0
}

// giveBack ends the open request, and what it has brought meanwhile goes back,
// except what is in its last attempt.
func (c *commandConsumer) giveBack(ctx context.Context) []sinks.CommandDelivery {
	ctx, cancel := c.broker.bounded(context.WithoutCancel(ctx))
	defer cancel()
	var last []sinks.CommandDelivery
	for _, d := range c.addAll(c.pull.finish(ctx, c.more)) {
		if d.Attempt() >= c.opts.MaxAttempts {
			last = append(last, d)
			continue
		}
		_ = d.Retry(ctx, 0) // lost, it comes again after the lease
	}
	return last
}

// Close implements [sinks.CommandConsumer].
func (c *commandConsumer) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), c.broker.opts.AckTimeout) //nolint:contextcheck // Close has none
	defer cancel()
	for _, m := range c.pull.finish(ctx, c.more) {
		_ = c.broker.nc.Publish(m.Reply, []byte(ackNak))
	}
	c.broker.nc.RemoveStatusListener(c.connected)
	c.stop()
	c.wg.Wait()
}
