package rabbitmq

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

// send puts a publication behind the others and publishes it. It waits for
// room.
func (p *Publisher) send(ctx context.Context, pub *publication) error {
	for {
		p.mu.Lock()
		changed, fault, dead := p.changed, p.fault, p.dead
		full := len(p.pending) >= p.opts.MaxPending || len(p.pending) > 0 && p.bytes+pub.size > p.opts.MaxPendingBytes
		if dead != nil {
			p.mu.Unlock()
			return p.Flush(ctx)
		}
		if !full && fault == nil && p.session != nil {
			p.pending = append(p.pending, pub)
			p.bytes += pub.size
			p.mu.Unlock()
			p.publish(p.session, pub)
			return nil
		}
		p.mu.Unlock()
		if fault != nil || p.session == nil {
			if err := p.recover(ctx); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// publish hands one publication to the channel and to its watcher, which has
// room for all that may be pending. It returns whether the channel took it.
func (p *Publisher) publish(s *publishing, pub *publication) bool {
	pub.wait = nil
	if pub.message.Headers != nil {
		var err error
		pub.wait, err = s.channel.ch.PublishWithDeferredConfirm(pub.exchange, pub.key, pub.mandatory, false, pub.message)
		if err != nil {
			p.fail(err)
			return false
		}
	}
	s.sent <- pub
	return true
}

// recover begins a new session and publishes what is pending once more, in its
// order. The first goes alone, so that what is behind one that nobody takes is
// not repeated with every attempt. It tries until ctx ends, and returns an error
// that is final.
func (p *Publisher) recover(ctx context.Context) error {
	p.endSession()
	for {
		p.mu.Lock()
		p.leaveOutTooLarge()
		faults, left, dead := p.faults, len(p.pending), p.dead
		p.mu.Unlock()
		if left == 0 && dead != nil {
			return dead
		}
		if faults > 0 {
			pause(ctx, min(longestRecovery, 10*time.Millisecond<<min(faults, 10)))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c, err := p.probe(ctx)
		if err == nil {
			p.begin(c)
			return nil
		}
		if errors.Is(err, sinks.ErrCommandsClosed) {
			return err
		}
		if final := p.final(err); final != nil {
			return final
		}
		p.mu.Lock()
		p.fault = err
		p.faults++
		p.mu.Unlock()
		p.opts.Logger.WarnContext(ctx, "events wait for RabbitMQ", "server", p.connector.Server(), "error", err)
	}
}

// final returns what an error of the server is called that does not pass by itself, nil for
// others.
func (p *Publisher) final(err error) error {
	var reason string
	switch code(err) {
	case amqp.NotFound:
		reason = "it is gone: somebody has deleted it, and with it the bindings of its queues; start again to make a new one, and bind the queues to it"
	case amqp.AccessRefused:
		reason = "this user may not publish to it any more; give it the permission write on it, or correct its topic permissions"
	case amqp.NotAllowed, amqp.NotImplemented, amqp.CommandInvalid:
		reason = "the server does not take what is published to it"
	case amqp.PreconditionFailed:
		if sizeLimit(err) > 0 {
			return nil
		}
		reason = "the server does not take what is published to it"
	default:
		return nil
	}
	return &sinks.PlaceError{Place: "exchange " + p.opts.Exchange, Reason: reason, Err: err}
}

// probe publishes the first of what is pending and returns the channel that it
// went over.
func (p *Publisher) probe(ctx context.Context) (*confirmChannel, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.connector.opts.Timeout+p.opts.ConfirmTimeout, errNoConfirm)
	defer cancel()
	p.mu.Lock()
	var first *publication
	if len(p.pending) > 0 {
		first = p.pending[0]
	}
	p.mu.Unlock()
	if first != nil {
		if first.message.Headers != nil {
			if err := p.out.one(ctx, first.outgoing); err != nil {
				return nil, err
			}
		}
		p.confirmed(first)
	}
	return p.out.channel(ctx)
}

// leaveOutTooLarge looks whether the last fault was a message that never will be
// taken, and leaves it out with all behind it. What is before it is still
// published. It needs mu.
func (p *Publisher) leaveOutTooLarge() {
	limit := sizeLimit(p.fault)
	if limit == 0 {
		return
	}
	for i, pub := range p.pending {
		if size := int64(len(pub.message.Body)); size > limit {
			p.dead = &MessageTooLargeError{ID: pub.message.MessageId, Size: size, Limit: limit}
			for _, out := range p.pending[i:] {
				p.bytes -= out.size
			}
			p.pending = p.pending[:i]
			return
		}
	}
}

// begin starts a session with all that is pending.
func (p *Publisher) begin(c *confirmChannel) {
	s := &publishing{channel: c, sent: make(chan *publication, p.opts.MaxPending), end: make(chan struct{}), done: make(chan struct{})}
	p.mu.Lock()
	p.session, p.fault = s, nil
	again := append([]*publication(nil), p.pending...)
	p.mu.Unlock()
	for _, pub := range again {
		if !p.publish(s, pub) {
			break // what is behind it must not come before it
		}
	}
	p.wg.Go(func() {
		defer close(s.done)
		p.watch(s)
	})
}

// endSession waits for the watcher, so that nothing is confirmed in between, and
// for the channel's end: what the server still has to read from it would come
// behind what the next one brings.
func (p *Publisher) endSession() {
	s := p.session
	if s == nil {
		return
	}
	p.session = nil
	close(s.end)
	<-s.done
	p.out.drop(s.channel)
}

// watch takes confirmations in the order of the publications.
func (p *Publisher) watch(s *publishing) {
	timer := time.NewTimer(p.opts.ConfirmTimeout)
	defer timer.Stop()
	for {
		var pub *publication
		select {
		case <-s.end:
			return
		case <-s.channel.ended:
			p.fail(s.channel.reason)
			return
		case pub = <-s.sent:
		}
		if pub.wait == nil {
			p.confirmed(pub)
			continue
		}
		timer.Reset(p.opts.ConfirmTimeout)
		var err error
		select {
		case <-s.end:
			return
		case <-pub.wait.Done():
			err = s.outcome(pub)
		case <-timer.C:
			err = errNoConfirm
		}
		if err != nil {
			p.fail(err)
			return
		}
		p.confirmed(pub)
	}
}

// outcome returns what became of a publication that was answered, or lost with
// its channel.
func (s *publishing) outcome(pub *publication) error {
	switch {
	case !pub.wait.Acked() && s.channel.ch.IsClosed():
		<-s.channel.ended
		return s.channel.reason
	case !pub.wait.Acked():
		return errRefused
	case pub.mandatory:
		if s.channel.note(); s.channel.cameBack(&pub.outgoing) {
			return errUnroutable
		}
	}
	return nil
}

// confirmed takes the first of what is pending off. Nothing else is confirmed
// before it.
func (p *Publisher) confirmed(pub *publication) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) == 0 || p.pending[0] != pub {
		return
	}
	p.pending[0] = nil
	p.pending = p.pending[1:]
	p.bytes -= pub.size
	p.faults = 0
	if pub.ends && p.stored.Compare(pub.at) < 0 {
		p.stored = pub.at
	}
	p.tell()
}

// fail says that a session is of no use any more. Who waits, recovers.
func (p *Publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != nil {
		return
	}
	p.fault = err
	p.faults++
	p.opts.Logger.Warn("events are sent to RabbitMQ again", "server", p.connector.Server(), "pending", len(p.pending), "error", err)
	p.tell()
	select {
	case p.stalled <- struct{}{}:
	default:
	}
}

// tell needs mu.
func (p *Publisher) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Flush returns nil when everything taken is confirmed, and sends again what
// has to be until ctx ends.
func (p *Publisher) Flush(ctx context.Context) error {
	if err := p.ready(); err != nil {
		return err
	}
	for {
		p.mu.Lock()
		changed, fault, left, dead := p.changed, p.fault, len(p.pending), p.dead
		p.mu.Unlock()
		switch {
		case left == 0:
			return dead
		case fault != nil || p.session == nil:
			if err := p.recover(ctx); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
