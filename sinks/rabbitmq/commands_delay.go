package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Delays are made of queues in which nobody reads: each has one time to live
// for all its messages, and when that is over the server moves them back to the
// queue of commands. (With a time to live for each message, those behind a long
// one would wait for it.) The times are 16 ms and its products with powers of
// eight; a message goes into the longest that is not too long, and a worker that
// gets it before its time puts it into the next. So any delay takes a few steps.
const (
	shortestWait = 16 * time.Millisecond
	waitFactor   = 8
	waitSteps    = 9 // the longest is 74 hours
)

// waits goes through the times, shortest first.
func waits(yield func(time.Duration) bool) {
	step := shortestWait
	for range waitSteps {
		if !yield(step) {
			return
		}
		step *= waitFactor
	}
}

// waitFor returns the time with which a delay begins.
func waitFor(delay time.Duration) time.Duration {
	best := shortestWait
	for step := range waits {
		if step <= delay {
			best = step
		}
	}
	return best
}

func (b *CommandBroker) waitQueue(queue string, step time.Duration) string {
	return fmt.Sprintf("%s.wait.%d", b.Queue(queue), step.Milliseconds())
}

// target returns the name of the queue for a message that is due at a time.
func (b *CommandBroker) target(queue string, at time.Time) string {
	wait := time.Until(at)
	if wait <= 0 {
		return b.Queue(queue)
	}
	return b.waitQueue(queue, waitFor(wait))
}

// store puts a message into its queue again, to be delivered at a time.
func (b *CommandBroker) store(ctx context.Context, queue string, m amqp.Publishing, at time.Time) error {
	name := b.target(queue, at)
	if err := b.out.one(ctx, outgoing{key: name, mandatory: true, message: m}); err != nil {
		return fmt.Errorf("queue %s: %w", name, err)
	}
	return nil
}
