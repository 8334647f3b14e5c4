package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// DefaultExchange is the topic exchange that events are published to.
	DefaultExchange = "rowcall"
	// DefaultMaxPending is how many events may be on their way.
	DefaultMaxPending = 4096
	// DefaultMaxPendingBytes is how large they may be together.
	DefaultMaxPendingBytes = 8 << 20

	longestRecovery = time.Second
)

// PublisherOptions set up a [Publisher]. Nil and zero mean the defaults.
type PublisherOptions struct {
	// Exchange is the topic exchange. It is created, durable, if it does not
	// exist; set an alternate exchange with a policy of the server's. Default
	// [DefaultExchange].
	Exchange string
	// Partitions is what the last token of an address counts, between 1 and
	// [sinks.MaxPartitions]. Default [sinks.DefaultPartitions].
	Partitions int
	// Mandatory has the publisher wait until some queue takes an event, and try
	// again. Otherwise the server drops what no queue is bound for, as a topic
	// exchange does.
	Mandatory bool
	// MaxPending and MaxPendingBytes bound what is not confirmed yet; OnBatch
	// blocks above it. Defaults [DefaultMaxPending], [DefaultMaxPendingBytes].
	MaxPending      int
	MaxPendingBytes int
	// ConfirmTimeout is how long the server may take to confirm an event
	// before it is sent again. Default 5s.
	ConfirmTimeout time.Duration
	// Logger gets a line for each fault. Default: none.
	Logger *slog.Logger
}

// A Publisher publishes events to a topic exchange, as CloudEvents, with their
// address as routing key: queues that are bound to it, by
// "cdc.shop.public.seats.#" say, get them. It is a [listeners.Durable]: its
// subscription calls OnBatch and Flush, on one goroutine; Stored and Stalled
// may be called from anywhere.
//
// RabbitMQ keeps no history and compares no ids: events are delivered at least
// once, in their order on one channel. After a crash of this program the source
// sends again what was not confirmed; after a fault of the server the publisher
// does, everything from the first event without a confirmation on. A reader
// recognises what it has by the id. What a queue has refused (it is full) may
// come behind later events, which then come again, too.
type Publisher struct {
	connector *Connector
	opts      PublisherOptions
	encoder   *sinks.Encoder
	out       *confirmer // makes the channels
	stalled   chan struct{}
	wg        sync.WaitGroup

	// Of the subscription's goroutine.
	session *publishing
	opened  bool

	mu      sync.Mutex
	pending []*publication // in order, what is not confirmed
	bytes   int
	stored  listeners.Position
	fault   error         // why the session is of no use any more
	faults  int           // since the last confirmation
	dead    error         // what ends the subscription once nothing is pending
	changed chan struct{} // closed when something above changes
	closed  bool
}

var _ listeners.Durable = (*Publisher)(nil)

// A publication is a message that is on its way, or the end of a batch without
// one.
type publication struct {
	outgoing
	size int
	// at is where a batch ends with this, zero within one.
	at   listeners.Position
	ends bool
	wait *amqp.DeferredConfirmation // nil without a message
}

// publishing is one channel's life.
type publishing struct {
	channel *confirmChannel
	sent    chan *publication
	end     chan struct{} // closed to end the watcher
	done    chan struct{} // closed by it
}

// A MessageTooLargeError names an event that the server does not take. It ends
// the subscription, and the source keeps the event.
type MessageTooLargeError struct {
	ID    string
	Size  int64 // of the body in bytes
	Limit int64
}

// Error implements error.
func (e *MessageTooLargeError) Error() string {
	return fmt.Sprintf("event %s has %d bytes, more than the %d that RabbitMQ takes; raise max_message_size there, or leave the table out", e.ID, e.Size, e.Limit)
}

// NewPublisher starts nothing and talks to nobody; [Publisher.Open] does. The
// connector stays the caller's, who closes it last.
func NewPublisher(c *Connector, opts *PublisherOptions) (*Publisher, error) {
	var o PublisherOptions
	if opts != nil {
		o = *opts
	}
	setDefault(&o.Exchange, DefaultExchange)
	setDefault(&o.Partitions, sinks.DefaultPartitions)
	setDefault(&o.MaxPending, DefaultMaxPending)
	setDefault(&o.MaxPendingBytes, DefaultMaxPendingBytes)
	setDefault(&o.ConfirmTimeout, defaultTimeout)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var faults []error
	if c == nil {
		faults = append(faults, errors.New("no connector"))
	}
	if o.Partitions < 1 || o.Partitions > sinks.MaxPartitions {
		faults = append(faults, fmt.Errorf("the partitions must be between 1 and %d", sinks.MaxPartitions))
	}
	if o.MaxPending < 1 || o.MaxPendingBytes < 1 || o.ConfirmTimeout < 0 {
		faults = append(faults, errors.New("MaxPending, MaxPendingBytes and ConfirmTimeout must not be negative"))
	}
	if len(o.Exchange) > maxShort {
		faults = append(faults, fmt.Errorf("the exchange's name has more than %d bytes", maxShort))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("events on RabbitMQ: %w", err)
	}
	return &Publisher{
		connector: c, opts: o, encoder: sinks.NewEncoder(o.Partitions), out: newConfirmer(c, o.ConfirmTimeout),
		stalled: make(chan struct{}, 1), changed: make(chan struct{}),
	}, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Open connects and makes the exchange, or checks the one that is there. It
// tries once, and returns an [UnreachableError] for what may pass, otherwise
// what the server says.
func (p *Publisher) Open(ctx context.Context) error {
	if p.opened {
		return errors.New("events on RabbitMQ: the publisher is open already")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*p.connector.opts.Timeout, fmt.Errorf("no answer from the server within %s: %w", 2*p.connector.opts.Timeout, context.DeadlineExceeded))
	defer cancel()
	err := p.connector.withChannel(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(p.opts.Exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	switch _, unreachable := errors.AsType[*UnreachableError](err); {
	case unreachable:
		return err
	case code(err) == amqp.PreconditionFailed:
		return fmt.Errorf("exchange %s is not a durable topic exchange; delete it, or use another: %w", p.opts.Exchange, err)
	case code(err) == amqp.AccessRefused:
		return fmt.Errorf("this user may not declare the exchange %s; give it the permissions configure and write on it: %w", p.opts.Exchange, err)
	case code(err) == amqp.NotAllowed, errors.Is(err, sinks.ErrCommandsClosed):
		return fmt.Errorf("exchange %s: %w", p.opts.Exchange, err)
	case err != nil:
		return &UnreachableError{Server: p.connector.Server(), Err: fmt.Errorf("exchange %s: %w", p.opts.Exchange, err)}
	}
	p.opened = true
	return nil
}

// Exchange returns the exchange's name.
func (p *Publisher) Exchange() string { return p.opts.Exchange }

// Close ends what was started and waits for it. It waits for no confirmation:
// Flush does. It may be called any number of times, but not during OnBatch or
// Flush.
func (p *Publisher) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.endSession()
	p.wg.Wait()
}

// Stored returns the position up to which everything is confirmed.
func (p *Publisher) Stored() listeners.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored
}

// Stalled implements [listeners.Durable].
func (p *Publisher) Stalled() <-chan struct{} { return p.stalled }

// OnBatch returns when the batch is on its way. It blocks while too much is,
// for as long as the server is away. An error is final, unless ctx ended: a
// [sinks.PlaceError] if the exchange is gone or may not be written to any more.
func (p *Publisher) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if err := p.ready(); err != nil {
		return err
	}
	n := sinks.Len(b)
	for i := range n {
		pub, err := p.publication(p.encoder.Encode(b, i))
		if err != nil {
			return err
		}
		if i == n-1 {
			pub.at, pub.ends = b.Position, true
		}
		if err := p.send(ctx, pub); err != nil {
			return err
		}
	}
	if n == 0 {
		return p.send(ctx, &publication{at: b.Position, ends: true})
	}
	return nil
}

func (p *Publisher) ready() error {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed || !p.opened {
		return errors.New("events on RabbitMQ: the publisher is not open")
	}
	return nil
}

// publication makes a message of a frame, by the CloudEvents AMQP binding.
func (p *Publisher) publication(f *sinks.Frame) (*publication, error) {
	if len(f.Address) > maxShort {
		return nil, fmt.Errorf("event %s: the routing key %s has more than %d bytes, which AMQP does not allow; leave the table out", f.ID, f.Address, maxShort)
	}
	h := amqp.Table{attributePrefix + "specversion": sinks.SpecVersion}
	for name, value := range map[string]string{
		"id": f.ID, "source": f.Source, "type": f.Type, "subject": f.Subject, "partitionkey": f.Subject,
		"time": f.Time, "sequence": f.Sequence, "txid": f.TxID, "cause": f.Cause,
	} {
		if value != "" {
			h[attributePrefix+name] = value
		}
	}
	if f.TxEnd {
		h[attributePrefix+"txend"] = "true"
	}
	m := amqp.Publishing{Headers: h, Body: slices.Clone(f.Body), ContentType: "application/json", DeliveryMode: amqp.Persistent, Type: f.Type}
	if len(f.ID) <= maxShort {
		m.MessageId = f.ID
	}
	if size := headerSize(&m); size > maxHeader {
		return nil, fmt.Errorf("event %s: its key has too many bytes for the headers of a message (%d, at most %d); leave the table out", f.ID, size, maxHeader)
	}
	return &publication{
		outgoing: outgoing{exchange: p.opts.Exchange, key: f.Address, mandatory: p.opts.Mandatory, message: m},
		size:     len(m.Body) + headerSize(&m),
	}, nil
}
