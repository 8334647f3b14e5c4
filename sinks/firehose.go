package sinks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	retrying "github.com/cenkalti/backoff/v4"

	"github.com/rowcall/rowcall/listeners"
)

// A Firehose stores the events of a database or a region with a broker, for any
// number of readers and for later. Packages of brokers make it. It is a
// [listeners.Durable]: its subscription calls OnBatch and Flush, on one
// goroutine; Stored, Stalled, Stats, Name and Where may be called from anywhere.
//
// OnBatch returns when all messages of the batch are on their way. It blocks
// while too many are in flight, and while the broker is away. What is promised:
//
//   - Ordered: the messages of one lane of the broker, so those of one key, are in
//     the order of the source, across retries, reconnects and restarts.
//   - Once: after a fault or a restart the broker's place says what it holds, and
//     only what is behind that is sent.
//   - Complete: what cannot be stored for the time being is tried again until ctx
//     ends; what can never be stored ends the firehose with an error that names it,
//     or is parked, see [TooLargePolicy]. Nothing behind it overtakes it.
//   - Bounded: the batches that wait hold as many messages and bytes as the options
//     allow, and one batch more.
//   - Stored never runs ahead of what the broker has acknowledged.
type Firehose struct {
	broker FirehoseBroker
	shaper FirehoseShaper // nil if the broker is none
	c      FirehoseConfig
	log    *slog.Logger

	w        *window
	counters firehoseCounters

	// Of the subscription's goroutine alone.
	encoder   *Encoder
	message   FirehoseMessage
	schema    *listeners.Schema // the last one found to be the scope's
	cursor    cursor
	tail      listeners.Position // where the place ended at Open
	regional  renumberer
	bare      bool // a snapshot was begun whose end has no message so far
	filling   bool // a snapshot was begun and did not end
	marked    bool // filling was heard, in a reset or a live marker
	retry     *retrying.ExponentialBackOff
	parked    Frame
	parkAt    listeners.Position // of a message that the broker has refused
	recovered uint64             // what was acknowledged when the last recovery began
	dead      error              // the final error

	state atomic.Int32 // openState
}

// A cursor is how far the current entry is sent in this attempt.
type cursor struct{ message, lane int }

const (
	notOpen int32 = iota
	isOpen
	wasClosed
)

var _ listeners.Durable = (*Firehose)(nil)

// A FirehoseConfig is what a broker's package settles for [NewFirehose]. All
// fields count as they are.
type FirehoseConfig struct {
	Scope      FirehoseScope
	Partitions int // between 1 and [MaxPartitions]
	// MaxPending and MaxPendingBytes bound the messages that are sent and not
	// taken, see [FirehoseAcks].Taken, in number and in bytes. A single larger one is sent alone.
	MaxPending      int
	MaxPendingBytes int
	// Keep is true if the firehose sends again after Recover. Otherwise the
	// broker's client library does, batches are let go once they are sent,
	// and Recover never returns nil.
	Keep bool
	// KeepBytes bounds what Keep keeps, in bytes of [listeners.Batch].Size: what
	// is sent above that is let go all the same, and until all of it is stored
	// [FirehoseAcks].Kept says no. 0: no bound.
	KeepBytes int
	// TooLarge is what becomes of messages that are too large. The broker of
	// a firehose that parks is a [FirehoseParker].
	TooLarge TooLargePolicy
	// Logger gets a line when storing is interrupted and when it goes on. Nil:
	// none.
	Logger *slog.Logger
}

// NewFirehose returns a firehose over a broker, which is the firehose's from
// then on. It starts nothing; [Firehose.Open] does.
func NewFirehose(b FirehoseBroker, c FirehoseConfig) *Firehose {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Firehose{
		broker: b, c: c, log: c.Logger.With("firehose", b.Name()),
		w: newWindow(max(c.MaxPending, 1), c.KeepBytes), encoder: c.Scope.encoder(c.Partitions),
		retry: retrying.NewExponentialBackOff(
			retrying.WithInitialInterval(20*time.Millisecond),
			retrying.WithMaxInterval(2*time.Second),
			retrying.WithMaxElapsedTime(0)),
	}
	f.shaper, _ = b.(FirehoseShaper)
	return f
}

// Open makes what the firehose writes to, or checks what exists, and reads where
// it ends. It tries once, for as long as ctx and the broker's options allow. A
// [PlaceError] says what is wrong with a stream or topic and what to do about it;
// an [UnreachableError], that nobody answered. Open is called once;
// [Firehose.Close] ends what it started.
func (f *Firehose) Open(ctx context.Context) error {
	if f.state.Load() != notOpen {
		return errors.New("sinks: the firehose was opened already")
	}
	at, err := f.broker.Open(ctx, &FirehoseAcks{w: f.w})
	if err != nil {
		return err
	}
	f.tail = at
	f.w.begin(at)
	f.state.Store(isOpen)
	f.log.InfoContext(ctx, "firehose open", "position", at)
	return nil
}

// Close ends what Open started and waits for it. It waits for no
// acknowledgement: Flush does. A connection that the caller made stays open.
// Close may be called any number of times, but not during OnBatch or Flush.
func (f *Firehose) Close() {
	if f.state.CompareAndSwap(isOpen, wasClosed) {
		f.broker.Close()
	}
}

// Name returns what holds the events: the name of the stream, or what the names
// of the topics begin with.
func (f *Firehose) Name() string { return f.broker.Name() }

// Where returns the addresses of the broker's servers, without credentials.
func (f *Firehose) Where() string { return f.broker.Where() }

// Stored returns the position up to which everything is stored. After Open it
// is that of the last message, where the broker has one order for all; otherwise
// zero until something is stored.
func (f *Firehose) Stored() listeners.Position { return f.plain(f.w.position()) }

// Empty reports whether the broker's place held nothing at Open, or not everything that
// was stored there before. Who keeps the latest state begins with the present one then.
// It is for after Open. Where the broker cannot tell it is false.
func (f *Firehose) Empty() bool {
	if b, ok := f.broker.(FirehoseEmptier); ok {
		return b.Empty()
	}
	return false
}

func (f *Firehose) plain(p listeners.Position) listeners.Position {
	if f.shaper != nil {
		return f.shaper.Plain(p)
	}
	return p
}

// Stalled implements [listeners.Durable].
func (f *Firehose) Stalled() <-chan struct{} { return f.w.stalled }

func (f *Firehose) usable() error {
	switch f.state.Load() {
	case notOpen:
		return errors.New("sinks: the firehose is not open")
	case wasClosed:
		return listeners.ErrClosed
	}
	return f.dead
}

// OnBatch sends what is not stored yet of a batch. It is not to be called
// concurrently with itself or Flush. An error is final, unless ctx ended.
func (f *Firehose) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if err := f.usable(); err != nil {
		return err
	}
	if b.Kind == listeners.Reset || b.Kind == listeners.Live {
		f.filling, f.marked = b.Kind == listeners.Reset, true
	}
	if f.c.Scope.Region != "" {
		if b = f.regional.renumber(b, f.plain(f.tail)); b == nil {
			return nil
		}
	}
	if f.shaper == nil {
		return f.store(ctx, b)
	}
	err := f.shaper.Shape(ctx, b, f.store, f.Flush)
	if err != nil && ctx.Err() == nil {
		return f.fatal(err)
	}
	return err
}

// store takes a batch and sends what there is to send.
func (f *Firehose) store(ctx context.Context, b *listeners.Batch) error {
	if b.Kind == listeners.Reset {
		if err := f.c.Scope.ownsSource(b.Source, "a reset"); err != nil {
			return f.fatal(err)
		}
	}
	f.w.add(b, f.live(b), f.fills(b))
	if err := f.pump(ctx); err != nil {
		return err
	}
	why := PushPart
	if b.Kind != listeners.Changes || b.Last {
		why = PushWhole
	}
	f.broker.Push(why)
	return nil
}

// live reports whether a batch is a live marker that is to be stored: the
// snapshot had no event whose txend would say that it is complete.
func (f *Firehose) live(b *listeners.Batch) bool {
	bare := f.bare
	switch b.Kind {
	case listeners.Reset:
		f.bare = true
	case listeners.Snapshot:
		f.bare = f.bare && (!b.Last || Len(b) == 0)
	case listeners.Live:
		f.bare = false
		return bare
	case listeners.Changes:
	}
	return false
}

// fills reports whether a batch holds changes that come while a snapshot is not complete.
// A bucket keeps no such mark, which would outlast the snapshot there.
func (f *Firehose) fills(b *listeners.Batch) filling {
	switch {
	case b.Kind != listeners.Changes || f.shaper != nil:
		return complete
	case !f.marked:
		return asTail
	case f.filling:
		return incomplete
	}
	return complete
}

// Flush returns nil when everything taken is stored. It tries again what
// failed, until ctx ends.
func (f *Firehose) Flush(ctx context.Context) error {
	for {
		if err := f.usable(); err != nil {
			return err
		}
		if err := f.pump(ctx); err != nil {
			return err
		}
		f.broker.Push(PushFlush)
		for {
			done, fault := f.w.done()
			if fault != nil {
				break // pump sees to it
			}
			if done {
				return nil
			}
			select {
			case <-f.w.wake:
			case <-ctx.Done():
				return f.interrupted(ctx)
			}
		}
	}
}

// fatal ends the firehose.
func (f *Firehose) fatal(err error) error {
	if f.dead == nil {
		f.dead = err
		f.counters.failed(err)
	}
	return f.dead
}

// interrupted is the error for an ended context.
func (f *Firehose) interrupted(ctx context.Context) error {
	messages, batches, fault := f.w.left()
	left := fmt.Sprintf("%d messages not acknowledged", messages)
	if batches > 0 {
		left += fmt.Sprintf(" and %d batches not sent", batches)
	}
	if fault == nil {
		return fmt.Errorf("firehose %s: stopped with %s: %w", f.Name(), left, context.Cause(ctx))
	}
	return fmt.Errorf("firehose %s: stopped with %s (%v): %w", f.Name(), left, fault, context.Cause(ctx)) //nolint:errorlint // one cause
}
