package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// quietChecks is how many times a reader that is to end looks at a silent consumer
// before it makes another.
const quietChecks = 5

// A Message is an event as it stands in a stream.
type Message struct {
	sinks.Message
	Sequence uint64    // in the stream
	Subject  string    // the NATS subject
	Stored   time.Time // when the server stored it
	// Body is the JSON body. It belongs to the receiver.
	Body []byte
}

// ReadOptions say where a reader starts and ends. Nil and zero mean the
// defaults. At most one of Sequence, Time, After and New is used, the first of
// them in this order; by default a reader starts with the oldest message.
type ReadOptions struct {
	// Sequence is the first stream sequence wanted.
	Sequence uint64
	// Time is when the server had stored the first message wanted.
	Time time.Time
	// After is the position before the first one wanted. It is looked up by
	// bisection, so it costs some round trips at the start.
	After listeners.Position
	// New asks for messages that are stored from now on.
	New bool
	// FilterSubjects are the subjects wanted, with NATS wildcards. Servers before
	// 2.12 refuse two that overlap. Default: all of the stream.
	FilterSubjects []string
	// Follow waits for further messages at the end of the stream. Default:
	// the reader ends there.
	Follow bool
	// Domain and APIPrefix say where the stream is, as those of [Options].
	// Default: in the connection's account.
	Domain    string
	APIPrefix string
}

// Read yields the messages of a stream, in order and without a gap: a
// connection that is lost is made up for. It ends at the end of the stream
// (unless Follow is set), also if what was there is removed meanwhile, when the loop breaks, or with an error, which comes
// with a zero Message: the cause of ctx's end, or what went wrong. A message
// that is not an event comes with an error of its own, and its Subject,
// Sequence and Body; the loop may go on.
//
// The iterator can be used once. While the server is away, it may take up to ten
// seconds to notice that ctx has ended.
func Read(ctx context.Context, nc *nats.Conn, stream string, opts *ReadOptions) iter.Seq2[Message, error] {
	var o ReadOptions
	if opts != nil {
		o = *opts
	}
	return func(yield func(Message, error) bool) {
		if err := read(ctx, nc, stream, &o, yield); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			yield(Message{}, fmt.Errorf("read stream %s: %w", stream, err))
		}
	}
}

// read returns nil when the loop broke or the end was reached.
func read(ctx context.Context, nc *nats.Conn, stream string, o *ReadOptions, yield func(Message, error) bool) error {
	js, err := elsewhere(nc, o.Domain, o.APIPrefix)
	if err != nil {
		return err
	}
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	state := &s.CachedInfo().State
	cfg, err := consumerConfig(ctx, s, o)
	if err != nil {
		return err
	}
	if !o.Follow && (state.Msgs == 0 || cfg.OptStartSeq > state.LastSeq) {
		return nil
	}
	c, err := js.OrderedConsumer(ctx, stream, cfg)
	if err != nil {
		return err
	}
	r := &reading{follow: o.Follow, end: state.LastSeq, yield: yield, retry: newRetry()}
	if !o.Follow {
		info, err := c.Info(ctx)
		if err != nil {
			return err
		}
		if info.NumPending == 0 {
			return nil
		}
		r.consumer = info.Name
	}
	log := &cursor{nc: nc, js: js, stream: stream, log: slog.New(slog.DiscardHandler), created: s.CachedInfo().Created}
	for {
		over, err := r.messages(ctx, c)
		if over {
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, nats.ErrConnectionClosed) {
			return err
		}
		if c, err = r.again(ctx, log, cfg); err != nil {
			return err
		}
	}
}

// A reading is one call of Read, over as many consumers as it takes.
type reading struct {
	follow bool
	end    uint64 // the stream's last sequence when it began
	yield  func(Message, error) bool

	retry    *backoff.ExponentialBackOff
	last     uint64 // sequence that was yielded
	consumer string // who sent that, or is to send the first one
	sent     uint64 // messages by it
}

// again makes a new consumer, which goes on behind the last message. It tries for as
// long as that may help.
func (r *reading) again(ctx context.Context, log *cursor, cfg natsjs.OrderedConsumerConfig) (c natsjs.Consumer, err error) {
	if r.sent > 0 {
		r.retry.Reset()
	}
	if err := wait(ctx, r.retry.NextBackOff()); err != nil {
		return nil, err
	}
	info, err := log.info(ctx)
	if err != nil {
		return nil, err
	}
	if !info.Created.Equal(log.created) {
		return nil, &sinks.PlaceError{Place: place(log.stream), Reason: "it was deleted while it was read, and made anew; read again"}
	}
	if r.last > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = natsjs.DeliverByStartSequencePolicy, r.last+1, nil
	}
	err = log.persist(ctx, func(ctx context.Context) error {
		c, err = log.js.OrderedConsumer(ctx, log.stream, cfg)
		if err == nil {
			r.consumer, r.sent = c.CachedInfo().Name, 0
		}
		return err
	})
	return c, err
}

// messages yields what a consumer sends. It returns true when the loop broke or the
// end was reached.
func (r *reading) messages(ctx context.Context, c natsjs.Consumer) (over bool, err error) {
	messages, err := c.Messages()
	if err != nil {
		return false, err
	}
	defer messages.Stop()
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	var next []natsjs.NextOpt
	if !r.follow {
		next = append(next, natsjs.NextMaxWait(idleCheck))
	}
	for quiet := 0; ; {
		m, err := messages.Next(next...)
		if errors.Is(err, nats.ErrTimeout) && !r.follow {
			if quiet++; r.nothingLeft(ctx, c) {
				return true, nil
			}
			if quiet < quietChecks {
				continue
			}
		}
		if err != nil {
			return false, err
		}
		quiet = 0
		meta, err := m.Metadata()
		if err != nil {
			return false, err
		}
		r.last, r.consumer, r.sent = meta.Sequence.Stream, meta.Consumer, meta.Sequence.Consumer
		if !r.yield(decode(m, meta)) {
			return true, nil
		}
		if !r.follow && (meta.NumPending == 0 || r.last >= r.end) {
			return true, nil
		}
	}
}

// nothingLeft reports whether the consumer has nothing more to send than has come: what
// there was has been removed since.
func (r *reading) nothingLeft(ctx context.Context, c natsjs.Consumer) bool {
	ctx, cancel := context.WithTimeout(ctx, lastAsk)
	defer cancel()
	info, err := c.Info(ctx)
	return err == nil && info.Name == r.consumer && info.NumPending == 0 && info.Delivered.Consumer == r.sent
}

func decode(m natsjs.Msg, meta *natsjs.MsgMetadata) (Message, error) {
	r := Message{Sequence: meta.Sequence.Stream, Subject: m.Subject(), Stored: meta.Timestamp, Body: m.Data()}
	var err error
	r.Message, err = sinks.Decode(attributes(m.Headers()), r.Body)
	if err != nil {
		err = fmt.Errorf("sequence %d, subject %q: %w", r.Sequence, r.Subject, err)
	}
	return r, err
}

// attributes returns what [sinks.Decode] reads headers with.
func attributes(h nats.Header) func(string) string {
	return func(name string) string {
		v := h.Get(attributePrefix + name)
		plain, err := sinks.UnescapeHeader(v)
		if err != nil {
			return v
		}
		return plain
	}
}

func consumerConfig(ctx context.Context, s natsjs.Stream, o *ReadOptions) (natsjs.OrderedConsumerConfig, error) {
	// The library's own attempts do not look at what the server says.
	c := natsjs.OrderedConsumerConfig{FilterSubjects: o.FilterSubjects, DeliverPolicy: natsjs.DeliverAllPolicy, MaxResetAttempts: 1}
	switch {
	case o.Sequence > 0:
		c.DeliverPolicy, c.OptStartSeq = natsjs.DeliverByStartSequencePolicy, o.Sequence
	case !o.Time.IsZero():
		c.DeliverPolicy, c.OptStartTime = natsjs.DeliverByStartTimePolicy, &o.Time
	case !o.After.IsZero():
		seq, err := sequenceAfter(ctx, s, o.After)
		if err != nil {
			return c, err
		}
		c.DeliverPolicy, c.OptStartSeq = natsjs.DeliverByStartSequencePolicy, seq
	case o.New:
		c.DeliverPolicy = natsjs.DeliverNewPolicy
	}
	return c, nil
}

// sequenceAfter returns the first sequence whose message comes after a
// position. Sequences whose message was deleted count with the next one that
// is left.
func sequenceAfter(ctx context.Context, s natsjs.Stream, at listeners.Position) (uint64, error) {
	state := s.CachedInfo().State
	low, high := state.FirstSeq, state.LastSeq+1
	for low < high {
		middle := low + (high-low)/2
		position, seq, err := positionFrom(ctx, s, middle, high)
		if err != nil {
			return 0, err
		}
		if seq < high && position.Compare(at) <= 0 {
			low = seq + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// positionFrom returns the position of the first message from seq on, and its
// sequence; end if there is none before end.
func positionFrom(ctx context.Context, s natsjs.Stream, seq, end uint64) (listeners.Position, uint64, error) {
	for seq < end {
		// Or the next one that is left: in a bucket there may be millions in between.
		m, err := s.GetMsg(ctx, seq, natsjs.WithGetMsgSubject(">"))
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return listeners.Position{}, seq, fmt.Errorf("message %d: %w", seq, err)
		}
		if p, err := listeners.ParsePosition(m.Header.Get(headerSequence)); err == nil && m.Sequence < end {
			return p, m.Sequence, nil
		}
		seq = m.Sequence + 1
	}
	return listeners.Position{}, end, nil
}
