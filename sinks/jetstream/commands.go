package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

const (
	// DefaultDuplicates is how long a queue's stream remembers ids.
	DefaultDuplicates = 2 * time.Minute
	// deadDuplicates is long, since dead letters are few: one that is buried
	// again after a crash is one.
	deadDuplicates = 24 * time.Hour
	// maxAckPending bounds what runs or waits for another attempt. What waits
	// counts, so the server's default of 1,000 would stop a queue in which that many fail.
	maxAckPending = 100_000
	// defaultCommandAckTimeout is how long the server may be silent.
	defaultCommandAckTimeout = 5 * time.Second
)

// CommandOptions set up a [CommandBroker]. Nil and zero mean the defaults.
type CommandOptions struct {
	// Replicas is the number of servers that store a queue and its dead
	// letters when they are created. Default 1.
	Replicas int
	// Duplicates is how long the server remembers the ids of commands when the
	// queue is created: within it a command sent again is stored once. It costs
	// the server some 200 bytes a command. Default [DefaultDuplicates].
	Duplicates time.Duration
	// MaxMessages and MaxBytes bound a queue when it is created: what does not
	// fit is refused ([sinks.ErrQueueFull]), nothing is dropped. A bounded queue
	// cannot use the server's schedules, see the package comment. Default: no
	// bound but the server's.
	MaxMessages int64
	MaxBytes    int64
	// MustExist makes a queue that does not exist an error instead of creating
	// it, for users who may not create streams.
	MustExist bool
	// Domain and APIPrefix say where the queues are, as those of [Options]. What
	// is published has to get there under its own subject, and what is
	// acknowledged, too. Default: in the connection's account.
	Domain    string
	APIPrefix string
	// AckTimeout is how long the server may take to confirm a command, and to
	// answer any other request. Default 5s.
	AckTimeout time.Duration
	// Logger gets a line for each command that the safety net finds. Default:
	// none.
	Logger *slog.Logger
}

// A CommandBroker keeps commands in JetStream; [sinks.NewCommands] makes
// something to use of it.
type CommandBroker struct {
	nc   *nats.Conn
	js   natsjs.JetStream
	opts CommandOptions

	noAnswer error // the cause of bounded, made once

	mu      sync.Mutex
	closed  bool
	replies *nats.Subscription
	// scheduled has the queues whose stream takes schedules.
	scheduled map[string]bool
}

var _ sinks.CommandBroker = (*CommandBroker)(nil)

// NewCommandBroker returns a broker for [sinks.NewCommands], whose Close closes it. It
// starts nothing and talks to nobody. The connection stays the caller's, who
// closes it last; [Connect] makes one that suits. The error names every option that
// is wrong.
func NewCommandBroker(nc *nats.Conn, opts *CommandOptions) (*CommandBroker, error) {
	var o CommandOptions
	if opts != nil {
		o = *opts
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.Duplicates == 0 {
		o.Duplicates = DefaultDuplicates
	}
	if o.AckTimeout == 0 {
		o.AckTimeout = defaultCommandAckTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var faults []error
	if nc == nil {
		faults = append(faults, errors.New("no connection"))
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		faults = append(faults, errors.New("replicas must be between 1 and 5"))
	}
	if o.Duplicates < smallestDuplicates {
		faults = append(faults, fmt.Errorf("the duplicate window must be at least %s", smallestDuplicates))
	}
	if o.MaxMessages < 0 || o.MaxBytes < 0 || o.AckTimeout < 0 {
		faults = append(faults, errors.New("MaxMessages, MaxBytes and AckTimeout must not be negative"))
	}
	for _, fault := range wrongPlace(o.Domain, o.APIPrefix) {
		faults = append(faults, errors.New(fault))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("commands on JetStream: %w", err)
	}
	js, err := elsewhere(nc, o.Domain, o.APIPrefix, natsjs.WithPublishAsyncTimeout(o.AckTimeout), natsjs.WithPublishAsyncMaxPending(DefaultMaxPending))
	if err != nil {
		return nil, fmt.Errorf("commands on JetStream: %w", err)
	}
	return &CommandBroker{
		nc: nc, js: js, opts: o, scheduled: make(map[string]bool),
		noAnswer: fmt.Errorf("no answer from the server within %s: %w", o.AckTimeout, context.DeadlineExceeded),
	}, nil
}

// CommandStream returns the name of the stream that holds a queue: "CMD_" and
// the queue in upper case, "_" for "-".
func CommandStream(queue string) string { return "CMD_" + streamToken(queue) }

// DeadStream returns the name of the stream that holds a queue's dead letters.
func DeadStream(queue string) string { return "DLQ_" + streamToken(queue) }

func streamToken(queue string) string {
	return strings.ToUpper(strings.ReplaceAll(queue, "-", "_"))
}

// queueOf is the inverse of CommandStream.
func queueOf(stream string) (string, bool) {
	token, ok := strings.CutPrefix(stream, "CMD_")
	queue := strings.ToLower(strings.ReplaceAll(token, "_", "-"))
	return queue, ok && sinks.ValidQueue(queue) == nil && CommandStream(queue) == stream
}

// CommandSubject returns the subject of a command, such as "cmd.fleet.add-carriage".
func CommandSubject(queue, name string) string { return "cmd." + queue + "." + name }

// DeadSubject returns the subject of a queue's dead letters, such as "dlq.fleet".
func DeadSubject(queue string) string { return "dlq." + queue }

// delayPrefix begins the subjects that commands wait at for their time.
func delayPrefix(queue string) string { return "cmdat." + queue + "." }

// advisorySubject is where the server tells of messages that it gave up. Only
// the queue's own consumer can have any.
func advisorySubject(queue string) string {
	return "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + CommandStream(queue) + ".*"
}

// Reply implements [sinks.CommandBroker]: over core NATS, since only a caller
// that is connected waits for it.
func (b *CommandBroker) Reply(_ context.Context, address string, r sinks.CommandReply) error {
	if err := b.open(); err != nil {
		return err
	}
	m := nats.NewMsg(address)
	m.Data = r.Body
	putReply(m.Header, r)
	return b.nc.PublishMsg(m)
}

// Replies implements [sinks.CommandBroker].
func (b *CommandBroker) Replies(_ context.Context, receive func(sinks.CommandReply)) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return "", sinks.ErrCommandsClosed
	}
	inbox := b.nc.NewInbox()
	sub, err := b.nc.Subscribe(inbox, func(m *nats.Msg) { receive(getReply(m.Header, m.Data)) })
	if err != nil {
		return "", err
	}
	b.replies = sub
	return inbox, nil
}

// Close implements [sinks.CommandBroker].
func (b *CommandBroker) Close() {
	b.mu.Lock()
	sub := b.replies
	b.closed, b.replies = true, nil
	b.mu.Unlock()
	if sub == nil {
		return
	}
	// A callback may be running. It does not block.
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	if sub.Unsubscribe() == nil {
		<-ended
	}
}

func (b *CommandBroker) open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return sinks.ErrCommandsClosed
	}
	if b.nc.IsClosed() {
		return b.closedFor(nats.ErrConnectionClosed)
	}
	return nil
}

// closedFor says that no other try will do when the connection is closed: it
// does not come back. The client closes it itself when its user is refused twice.
func (b *CommandBroker) closedFor(err error) error {
	if !errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	if last := b.nc.LastError(); errors.Is(last, nats.ErrAuthorization) || errors.Is(last, nats.ErrAuthExpired) ||
		errors.Is(last, nats.ErrAuthRevoked) || errors.Is(last, nats.ErrAccountAuthExpired) {
		return fmt.Errorf("%w: %w: %w", sinks.ErrCommandsClosed, err, last)
	}
	return fmt.Errorf("%w: %w", sinks.ErrCommandsClosed, err)
}

// bounded is the context of one request: an answer that is lost with its
// connection would otherwise be waited for until ctx ends.
func (b *CommandBroker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.opts.AckTimeout, b.noAnswer)
}
