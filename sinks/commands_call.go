package sinks

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"
)

// A Reply is what a handler answered.
type Reply struct {
	Body []byte // nil if the handler gave none
}

// calls are the calls that wait for a reply.
type calls struct {
	starting sync.Mutex // held while the broker is asked for an address
	address  string

	mu      sync.Mutex
	closed  bool
	waiting map[string]chan CommandReply
}

// Call sends a command and waits until it was carried out, through all its
// attempts, and returns the handler's reply. It waits until ctx's deadline, or
// CallTimeout if it has none, and then returns a [CallTimeoutError]: what became
// of the command is unknown then, but no worker begins it any more (with clocks
// that agree). To know, call again with the same ID: with an [Inbox] the reply comes from
// memory. A command that became a dead letter is a [CommandFailedError].
func (c *Commands) Call(ctx context.Context, cmd Command) (Reply, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(c.call)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline, fmt.Errorf("no reply within %s: %w", c.call, context.DeadlineExceeded))
		defer cancel()
	}
	e, err := c.envelope(&cmd)
	if err != nil {
		return Reply{}, err
	}
	if e.Expires.IsZero() || deadline.Before(e.Expires) {
		e.Expires = deadline
	}
	if e.ReplyTo, err = c.calls.start(ctx, c.broker); err != nil {
		return Reply{}, fmt.Errorf("command %s for queue %s: replies: %w", e.Name, e.Queue, causeOr(ctx, err))
	}
	// A second call with the same ID is a sending of its own, since its reply
	// goes elsewhere.
	e.Call = rand.Text()
	e.Dedupe = e.ID + " " + e.Call
	replies, err := c.calls.wait(e.Call)
	if err != nil {
		return Reply{}, err
	}
	defer c.calls.forget(e.Call)
	if err := c.publish(ctx, []CommandEnvelope{e}); err != nil {
		return Reply{}, err
	}
	select {
	case <-ctx.Done():
		return Reply{}, &CallTimeoutError{Queue: e.Queue, Name: e.Name, ID: e.ID, Expires: e.Expires, Err: context.Cause(ctx)}
	case r, open := <-replies:
		switch {
		case !open:
			return Reply{}, ErrCommandsClosed
		case r.Failed != "":
			return Reply{}, &CommandFailedError{Queue: e.Queue, Name: e.Name, ID: e.ID, Reason: r.Failed, Attempts: r.Attempts, Text: r.Error}
		}
		return Reply{Body: r.Body}, nil
	}
}

// start returns the address of replies; the first call asks the broker.
func (w *calls) start(ctx context.Context, b CommandBroker) (string, error) {
	w.starting.Lock()
	defer w.starting.Unlock()
	if w.address != "" {
		return w.address, nil
	}
	address, err := b.Replies(ctx, w.receive)
	if err == nil {
		w.address = address
	}
	return address, err
}

// receive hands on a reply. One that nobody waits for any more is dropped, a
// second one too.
func (w *calls) receive(r CommandReply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch, ok := w.waiting[r.Call]; ok {
		select {
		case ch <- r:
		default:
		}
	}
}

func (w *calls) wait(call string) (<-chan CommandReply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrCommandsClosed
	}
	if w.waiting == nil {
		w.waiting = make(map[string]chan CommandReply)
	}
	ch := make(chan CommandReply, 1)
	w.waiting[call] = ch
	return ch, nil
}

func (w *calls) forget(call string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, call)
}

func (w *calls) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for call, ch := range w.waiting {
		close(ch)
		delete(w.waiting, call)
	}
}
