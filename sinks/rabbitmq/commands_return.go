package rabbitmq

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// cancel ends what the server pushes, so that an acknowledgement makes no room
// for another command. Once it returns, no more will come.
//
// A server below 4.3 counts as delivered what it has on its way to a consumer that
// is cancelled meanwhile. So cancel first takes a message, which the queue
// answers behind all acknowledgements: either there is none, or the consumer has
// as many as it may, and then nothing is on its way.
func (s *session) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancelled {
		return
	}
	s.cancelled = true
	s.ends.Lock()
	defer s.ends.Unlock()
	if s.take(); s.many {
		s.take() // behind the acknowledgements that were held back
	}
	_ = s.ch.Cancel(consumerTag, false) // or the channel is gone
}

// take needs mu.
func (s *session) take() {
	if m, ok, err := s.ch.Get(s.queue, false); err == nil && ok {
		s.extra = append(s.extra, m)
	}
}

// end does what makes room for another delivery.
func (s *session) end(what func() error) error {
	s.ends.RLock()
	defer s.ends.RUnlock()
	return what()
}

// giveBack ends the consumer, and what was pushed and not taken goes back.
func (c *commandConsumer) giveBack(ctx context.Context) []sinks.CommandDelivery {
	c.mu.Lock()
	s := c.session
	c.ended = ctx.Done()
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	return c.returnAll(context.WithoutCancel(ctx), s)
}

// returnAll ends the consumer.
func (c *commandConsumer) returnAll(ctx context.Context, s *session) []sinks.CommandDelivery {
	s.cancel()
	var pushed []amqp.Delivery
	for m := range s.deliveries {
		pushed = append(pushed, m)
	}
	return c.storeAgain(ctx, s, pushed)
}

// release closes a session whose deliveries have all come to their end.
func (c *commandConsumer) release(s *session) {
	if s.many && !s.ch.IsClosed() {
		// The server forgets acknowledgements that it holds back, see removeChunk:
		// it sends them once the queue has taken the others, and that is what this
		// message is answered behind.
		s.mu.Lock()
		s.take()
		_ = syncChannel(s.ch)
		s.mu.Unlock()
		c.storeAgain(context.Background(), s, nil)
	}
	s.close(c.broker.connector)
}

// storeAgain gives back what was delivered and not begun, without its counting
// as an attempt: the server would count what is returned to it. What cannot be
// stored is returned to the server all the same, or by storeAgain if it is in its
// last attempt.
func (c *commandConsumer) storeAgain(ctx context.Context, s *session, pushed []amqp.Delivery) []sinks.CommandDelivery {
	var last []sinks.CommandDelivery
	s.mu.Lock()
	all := slices.Concat(pushed, s.extra)
	s.extra = nil
	s.mu.Unlock()
	for n := 0; n < len(all); {
		chunk := all[n:min(n+removeChunk, len(all))]
		errs := c.storeUncounted(ctx, chunk)
		for i := range chunk {
			m := &chunk[i]
			switch {
			case errs[i] == nil:
				_ = m.Ack(false)
			case n+i < len(pushed) && (stored{Delivery: m}).attempts()+1 >= c.opts.MaxAttempts:
				last = c.add(ctx, last, s, *m)
			default:
				_ = m.Nack(false, true)
			}
		}
		s.mu.Lock()
		if n += len(chunk); n < len(all) {
			// More acknowledgements than these are held back by the server, see
			// removeChunk, until it has answered.
			s.take()
			all, s.extra = append(all, s.extra...), nil
		} else {
			_ = syncChannel(s.ch)
		}
		s.mu.Unlock()
	}
	return last
}

// storeUncounted stores messages anew with the attempts that they had. A queue
// that is full takes them from one for delays, when it has room.
func (c *commandConsumer) storeUncounted(ctx context.Context, chunk []amqp.Delivery) []error {
	b := c.broker
	messages := make([]outgoing, len(chunk))
	for i := range chunk {
		m := stored{queue: c.queue, Delivery: &chunk[i]}
		again := m.again()
		if n := m.attempts(); n > 0 {
			again.Headers[headerAttempts] = strconv.Itoa(n)
		}
		at, _ := time.Parse(time.RFC3339Nano, text(m.Headers, headerNotBefore))
		messages[i] = outgoing{key: b.target(c.queue, at), mandatory: true, message: again}
	}
	storing, cancel := b.bounded(ctx)
	defer cancel()
	errs := b.out.publish(storing, messages)
	if errs == nil {
		return make([]error, len(chunk))
	}
	for i, err := range errs {
		if errors.Is(err, errRefused) {
			messages[i].key = b.waitQueue(c.queue, shortestWait)
			errs[i] = b.out.one(storing, messages[i])
		}
	}
	return errs
}
