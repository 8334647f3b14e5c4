package sinks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// DefaultSendTimeout bounds a Send whose context has no deadline.
	DefaultSendTimeout = 30 * time.Second
	// DefaultCallTimeout bounds a Call whose context has no deadline.
	DefaultCallTimeout = 30 * time.Second

	firstSendPause = 20 * time.Millisecond
	longestPause   = 2 * time.Second
	// sendChunk bounds what is handed to a broker at once.
	sendChunk = 1000
)

// CommandsOptions set up [Commands]. Nil and zero mean the defaults.
type CommandsOptions struct {
	// Owner is the name of this service: the queues that it serves belong to
	// it, and the commands that it sends name it as their sender. Default: as
	// the owner of a queue, the queue's name; as a sender, the program's.
	Owner string
	// SendTimeout bounds how long Send, SendAll, SendAt and those that put dead
	// letters back try, besides their context. Default [DefaultSendTimeout].
	SendTimeout time.Duration
	// CallTimeout is how long Call waits if its context has no deadline.
	// Default [DefaultCallTimeout].
	CallTimeout time.Duration
	// Logger gets a warning when an attempt fails, an error for a dead letter.
	// It never sees a command's body. Default: none.
	Logger *slog.Logger
}

// Commands sends and serves commands over a broker. Its methods may be called
// concurrently.
//
// A command that Send has returned nil for is stored. It is delivered until a
// worker has carried it out and the broker has confirmed that, or until it is a
// dead letter: at least once, and with an [Inbox] once in effect. Commands of a
// queue have no order.
type Commands struct {
	broker   CommandBroker
	owner    string
	sender   string
	worker   string
	send     time.Duration
	call     time.Duration
	log      *slog.Logger
	counters commandCounters
	calls    calls

	mu     sync.Mutex
	opened map[string]bool
}

// NewCommands returns who sends and serves commands over a broker. It starts nothing
// and talks to nobody. The error names every option that is wrong. Whoever calls it closes the result, and then the
// broker's connection.
func NewCommands(b CommandBroker, opts *CommandsOptions) (*Commands, error) {
	var o CommandsOptions
	if opts != nil {
		o = *opts
	}
	setDefault(&o.SendTimeout, DefaultSendTimeout)
	setDefault(&o.CallTimeout, DefaultCallTimeout)
	setDefault(&o.Logger, slog.New(slog.DiscardHandler))
	var faults []error
	if b == nil {
		faults = append(faults, errors.New("no broker"))
	}
	if o.SendTimeout < 0 || o.CallTimeout < 0 {
		faults = append(faults, fmt.Errorf("SendTimeout %s and CallTimeout %s must not be negative", o.SendTimeout, o.CallTimeout))
	}
	if !visible(o.Owner) || len(o.Owner) > MaxCommandID {
		faults = append(faults, fmt.Errorf("the owner %q is not visible ASCII of at most %d bytes", o.Owner, MaxCommandID))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("sinks: commands: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	c := &Commands{
		broker: b, owner: o.Owner, sender: o.Owner, send: o.SendTimeout, call: o.CallTimeout, log: o.Logger,
		worker: fmt.Sprintf("%s/%d", host, os.Getpid()),
		opened: make(map[string]bool),
	}
	if c.sender == "" {
		c.sender = filepath.Base(os.Args[0])
	}
	return c, nil
}

// Open makes the queues if they are missing, or checks them: what is
// misconfigured is a [QueueError] here and not later. Send and Serve open their queue
// themselves the first time.
func (c *Commands) Open(ctx context.Context, queues ...string) error {
	for _, queue := range queues {
		if err := c.open(ctx, queue); err != nil {
			return err
		}
	}
	return nil
}

func (c *Commands) open(ctx context.Context, queue string) error {
	if err := ValidQueue(queue); err != nil {
		return &QueueError{Queue: queue, Reason: err.Error()}
	}
	c.mu.Lock()
	opened := c.opened[queue]
	c.mu.Unlock()
	if opened {
		return nil
	}
	if err := c.broker.OpenQueue(ctx, queue); err != nil {
		return err
	}
	c.mu.Lock()
	c.opened[queue] = true
	c.mu.Unlock()
	return nil
}

// Send stores a command and returns nil when the broker has confirmed it. It
// tries again as long as ctx and SendTimeout allow, while the broker is away and while the queue
// is full, and then returns a [SendError]. What can never be stored is an
// [InvalidCommandError], a [CommandTooLargeError] or a [QueueError] at once. A
// command with an ID that was sent before is stored once, for as long as the
// broker remembers (JetStream: two minutes); after that an [Inbox] recognises
// it.
func (c *Commands) Send(ctx context.Context, cmd Command) error {
	return c.SendAll(ctx, []Command{cmd})
}

// SendAll is Send for several commands, faster than one at a time. An error
// names the first that is not confirmed; others may be stored, and sending all again
// with the same IDs is right.
func (c *Commands) SendAll(ctx context.Context, cmds []Command) error {
	return c.within(ctx, func(ctx context.Context) error { return c.sendAll(ctx, cmds, time.Time{}) })
}

// SendAt is Send for a command that is delivered at a time, at the earliest. It
// is stored right away. How late it may be depends on the broker: docs/commands.md.
func (c *Commands) SendAt(ctx context.Context, cmd Command, at time.Time) error {
	return c.within(ctx, func(ctx context.Context) error { return c.sendAll(ctx, []Command{cmd}, at) })
}

func (c *Commands) within(ctx context.Context, send func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.send, fmt.Errorf("no confirmation within %s: %w", c.send, context.DeadlineExceeded))
	defer cancel()
	return send(ctx)
}

func (c *Commands) sendAll(ctx context.Context, cmds []Command, at time.Time) error {
	byQueue := make(map[string][]CommandEnvelope)
	var queues []string // in the order of their first command
	for i := range cmds {
		e, err := c.envelope(&cmds[i])
		if err != nil {
			return err
		}
		e.At = at
		if _, known := byQueue[e.Queue]; !known {
			queues = append(queues, e.Queue)
		}
		byQueue[e.Queue] = append(byQueue[e.Queue], e)
	}
	for _, queue := range queues {
		envelopes := byQueue[queue]
		for len(envelopes) > 0 {
			n := min(len(envelopes), sendChunk)
			if err := c.publish(ctx, envelopes[:n]); err != nil {
				return err
			}
			envelopes = envelopes[n:]
		}
	}
	return nil
}

func (c *Commands) envelope(cmd *Command) (CommandEnvelope, error) {
	if err := cmd.Validate(); err != nil {
		return CommandEnvelope{}, err
	}
	e := CommandEnvelope{Command: *cmd, Sender: c.sender, Sent: time.Now()}
	if e.ID == "" {
		e.ID = rand.Text()
	}
	e.Dedupe = e.ID
	return e, nil
}

// publish stores envelopes of one queue, trying again until ctx ends.
func (c *Commands) publish(ctx context.Context, envelopes []CommandEnvelope) error {
	rest := envelopes
	for try := 1; ; try++ {
		var err error
		rest, err = c.publishOnce(ctx, rest)
		if err == nil {
			return nil
		}
		first := &rest[0]
		if final(err) {
			return err
		}
		if waitErr := pause(ctx, backoff(firstSendPause, longestPause, try)); waitErr != nil {
			if !errors.Is(err, ErrQueueFull) && !errors.Is(err, context.Cause(ctx)) {
				err = fmt.Errorf("%w (last: %w)", waitErr, err)
			}
			return &SendError{Queue: first.Queue, Name: first.Name, ID: first.ID, Tries: try, Err: err}
		}
		c.counters.sendRetries.Add(uint64(len(rest)))
	}
}

// publishOnce returns what is not stored, a final error's envelope first.
func (c *Commands) publishOnce(ctx context.Context, envelopes []CommandEnvelope) ([]CommandEnvelope, error) {
	if ctx.Err() != nil {
		return envelopes, context.Cause(ctx)
	}
	if err := c.open(ctx, envelopes[0].Queue); err != nil {
		return envelopes, causeOr(ctx, err)
	}
	errs := c.broker.Publish(ctx, envelopes)
	if errs == nil {
		c.counters.sent.Add(uint64(len(envelopes)))
		return nil, nil
	}
	var rest []CommandEnvelope
	var reason error
	for i, err := range errs {
		switch {
		case err == nil:
			c.counters.sent.Add(1)
			continue
		case final(err):
			return []CommandEnvelope{envelopes[i]}, err
		}
		if rest = append(rest, envelopes[i]); reason == nil {
			reason = err
		}
	}
	return rest, reason
}

// pause waits, or returns the cause of ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Close ends waiting calls and closes the broker. Calls of Serve are to be
// ended first, through their contexts.
func (c *Commands) Close() {
	c.calls.close()
	c.broker.Close()
}
