package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A Firehose stores a database's events in a stream. It is a
// [listeners.Durable]: its subscription calls OnBatch and Flush, on one
// goroutine; Stored and Stalled may be called from anywhere.
//
// OnBatch returns when all messages of the batch are sent. It blocks while too
// many are in flight, and while the server is away. The batches are kept until
// the server has acknowledged them.
type Firehose struct {
	nc   *nats.Conn
	js   natsjs.JetStream
	from scope
	opts Options

	w     *window
	acks  ackParser // of the subscription's goroutine
	inbox string

	// Of the publisher's goroutine alone.
	encoder   *sinks.Encoder
	out       *outgoing
	tail      tail // at Open, or when the tail was adopted: what is at or before it is stored
	opened    time.Time
	retry     *backoff.ExponentialBackOff
	recovered uint64 // what was acked when the last recovery began
	dead      error  // the final error
	regional  renumberer
	latest    *latest // of a bucket, nil otherwise
	bare      bool    // a snapshot was begun whose end has no message so far

	sub    *nats.Subscription
	stop   context.CancelFunc
	wg     sync.WaitGroup
	closed sync.Once
}

// New returns a firehose for a database's events. It starts nothing and talks
// to nobody; [Firehose.Open] does. The connection stays the caller's; see
// [Connect] for how to make one. The error names every option that is wrong.
func New(nc *nats.Conn, database string, opts *Options) (*Firehose, error) {
	return newFirehose(nc, scope{source: database}, opts)
}

func newFirehose(nc *nats.Conn, from scope, opts *Options) (*Firehose, error) {
	o := opts.withDefaults(from)
	faults := append(o.validate(), from.validate()...)
	if nc == nil {
		faults = append(faults, "there must be a connection")
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("jetstream: %s", strings.Join(faults, "; "))
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	f := &Firehose{
		nc: nc, js: js, from: from, opts: o,
		w: newWindow(o.MaxPending), acks: ackParser{stream: o.Stream}, inbox: nc.NewInbox(),
		encoder: from.encoder(o.Partitions), out: newOutgoing(from, &o),
		retry: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(20*time.Millisecond),
			backoff.WithMaxInterval(2*time.Second),
			backoff.WithMaxElapsedTime(0)),
	}
	return f, nil
}

// Open creates the stream, or checks the one that exists, and reads where it
// ends. It tries once. A [StreamError] says what is wrong with the stream and
// what to do about it. Open is called once; [Firehose.Close] ends what it
// started.
func (f *Firehose) Open(ctx context.Context) error {
	if f.sub != nil {
		return errors.New("jetstream: the firehose is open already")
	}
	ctx, cancel := context.WithTimeout(ctx, f.opts.AckTimeout)
	defer cancel()
	if err := f.ensureStream(ctx); err != nil {
		return err
	}
	t, err := f.readTail(ctx, f.opts.AckTimeout)
	if err != nil {
		return f.explain(ctx, err)
	}
	if t.found && t.position.IsZero() {
		return &StreamError{Stream: f.opts.Stream, Reason: fmt.Sprintf(
			"its last message (sequence %d at the latest, subject %q) was not stored by a firehose, so nothing says where to go on; delete that message, and see who publishes there",
			t.seq, t.subject)}
	}
	f.tail = t
	f.w.high = t.seq
	f.w.reach(t.position)
	f.out.chained = t.replicas == 1
	f.w.begin(f.inbox, t.seq)
	f.recovered = t.seq

	sub, err := f.nc.Subscribe(f.inbox+".*", f.onAck)
	if err != nil {
		return fmt.Errorf("jetstream: subscribe to acknowledgements: %w", err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil { // the window is the limit
		return errors.Join(err, sub.Unsubscribe())
	}
	f.sub = sub
	watchCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	f.wg.Go(func() { f.watch(watchCtx) })
	f.opened = time.Now()
	if f.latest != nil {
		if err := f.latest.sweep(watchCtx); err != nil {
			f.Close()
			return err
		}
	}
	if t.window > largeDuplicates && !f.opts.MsgID {
		f.opts.Logger.WarnContext(ctx, "the stream's duplicate_window costs the server memory and is of no use here; 100ms is enough",
			"stream", f.opts.Stream, "duplicate_window", t.window)
	}
	f.opts.Logger.InfoContext(ctx, "firehose open", "stream", f.opts.Stream, "sequence", t.seq, "position", t.position)
	return nil
}

// Close ends what Open started and waits for it. It waits for no
// acknowledgement: Flush does. The connection stays open. Close may be called
// any number of times, but not during OnBatch or Flush.
func (f *Firehose) Close() {
	if f.sub == nil {
		return
	}
	f.closed.Do(func() {
		f.dead = listeners.ErrClosed
		f.stop()
		f.w.deaf()
		_ = f.sub.Unsubscribe() // fails when the connection is closed, and then it is done
		f.wg.Wait()
	})
}

// Stream returns the stream's name.
func (f *Firehose) Stream() string { return f.opts.Stream }

// Stored returns the position up to which everything is acknowledged. After
// Open it is that of the stream's last message.
func (f *Firehose) Stored() listeners.Position {
	if f.latest != nil {
		return f.latest.plain(f.w.position())
	}
	return f.w.position()
}

// Stalled implements [listeners.Durable].
func (f *Firehose) Stalled() <-chan struct{} { return f.w.stalled }

// OnBatch sends what the stream does not hold yet of a batch. It is not to be
// called concurrently with itself or Flush. An error is final, unless ctx ended.
func (f *Firehose) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if err := f.usable(); err != nil {
		return err
	}
	if f.from.region != "" {
		tail := f.tail.position
		if f.latest != nil {
			tail = f.latest.plain(tail)
		}
		if b = f.regional.renumber(b, tail); b == nil {
			return nil
		}
	}
	if f.latest != nil {
		return f.latest.onBatch(ctx, b)
	}
	return f.store(ctx, b)
}

// store sends what the stream does not hold yet of a batch.
func (f *Firehose) store(ctx context.Context, b *listeners.Batch) error {
	n := f.count(b)
	start, err := f.plan(b, n)
	if err != nil {
		f.dead = err
		return err
	}
	f.w.add(b, start, n-start)
	return f.pump(ctx)
}

// Flush returns nil when everything taken is stored. It tries again what
// failed, until ctx ends.
func (f *Firehose) Flush(ctx context.Context) error {
	if err := f.usable(); err != nil {
		return err
	}
	for {
		if err := f.pump(ctx); err != nil {
			return err
		}
		done, fault := f.w.done()
		switch {
		case fault != nil:
			if err := f.resync(ctx); err != nil {
				return err
			}
			continue
		case done:
			return nil
		}
		select {
		case <-f.w.wake:
		case <-ctx.Done():
			return f.interrupted(ctx)
		}
	}
}

func (f *Firehose) usable() error {
	switch {
	case f.dead != nil:
		return f.dead
	case f.sub == nil:
		return errors.New("jetstream: the firehose is not open")
	}
	return nil
}

// count returns how many messages a batch becomes. Live is one if the snapshot
// had no event whose txend would say that it is complete.
func (f *Firehose) count(b *listeners.Batch) int {
	n := sinks.Len(b)
	switch b.Kind {
	case listeners.Reset:
		f.bare = f.w.last() != f.tail.origin
	case listeners.Snapshot:
		f.bare = f.bare && (!b.Last || n == 0)
	case listeners.Live:
		if f.bare {
			n = 1
		}
		f.bare = false
	case listeners.Changes:
	}
	return n
}

// plan returns the first of a batch's n messages that is not in the stream; n
// if there is none.
func (f *Firehose) plan(b *listeners.Batch, n int) (int, error) {
	at := f.tail.position
	if !at.IsZero() && !b.Position.IsZero() && b.Position.Epoch < at.Epoch {
		return 0, &EpochError{Stream: f.opts.Stream, Tail: at, Got: b.Position}
	}
	if n > 0 && b.Position.Compare(at) <= 0 {
		return n, nil
	}
	if b.Kind == listeners.Reset {
		if f.w.last() == f.tail.origin {
			return n, nil // nobody has read anything that could be stale
		}
		return 0, f.ours(b.Source, "a reset")
	}
	if n == 0 || b.Kind == listeners.Live || b.Events[0].Position.Compare(at) > 0 {
		return 0, nil
	}
	return sort.Search(n, func(i int) bool { return b.Events[i].Position.Compare(at) > 0 }), nil
}

// ours checks that what is to be stored belongs to the firehose's database.
func (f *Firehose) ours(source, what string) error {
	if source == f.from.source {
		return nil
	}
	return fmt.Errorf("jetstream: %s of source %q does not belong into the firehose of %s", what, source, f.from)
}

// interrupted is the error for an ended context.
func (f *Firehose) interrupted(ctx context.Context) error {
	left, fault := f.w.left()
	if fault == nil {
		return fmt.Errorf("stream %s: stopped with %d messages not acknowledged: %w", f.opts.Stream, left, context.Cause(ctx))
	}
	return fmt.Errorf("stream %s: stopped with %d messages not acknowledged (%v): %w", f.opts.Stream, left, fault, context.Cause(ctx)) //nolint:errorlint // one cause
}

func (f *Firehose) onAck(m *nats.Msg) {
	seq, err := f.acks.parse(m)
	f.w.ack(m.Subject, seq, err)
}

// watch notices what the acknowledgements do not say: that there are none.
func (f *Firehose) watch(ctx context.Context) {
	const looks = 4 // in each timeout
	status := f.nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer f.nc.RemoveStatusListener(status)
	ticker := time.NewTicker(max(f.opts.AckTimeout/looks, time.Millisecond))
	defer ticker.Stop()
	var seen progress
	quiet := 0
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-status:
			if !ok {
				status = nil
				continue
			}
			f.w.interrupt(errDisconnected)
		case <-ticker.C:
			p := f.w.progress()
			if quiet++; p != seen || !p.waiting {
				seen, quiet = p, 0
			}
			if quiet >= looks {
				f.w.interrupt(errAckTimeout)
			}
		}
	}
}
