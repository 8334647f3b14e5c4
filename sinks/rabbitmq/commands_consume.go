package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// A commandConsumer has a channel whose prefetch is the room for commands. What
// the server has pushed lies with the channel until Receive takes it.
type commandConsumer struct {
	broker *CommandBroker
	queue  string
	opts   sinks.ConsumeOptions

	mu      sync.Mutex
	session *session // nil if there is none
	inWork  map[*commandDelivery]bool
	closed  bool
	// ended is the end of Receive's context.
	ended <-chan struct{}
	wg    sync.WaitGroup
}

// A session is one channel's life, as a consumer of a queue.
type session struct {
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery

	mu        sync.Mutex // requests of the channel come one after the other
	cancelled bool
	// extra is what cancel has taken.
	extra []amqp.Delivery
	// ends is held for reading by what makes room for another delivery, and by
	// cancel.
	ends sync.RWMutex

	queue string
	many  bool // so many acknowledgements that the server may hold some back
	sync  groupSync
}

// Consume implements [sinks.CommandBroker]. The server notices when a worker
// dies; Lease bounds how long a delivery may go without a sign of life from a
// handler of a worker that lives.
func (b *CommandBroker) Consume(ctx context.Context, queue string, o sinks.ConsumeOptions) (sinks.CommandConsumer, error) {
	if err := b.open(); err != nil {
		return nil, err
	}
	if err := b.claim(ctx, queue, o.Owner); err != nil {
		return nil, err
	}
	c := &commandConsumer{broker: b, queue: queue, opts: o, inWork: make(map[*commandDelivery]bool)}
	s, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	c.session = s
	b.mu.Lock()
	b.consumers[c] = true
	b.mu.Unlock()
	if o.Concurrency > inOrder && strings.HasPrefix(b.connector.version(ctx), "3.10.") {
		b.opts.Logger.WarnContext(ctx, "RabbitMQ 3.10 may lose commands when it is restarted after a worker with more than 32 commands in work was lost",
			"queue", queue, "concurrency", o.Concurrency, "remedy", "a Concurrency of at most 32, or a later RabbitMQ")
	}
	return c, nil
}

const (
	consumerTag = "rowcall"
	// maxPrefetch is what fits into the protocol.
	maxPrefetch = 65535
)

func (c *commandConsumer) begin(ctx context.Context) (*session, error) {
	ctx, cancel := c.broker.bounded(ctx)
	defer cancel()
	name := c.broker.Queue(c.queue)
	ch, err := c.broker.connector.channel(ctx, &c.broker.connector.other)
	if err != nil {
		return nil, explain(c.queue, name, err)
	}
	s := &session{ch: ch, queue: name, many: c.opts.Concurrency > removeChunk}
	err = c.broker.connector.setUp(ctx, ch, func() error {
		if err := ch.Qos(min(c.opts.Concurrency, maxPrefetch), 0, false); err != nil {
			return err
		}
		var err error
		s.deliveries, err = ch.Consume(name, consumerTag, false, false, false, false, nil)
		return err
	})
	if code(err) == amqp.NotFound {
		return nil, &sinks.QueueError{Queue: c.queue, Reason: fmt.Sprintf("queue %s was deleted while it was in use; start this program anew to create it", name), Err: err}
	}
	if err != nil {
		return nil, explain(c.queue, name, err)
	}
	s.sync.call = func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return syncChannel(ch)
	}
	return s, nil
}

// Receive implements [sinks.CommandConsumer].
func (c *commandConsumer) Receive(ctx context.Context, most int) ([]sinks.CommandDelivery, error) {
	for {
		if ctx.Err() != nil {
			return c.giveBack(ctx), context.Cause(ctx)
		}
		s, err := c.current(ctx)
		if err != nil {
			return nil, err
		}
		var found []sinks.CommandDelivery
		select {
		case <-ctx.Done():
			continue
		case m, ok := <-s.deliveries:
			if !ok {
				// After ctx's end it may be cancel that closed it: giveBack needs the
				// session, for what cancel has taken.
				if ctx.Err() == nil {
					c.lose(s)
				}
				continue
			}
			found = c.add(ctx, found, s, m)
		}
		for more := true; more && len(found) < most; {
			select {
			case m, ok := <-s.deliveries:
				if more = ok; ok {
					found = c.add(ctx, found, s, m)
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

// current returns the session, or begins one.
func (c *commandConsumer) current(ctx context.Context) (*session, error) {
	if err := c.broker.open(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	s := c.session
	c.ended = ctx.Done()
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
	return s, nil
}

// lose forgets a session that is over: its channel was closed, or the server
// has cancelled the consumer. What was with it is at another worker, or will be.
func (c *commandConsumer) lose(s *session) {
	c.mu.Lock()
	if c.session == s {
		c.session = nil
	}
	c.mu.Unlock()
	s.mu.Lock()
	cancelled := s.cancelled
	s.mu.Unlock()
	if !cancelled { // by us, with commands in work
		s.close(c.broker.connector)
	}
}

func (s *session) close(c *Connector) {
	if !s.ch.IsClosed() {
		c.wg.Go(func() { s.ch.Close() })
	}
}

// add takes a message whose time has come, and sends others on their way.
func (c *commandConsumer) add(ctx context.Context, found []sinks.CommandDelivery, s *session, m amqp.Delivery) []sinks.CommandDelivery {
	d := &commandDelivery{consumer: c, session: s, message: stored{queue: c.queue, Delivery: &m}}
	c.mu.Lock()
	c.inWork[d] = true
	c.mu.Unlock()
	at, err := time.Parse(time.RFC3339Nano, text(m.Headers, headerNotBefore))
	if err == nil && time.Until(at) > 0 {
		c.wg.Go(func() { d.postpone(ctx, at) })
		return found
	}
	d.mu.Lock() // expire may look before it is set
	d.lease = time.AfterFunc(c.opts.Lease, d.expire)
	d.mu.Unlock()
	return append(found, d)
}

// Close implements [sinks.CommandConsumer]. The channel stays open until what is in
// work has come to its end.
func (c *commandConsumer) Close() {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		for _, d := range c.returnAll(context.Background(), s) { //nolint:contextcheck // Close has none
			if d, ok := d.(*commandDelivery); ok { // nobody is there to begin it
				d.expire()
			}
		}
	}
	c.wg.Wait()
	c.mu.Lock()
	c.closed = true
	last := len(c.inWork) == 0
	c.mu.Unlock()
	c.broker.mu.Lock()
	delete(c.broker.consumers, c)
	c.broker.mu.Unlock()
	if s != nil && last {
		c.release(s)
	}
}

// settled takes a delivery out of the books.
func (c *commandConsumer) settled(d *commandDelivery) {
	c.mu.Lock()
	delete(c.inWork, d)
	last, s := c.closed && len(c.inWork) == 0, c.session
	c.mu.Unlock()
	if last && s != nil {
		c.release(s)
	}
}

// stopping reports whether Receive's context has ended.
func (c *commandConsumer) stopping() bool {
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// running counts what this broker's consumers of a queue have in work.
func (b *CommandBroker) running(queue string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for c := range b.consumers {
		if c.queue == queue {
			c.mu.Lock()
			n += len(c.inWork)
			c.mu.Unlock()
		}
	}
	return uint64(n)
}

// A groupSync makes a slow call serve all who wait for it: each gets the
// outcome of a call that began after it had asked.
type groupSync struct {
	call func() error

	mu      sync.Mutex
	running bool
	next    *syncRound
}

type syncRound struct {
	done chan struct{}
	err  error
}

func (g *groupSync) do() error {
	g.mu.Lock()
	if g.next == nil {
		g.next = &syncRound{done: make(chan struct{})}
	}
	mine := g.next
	if g.running {
		g.mu.Unlock()
		<-mine.done
		return mine.err
	}
	// This one makes the calls until nobody waits.
	g.running = true
	for g.next != nil {
		round := g.next
		g.next = nil
		g.mu.Unlock()
		round.err = g.call()
		close(round.done)
		g.mu.Lock()
	}
	g.running = false
	g.mu.Unlock()
	return mine.err
}
