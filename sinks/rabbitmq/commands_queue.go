package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// settling is how long a new quorum queue takes until it survives a crash of a
// single node, which writes down where the queue's log is only from time to
// time (Ra's directory). What is confirmed earlier may be lost in one, and the
// queue is then of no use any more.
const settling = time.Second

// OpenQueue implements [sinks.CommandBroker]. The first time ever it takes a
// second.
func (b *CommandBroker) OpenQueue(ctx context.Context, queue string) error {
	if err := b.open(); err != nil {
		return err
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	for _, q := range b.topology(queue) {
		if err := b.ensure(ctx, queue, q.name, q.args); err != nil {
			return err
		}
	}
	// This makes the registry's queue, too, which then settles with the others.
	r, err := b.registry(ctx, func(*registry) bool { return false })
	if err != nil {
		return explain(queue, b.registryQueue(), err)
	}
	if r.Queues[queue] != nil {
		return nil
	}
	if pause(ctx, settling); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, err = b.registry(ctx, func(r *registry) bool {
		known := r.Queues[queue] != nil
		r.queue(queue)
		return !known
	})
	return explain(queue, b.registryQueue(), err)
}

type declaration struct {
	name string
	args amqp.Table
}

// topology is what a queue is made of. The dead letters are first, since the
// queue refers to them.
func (b *CommandBroker) topology(queue string) []declaration {
	args := amqp.Table{"x-delivery-limit": int64(deliveryLimit), "x-consumer-timeout": consumerTimeout.Milliseconds()}
	b.deadTo(args, b.DeadQueue(queue))
	// A quorum queue takes one message above its limit and refuses from then on.
	if b.opts.MaxMessages > 0 {
		args["x-max-length"] = b.opts.MaxMessages - 1
	}
	if b.opts.MaxBytes > 0 {
		args["x-max-length-bytes"] = b.opts.MaxBytes
	}
	all := []declaration{{b.DeadQueue(queue), amqp.Table{"x-delivery-limit": int64(endless)}}, {b.Queue(queue), args}}
	for step := range waits {
		args := amqp.Table{"x-message-ttl": step.Milliseconds()}
		b.deadTo(args, b.Queue(queue))
		all = append(all, declaration{b.waitQueue(queue, step), args})
	}
	return all
}

// deadTo has a queue dead-letter to another. At least once: the server then
// keeps a message until the other queue has confirmed it, and demands that a
// full queue refuses (quorum queues, "Dead-lettering strategies").
func (b *CommandBroker) deadTo(args amqp.Table, to string) {
	args["x-dead-letter-exchange"], args["x-dead-letter-routing-key"] = "", to
	args["x-dead-letter-strategy"], args["x-overflow"] = "at-least-once", "reject-publish"
}

// ensure makes a quorum queue, or checks the one that is there.
func (b *CommandBroker) ensure(ctx context.Context, queue, name string, args amqp.Table) error {
	if b.opts.MustExist {
		if _, err := b.count(ctx, name); code(err) == amqp.NotFound {
			return &sinks.QueueError{Queue: queue, Reason: "there is no queue " + name + "; create it, or let it be created (MustExist)", Err: err}
		} else if err != nil {
			return explain(queue, name, err)
		}
		return nil
	}
	taken, err := b.declare(ctx, name, args)
	if err != nil {
		return explain(queue, name, err)
	}
	for _, argument := range taken {
		b.opts.Logger.InfoContext(ctx, "a queue exists with another setting, which stays", "queue", name, "setting", argument)
	}
	return nil
}

// free are the settings that a queue may have otherwise: they were decided when
// it was created.
func free(argument string) bool {
	switch argument {
	case "x-max-length", "x-max-length-bytes", "x-delivery-limit", "x-consumer-timeout", "x-quorum-initial-group-size", "x-quorum-target-group-size":
		return true
	}
	return false
}

// declare makes a quorum queue, or accepts one that differs only in what is
// free, and returns the names of these settings.
func (b *CommandBroker) declare(ctx context.Context, name string, args amqp.Table) ([]string, error) {
	args = maps.Clone(args)
	args["x-queue-type"] = "quorum"
	if b.opts.Replicas > 0 {
		args["x-quorum-initial-group-size"] = int64(b.opts.Replicas)
	}
	var taken []string
	for {
		err := b.connector.withChannel(ctx, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(name, true, false, false, false, args)
			return err
		})
		argument, value, none, differs := difference(err)
		if !differs || !free(argument) || len(taken) > 10 {
			return taken, err
		}
		delete(args, argument)
		if n, parse := strconv.ParseInt(value, 10, 64); !none && parse == nil {
			args[argument] = n
		}
		taken = append(taken, argument)
	}
}

// Publish implements [sinks.CommandBroker]. The server remembers no ids:
// Dedupe is not looked at, and a command that is sent again is stored again.
func (b *CommandBroker) Publish(ctx context.Context, envelopes []sinks.CommandEnvelope) []error {
	errs := make([]error, len(envelopes))
	messages := make([]outgoing, 0, len(envelopes))
	of := make([]int, 0, len(envelopes)) // the envelope of each message
	err := b.open()
	for i := range envelopes {
		e := &envelopes[i]
		if errs[i] = err; err != nil {
			continue
		}
		o := outgoing{key: b.target(e.Queue, e.At), mandatory: true, message: putEnvelope(e)}
		if errs[i] = b.fits(e, &o.message); errs[i] != nil {
			continue
		}
		messages, of = append(messages, o), append(of, i)
	}
	if len(messages) == 0 {
		return errs
	}
	for j, err := range b.out.publish(ctx, messages) {
		errs[of[j]] = b.explainPublish(&envelopes[of[j]], &messages[j], err)
	}
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

// fits returns an error for what cannot be sent: the server would close the
// channel or the connection, and fail what is on its way there with it.
func (b *CommandBroker) fits(e *sinks.CommandEnvelope, m *amqp.Publishing) error {
	large := func(size, limit int64) error {
		return &sinks.CommandTooLargeError{Queue: e.Queue, Name: e.Name, ID: e.ID, Size: size, Limit: limit}
	}
	for name := range m.Headers {
		if len(name) > maxShort {
			return large(int64(len(name)), maxShort)
		}
	}
	if size := headerSize(m); size > maxHeader {
		return large(int64(size), maxHeader)
	}
	if limit := b.limit.Load(); limit > 0 && int64(len(m.Body)) > limit {
		return large(int64(len(m.Body)), limit)
	}
	return nil
}

// explainPublish returns a final error for what will not pass, and
// [sinks.ErrQueueFull] for want of room.
func (b *CommandBroker) explainPublish(e *sinks.CommandEnvelope, o *outgoing, err error) error {
	if limit := sizeLimit(err); limit > 0 {
		b.limit.Store(limit)
		if again := b.fits(e, &o.message); again != nil {
			return again
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRefused):
		return fmt.Errorf("queue %s: %w: %w", o.key, sinks.ErrQueueFull, err)
	case errors.Is(err, errUnroutable):
		return &sinks.QueueError{Queue: e.Queue, Reason: fmt.Sprintf("queue %s was deleted while it was in use; start this program anew to create it", o.key)}
	}
	return explain(e.Queue, o.key, err)
}
