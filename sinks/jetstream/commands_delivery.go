package jetstream

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/sinks"
)

// What a worker says of a message, as the server wants it.
const (
	ackDone     = "+ACK"
	ackNak      = "-NAK"
	ackProgress = "+WPI"
)

// A commandDelivery is one delivery of one message.
type commandDelivery struct {
	broker  *CommandBroker
	queue   string
	msg     *nats.Msg
	meta    *nats.MsgMetadata
	attempt int
	settled *settled

	// mu keeps a sign of life from following the message that gives the
	// command back: it would undo the delay.
	mu    sync.Mutex
	ended bool
}

var _ sinks.CommandDelivery = (*commandDelivery)(nil)

func (d *commandDelivery) origin() string {
	return d.meta.Stream + "/" + strconv.FormatUint(d.meta.Sequence.Stream, 10)
}

// Envelope implements [sinks.CommandDelivery].
func (d *commandDelivery) Envelope() (*sinks.CommandEnvelope, error) {
	env, err := getEnvelope(d.msg.Subject, d.msg.Header, d.msg.Data, "")
	if env.ID == "" {
		env.ID = d.origin()
	}
	return env, err
}

// Attempt implements [sinks.CommandDelivery].
func (d *commandDelivery) Attempt() int { return d.attempt }

// tell sends what the server confirms.
func (d *commandDelivery) tell(ctx context.Context, what string) error {
	ctx, cancel := d.broker.bounded(ctx)
	defer cancel()
	if _, err := d.broker.nc.RequestWithContext(ctx, d.msg.Reply, []byte(what)); err != nil {
		return fmt.Errorf("%s: %w", d.origin(), d.broker.closedFor(err))
	}
	return nil
}

// Ack implements [sinks.CommandDelivery].
func (d *commandDelivery) Ack(ctx context.Context) error {
	// First: the server may hear it and its answer be lost.
	d.settled.add(d.meta.Sequence.Stream, d.meta.Timestamp)
	return d.tell(ctx, ackDone)
}

// Retry implements [sinks.CommandDelivery]. It is not confirmed: if it is
// lost, the command comes again when the lease is over.
func (d *commandDelivery) Retry(_ context.Context, after time.Duration) error {
	return d.giveBack(after)
}

func (d *commandDelivery) giveBack(after time.Duration) error {
	what := ackNak
	if after > 0 {
		what += fmt.Sprintf(` {"delay": %d}`, after.Nanoseconds())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil
	}
	if err := d.broker.nc.Publish(d.msg.Reply, []byte(what)); err != nil {
		return fmt.Errorf("%s: %w", d.origin(), err)
	}
	d.ended = true
	return nil
}

// Extend implements [sinks.CommandDelivery]. It waits for the server's answer:
// without one, nobody knows whether the lease still holds.
func (d *commandDelivery) Extend(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil
	}
	return d.tell(ctx, ackProgress)
}

// Bury implements [sinks.CommandDelivery].
func (d *commandDelivery) Bury(ctx context.Context, letter sinks.DeadLetter) error {
	env, _ := d.Envelope() // the id is there even if the rest is not
	err := d.broker.bury(ctx, d.queue, &buried{
		letter: letter, subject: d.msg.Subject, header: d.msg.Header, body: d.msg.Data, id: env.ID,
		origin: d.origin(), stored: d.meta.Timestamp,
	})
	if err != nil {
		return err
	}
	return d.Ack(ctx)
}
