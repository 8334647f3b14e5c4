package rabbitmq

import (
	"context"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A lateContext ends behind the first look at it.
type lateContext struct {
	context.Context //nolint:containedctx // it is one

	looks int
}

func (c *lateContext) Err() error {
	if c.looks++; c.looks > 1 {
		return context.Canceled
	}
	return nil
}

// A handler that reports after the context's end cancels the session, which
// closes its deliveries and may have taken one more for giveBack.
func TestSessionThatWasCancelledIsGivenBack(t *testing.T) {
	closed := make(chan amqp.Delivery)
	close(closed)
	s := &session{deliveries: closed, cancelled: true}
	c := &commandConsumer{broker: new(CommandBroker), session: s}
	if _, err := c.Receive(&lateContext{Context: t.Context()}, 1); err == nil {
		t.Error("Receive = nil after its context's end")
	}
	if c.session != s {
		t.Error("Receive has lost the session before what it has taken was given back")
	}
}
