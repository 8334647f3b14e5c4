package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lockPause is how long to wait between attempts at a lock that somebody
// holds.
const lockPause = 25 * time.Millisecond

// locked calls do while nobody else in the world holds the lock of this name.
// On the server a lock is an exclusive queue: it belongs to the connection that
// has declared it, and ends with it. Do gets a channel, and has to bring its
// calls to their end with syncChannel before the lock is let go.
func (c *Connector) locked(ctx context.Context, name string, do func(ctx context.Context, ch *amqp.Channel) error) error {
	turn, _ := c.locks.LoadOrStore(name, make(chan struct{}, 1))
	mine, ok := turn.(chan struct{})
	if !ok {
		return fmt.Errorf("lock %s is none", name)
	}
	select {
	case mine <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for the lock %s: %w", name, context.Cause(ctx))
	}
	conn, err := c.connection(ctx, &c.other)
	if err != nil {
		<-mine
		return err
	}
	return c.await(ctx, func() error {
		defer func() { <-mine }() // not before the last call is over
		for {
			err := holding(ctx, conn, name, do)
			if !errors.Is(err, errHeld) {
				return err
			}
			if pause(ctx, lockPause); ctx.Err() != nil {
				return fmt.Errorf("somebody else holds the lock %s: %w", name, context.Cause(ctx))
			}
		}
	})
}

var errHeld = errors.New("the lock is held")

func holding(ctx context.Context, conn *amqp.Connection, name string, do func(ctx context.Context, ch *amqp.Channel) error) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer func() { ch.Close() }()
	switch _, err := ch.QueueDeclare(name, false, true, true, false, nil); {
	case code(err) == amqp.ResourceLocked:
		return errHeld
	case err != nil:
		return err
	}
	if err = do(ctx, ch); err != nil {
		ch.Close() // what do has taken goes back before somebody else looks
	}
	if ch.IsClosed() { // the lock belongs to the connection
		if next, again := conn.Channel(); again == nil {
			ch = next
		}
	}
	_, _ = ch.QueueDelete(name, false, false, false) // or it ends with the connection
	return err
}

// syncChannel returns when the server has worked through what was sent on a channel
// before. Setting the prefetch of later consumers is a request that changes
// nothing here.
func syncChannel(ch *amqp.Channel) error { return ch.Qos(0, 0, false) }
