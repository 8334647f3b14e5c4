package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

var (
	// errRefused: the server answered with basic.nack.
	errRefused = errors.New("the server refused it (basic.nack): a queue with a limit is full")
	// errUnroutable: there is no queue that would take it.
	errUnroutable = errors.New("no queue takes it")
	// errNoConfirm: the server did not answer.
	errNoConfirm = errors.New("no confirmation from the server")
)

// An outgoing is a message on its way.
type outgoing struct {
	exchange, key string
	mandatory     bool
	message       amqp.Publishing
}

// A confirmer publishes with confirmations, over one channel that it opens
// anew when it is lost. Its methods may be called concurrently.
type confirmer struct {
	connector *Connector
	timeout   time.Duration

	mu   sync.Mutex
	open *confirmChannel
}

// A confirmChannel is a channel in confirm mode. Its goroutine ends with it.
type confirmChannel struct {
	ch     *amqp.Channel
	look   chan chan struct{} // answered once all returns before are noted
	ended  chan struct{}
	reason error // after ended

	mu       sync.Mutex
	returned map[returnKey]bool
	orphans  []orphan
}

type returnKey struct{ exchange, key, id string }

// An orphan is a mandatory message whose answer nobody waits for any more. Its
// return, if it comes back, must neither be kept for ever nor be taken for that of a
// later message with the same id.
type orphan struct {
	key  returnKey
	wait *amqp.DeferredConfirmation
}

func newConfirmer(c *Connector, timeout time.Duration) *confirmer {
	return &confirmer{connector: c, timeout: timeout}
}

// channel returns the open channel, or opens one.
func (p *confirmer) channel(ctx context.Context) (*confirmChannel, error) {
	if reason := p.connector.publishing.blocked.Load(); reason != nil {
		return nil, fmt.Errorf("%w: the server takes nothing at the moment: %s", sinks.ErrQueueFull, *reason)
	}
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	if open != nil && !open.ch.IsClosed() {
		return open, nil
	}
	ch, err := p.connector.channel(ctx, &p.connector.publishing)
	if err != nil {
		return nil, err
	}
	if err := p.connector.setUp(ctx, ch, func() error { return ch.Confirm(false) }); err != nil {
		return nil, fmt.Errorf("turn on confirmations: %w", err)
	}
	c := &confirmChannel{ch: ch, look: make(chan chan struct{}), ended: make(chan struct{}), returned: make(map[returnKey]bool)}
	returns := ch.NotifyReturn(make(chan amqp.Return))
	closes := ch.NotifyClose(make(chan *amqp.Error, 1))
	p.connector.wg.Go(func() { c.listen(returns, closes) })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open != nil && !p.open.ch.IsClosed() { // somebody else was faster
		p.abandon(c)
		return p.open, nil
	}
	p.open = c
	return c, nil
}

// listen notes what comes back, until the channel is closed. The server returns
// a message before it confirms it, and the library hands it over before it looks
// at the confirmation: so what is noted when look is answered is all.
func (c *confirmChannel) listen(returns <-chan amqp.Return, closes <-chan *amqp.Error) {
	defer close(c.ended)
	for {
		select {
		case r, ok := <-returns:
			if !ok {
				c.reason = amqp.ErrClosed
				if err := <-closes; err != nil {
					c.reason = err
				}
				return
			}
			c.mu.Lock()
			c.returned[returnKey{r.Exchange, r.RoutingKey, r.MessageId}] = true
			c.mu.Unlock()
		case answer := <-c.look:
			close(answer)
		}
	}
}

func (o *outgoing) returnKey() returnKey { return returnKey{o.exchange, o.key, o.message.MessageId} }

func (c *confirmChannel) cameBack(o *outgoing) bool {
	k := o.returnKey()
	c.mu.Lock()
	defer c.mu.Unlock()
	back := c.returned[k]
	delete(c.returned, k)
	return back
}

// leave says that nobody waits for the answer to a mandatory message any more.
func (c *confirmChannel) leave(o *outgoing, wait *amqp.DeferredConfirmation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orphans = append(c.orphans, orphan{key: o.returnKey(), wait: wait})
}

// settle forgets the orphans that were answered. It waits for the answers to those
// that have the id of one of these messages, which are to be published.
func (c *confirmChannel) settle(ctx context.Context, messages []outgoing) error {
	c.mu.Lock()
	left := slices.Clone(c.orphans)
	c.mu.Unlock()
	if len(left) == 0 {
		return nil
	}
	again := make(map[returnKey]bool)
	for i := range messages {
		again[messages[i].returnKey()] = messages[i].mandatory
	}
	answered := make(map[orphan]bool)
	for _, o := range left {
		if again[o.key] {
			select {
			case <-o.wait.Done():
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		select {
		case <-o.wait.Done():
			answered[o] = true
		default:
		}
	}
	c.note()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orphans = slices.DeleteFunc(c.orphans, func(o orphan) bool {
		if answered[o] {
			delete(c.returned, o.key)
		}
		return answered[o]
	})
	return nil
}

// abandon closes a channel without waiting for it.
func (p *confirmer) abandon(c *confirmChannel) {
	p.connector.wg.Go(func() { c.ch.Close() })
}

// publish blocks until each message is confirmed or has failed, and returns nil
// if all are stored, otherwise an error for each. An errRefused and an
// errUnroutable is not stored; what else failed may be.
func (p *confirmer) publish(ctx context.Context, messages []outgoing) []error {
	errs := make([]error, len(messages))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, errNoConfirm)
	defer cancel()
	c, err := p.channel(ctx)
	if err != nil {
		return all(err)
	}
	if err := c.settle(ctx, messages); err != nil {
		return all(err)
	}
	waits := make([]*amqp.DeferredConfirmation, len(messages))
	for i := range messages {
		o := &messages[i]
		if waits[i], errs[i] = c.ch.PublishWithDeferredConfirm(o.exchange, o.key, o.mandatory, false, o.message); errs[i] != nil && c.ch.IsClosed() {
			for j := i + 1; j < len(messages); j++ {
				errs[j] = errs[i]
			}
			break
		}
	}
	failed, silent := false, false
	for i, w := range waits {
		if w != nil {
			select {
			case <-w.Done():
			case <-ctx.Done():
			}
			select {
			case <-w.Done(): // also if ctx has ended
				if !w.Acked() {
					errs[i] = errRefused
				}
			default:
				errs[i], silent = context.Cause(ctx), true
			}
		}
		failed = failed || errs[i] != nil
	}
	if silent && errors.Is(context.Cause(ctx), errNoConfirm) {
		p.mu.Lock()
		if p.open == c {
			p.open = nil
		}
		p.mu.Unlock()
		p.abandon(c) // a confirmation was lost, and the library would wait for ever
	}
	c.note()
	for i := range messages {
		switch o := &messages[i]; {
		case !o.mandatory, waits[i] == nil:
		case errs[i] == nil && c.cameBack(o):
			errs[i], failed = errUnroutable, true
		case errs[i] != nil && !errors.Is(errs[i], errRefused):
			c.leave(o, waits[i])
		}
	}
	if !failed {
		return nil
	}
	if c.ch.IsClosed() {
		// What was waited for was not refused: its channel is gone.
		<-c.ended
		for i, err := range errs {
			if err != nil && !errors.Is(err, errUnroutable) && !errors.Is(err, errNoConfirm) {
				errs[i] = fmt.Errorf("the channel was lost: %w", c.reason)
			}
		}
	}
	return errs
}

// note waits until what was returned so far is noted.
func (c *confirmChannel) note() {
	answer := make(chan struct{})
	select {
	case c.look <- answer:
		<-answer
	case <-c.ended:
	}
}

// one publishes a single message.
func (p *confirmer) one(ctx context.Context, o outgoing) error {
	if errs := p.publish(ctx, []outgoing{o}); errs != nil {
		return errs[0]
	}
	return nil
}

// close gives the channel up. What is waited for fails.
func (p *confirmer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open != nil {
		p.abandon(p.open)
	}
}

// drop closes a channel and waits for that, but not for a server that does not
// answer.
func (p *confirmer) drop(c *confirmChannel) {
	p.mu.Lock()
	if p.open == c {
		p.open = nil
	}
	p.mu.Unlock()
	closed := make(chan struct{})
	p.connector.wg.Go(func() {
		defer close(closed)
		c.ch.Close()
	})
	timer := time.NewTimer(p.timeout)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
	}
}
