package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

const (
	// deliveryLimit is how often the server delivers a message without hearing
	// of its end before it gives it up, as a net under workers that die before they
	// can bury it. Every attempt stores the message anew and begins it at 0. Without
	// it servers from 4.0 on take 20, and older ones none.
	deliveryLimit = 1000
	// endless is a limit for messages that are only looked at.
	endless = 1_000_000_000
	// maxLooks is how often a message is put back until it is stored anew: a
	// policy's limit goes before a queue's if it is lower, and the usual one is 20.
	maxLooks = 8
	// consumerTimeout is how long a delivery may go without an end for servers
	// from 3.12 on, which take it from the queue. Older ones have it in their
	// configuration only.
	consumerTimeout = 24 * time.Hour
	// replyExpiry removes a queue for replies whose reader is gone for good.
	replyExpiry = 10 * time.Minute
)

// CommandOptions set up a [CommandBroker]. Nil and zero mean the defaults.
type CommandOptions struct {
	// Prefix begins the name of everything at the server, for several
	// installations in one vhost. Default: none.
	Prefix string
	// MaxMessages and MaxBytes bound a queue when it is created: what does not
	// fit is refused ([sinks.ErrQueueFull]), nothing is dropped. They count what
	// waits, not what is with a worker, and are about right: what is on its way
	// while a queue fills is still taken. Default: no bound.
	MaxMessages int64
	MaxBytes    int64
	// Replicas is the number of servers of a cluster that store a queue and
	// its dead letters when they are created. Default: the server's, 3.
	Replicas int
	// MustExist makes a queue that does not exist an error instead of creating
	// it, for users who may not create queues. Those that commands wait in
	// (see the package comment) are then to be there, too.
	MustExist bool
	// ConfirmTimeout is how long the server may take to confirm a command, and
	// to answer any other request. Default 5s.
	ConfirmTimeout time.Duration
	// Logger gets a line for what happens between commands. Default: none.
	Logger *slog.Logger
}

// A CommandBroker keeps commands in RabbitMQ; [sinks.NewCommands] makes
// something to use of it.
type CommandBroker struct {
	connector *Connector
	opts      CommandOptions
	out       *confirmer
	// limit is the size in bytes that the server allows a body, once it has said so.
	limit atomic.Int64

	wg sync.WaitGroup // of the receiver of replies

	mu     sync.Mutex
	closed bool
	stop   context.CancelFunc // ends the receiver of replies, if there is one
	// consumers are those that are not closed.
	consumers map[*commandConsumer]bool
}

var (
	_ sinks.CommandBroker = (*CommandBroker)(nil)
	_ sinks.DeadSweeper   = (*CommandBroker)(nil)
)

// NewCommandBroker starts nothing. The connector stays the caller's, who closes
// it last.
func NewCommandBroker(c *Connector, opts *CommandOptions) (*CommandBroker, error) {
	var o CommandOptions
	if opts != nil {
		o = *opts
	}
	if o.ConfirmTimeout == 0 {
		o.ConfirmTimeout = defaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var faults []error
	if c == nil {
		faults = append(faults, errors.New("no connector"))
	}
	if o.MaxMessages < 0 || o.MaxBytes < 0 || o.ConfirmTimeout < 0 || o.Replicas < 0 {
		faults = append(faults, errors.New("MaxMessages, MaxBytes, Replicas and ConfirmTimeout must not be negative"))
	}
	if len(o.Prefix) > 64 || strings.HasPrefix(o.Prefix, "amq.") {
		faults = append(faults, fmt.Errorf("the prefix %q has more than 64 bytes, or begins with \"amq.\", which is the server's", o.Prefix))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("commands on RabbitMQ: %w", err)
	}
	return &CommandBroker{connector: c, opts: o, out: newConfirmer(c, o.ConfirmTimeout), consumers: make(map[*commandConsumer]bool)}, nil
}

// Queue returns the name of the queue that holds a queue's commands.
func (b *CommandBroker) Queue(queue string) string { return b.opts.Prefix + "cmd." + queue }

// DeadQueue returns the name of the queue that holds a queue's dead letters.
func (b *CommandBroker) DeadQueue(queue string) string { return b.opts.Prefix + "dlq." + queue }

// Reply implements [sinks.CommandBroker]. The address is the name of a queue.
func (b *CommandBroker) Reply(ctx context.Context, address string, r sinks.CommandReply) error {
	if err := b.open(); err != nil {
		return err
	}
	m := putReply(&r)
	m.Expiration = fmt.Sprint(replyExpiry.Milliseconds())
	return b.out.one(ctx, outgoing{key: address, message: m})
}

// Replies implements [sinks.CommandBroker]: a queue that outlives a lost
// connection, and is gone ten minutes after its reader.
func (b *CommandBroker) Replies(ctx context.Context, receive func(sinks.CommandReply)) (string, error) {
	address := b.opts.Prefix + "rowcall.reply." + rand.Text()
	opening, cancel := b.bounded(ctx)
	defer cancel()
	ch, replies, err := b.consumeReplies(opening, address)
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		ch.Close()
		return "", sinks.ErrCommandsClosed
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	b.wg.Go(func() { b.receiveReplies(running, address, ch, replies, receive) })
	return address, nil
}

func (b *CommandBroker) consumeReplies(ctx context.Context, address string) (*amqp.Channel, <-chan amqp.Delivery, error) {
	ch, err := b.connector.channel(ctx, &b.connector.other)
	if err != nil {
		return nil, nil, err
	}
	var replies <-chan amqp.Delivery
	err = b.connector.setUp(ctx, ch, func() (err error) {
		if _, err = ch.QueueDeclare(address, true, false, false, false, amqp.Table{"x-expires": replyExpiry.Milliseconds()}); err != nil {
			return err
		}
		replies, err = ch.Consume(address, "", true, true, false, false, nil)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("queue %s: %w", address, err)
	}
	return ch, replies, nil
}

// receiveReplies goes on over lost connections until the broker is closed.
func (b *CommandBroker) receiveReplies(running context.Context, address string, ch *amqp.Channel, replies <-chan amqp.Delivery, receive func(sinks.CommandReply)) {
	for failures := 0; ; {
		select {
		case <-running.Done():
			if ch != nil {
				// The queue goes with the channel's end, which needs the server.
				ctx, cancel := b.bounded(context.WithoutCancel(running))
				defer cancel()
				_ = b.connector.await(ctx, func() error {
					_, err := ch.QueueDelete(address, false, false, false)
					ch.Close()
					return err
				})
			}
			return
		case m, ok := <-replies:
			if ok {
				failures = 0
				receive(getReply(&m))
				continue
			}
		}
		if ch != nil { // the server may have ended the consumer alone
			dropped := ch
			b.connector.wg.Go(func() { dropped.Close() })
		}
		ctx, cancel := b.bounded(running)
		var err error
		ch, replies, err = b.consumeReplies(ctx, address)
		cancel()
		if err != nil {
			failures++
			b.opts.Logger.DebugContext(running, "replies cannot be received", "queue", address, "error", err)
			replies = closedReplies()
			pause(running, min(time.Second, time.Duration(failures)*20*time.Millisecond))
		}
	}
}

// closedReplies makes the next round try again.
func closedReplies() <-chan amqp.Delivery {
	ch := make(chan amqp.Delivery)
	close(ch)
	return ch
}

// pause waits, or not as long if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Close implements [sinks.CommandBroker].
func (b *CommandBroker) Close() {
	b.mu.Lock()
	b.closed = true
	stop := b.stop
	b.mu.Unlock()
	if stop != nil {
		stop()
	}
	b.wg.Wait()
	b.out.close()
}

func (b *CommandBroker) open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return sinks.ErrCommandsClosed
	}
	return nil
}

// bounded is the context of one request.
func (b *CommandBroker) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.opts.ConfirmTimeout, fmt.Errorf("no answer from the server within %s: %w", b.opts.ConfirmTimeout, context.DeadlineExceeded))
}
