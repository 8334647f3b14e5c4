package listeners

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// FlushTimeout bounds the last flush of a [Durable] listener when its feed is
// closed. What is not stored by then is sent again after a restart.
const FlushTimeout = 10 * time.Second

// A Subscription runs one listener on its own goroutine, from
// [Source].Subscribe until it is closed, its listener fails, or its source
// ends.
type Subscription struct {
	name        string
	feed        *Feed
	listener    Listener
	durable     Durable // listener, if it is one
	ephemeral   bool
	collections map[string]struct{} // nil for all
	ctx         context.Context     //nolint:containedctx // the lifetime of its goroutine
	cancel      context.CancelCauseFunc
	done        chan struct{}

	at atomic.Pointer[node] // the last one handled; only its goroutine moves it

	// Of the goroutine alone.
	skip Position
	open bool // parts of a transaction were delivered, its last part was not

	closed  atomic.Bool // by Close
	waiting atomic.Bool // for a wake-up
	wakeup  chan struct{}

	mu        sync.Mutex
	delivered Position // of the last batch that the listener took
	passed    Position // of the last batch handled or left out
	live      bool
	liveCh    chan struct{}
	err       error
}

func newSubscription(f *Feed, name string, l Listener, opts SubscribeOptions) *Subscription {
	s := &Subscription{
		name: name, feed: f, listener: l, ephemeral: opts.Ephemeral,
		done: make(chan struct{}), wakeup: make(chan struct{}, 1), liveCh: make(chan struct{}),
	}
	s.durable, _ = l.(Durable)
	if len(opts.Collections) > 0 {
		s.collections = make(map[string]struct{}, len(opts.Collections))
		for _, c := range opts.Collections {
			s.collections[c] = struct{}{}
		}
	}
	s.ctx, s.cancel = context.WithCancelCause(context.WithValue(context.Background(), callerKey{}, s))
	return s
}

// Name returns the name given to Subscribe.
func (s *Subscription) Name() string { return s.name }

// Ephemeral reports whether its source may forget what it has not handled.
func (s *Subscription) Ephemeral() bool { return s.ephemeral }

// Stored returns the position up to which the listener has handled (or, if it
// is [Durable], stored) everything. After the subscription has ended it stays
// where it was.
func (s *Subscription) Stored() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable == nil || s.delivered.IsZero() {
		return s.passed
	}
	if stored := s.durable.Stored(); stored.Compare(s.delivered) < 0 {
		return stored
	}
	return s.passed
}

// Live returns a channel that is closed when the listener has handled the
// first [Live] batch.
func (s *Subscription) Live() <-chan struct{} { return s.liveCh }

// Lag is how far a subscription is behind its source.
type Lag struct {
	Batches int           // appended and not handled yet
	Bytes   int64         // their size, as [Batch.Size] counts
	Age     time.Duration // since the commit of the oldest of them; 0 if there is none
}

// Lag returns how far the listener is behind at this moment.
func (s *Subscription) Lag() Lag {
	at := s.at.Load()
	last := s.feed.last()
	l := Lag{Batches: int(last.seq - at.seq), Bytes: last.bytes - at.bytes}
	if next := at.next.Load(); next != nil && !next.batch.Tx.Time.IsZero() {
		l.Age = max(0, time.Since(next.batch.Tx.Time))
	}
	return l
}

// Close ends the subscription: its context ends, and after the callback that
// may be running there is no other. It does not block and may be called any
// number of times, also by the listener itself.
func (s *Subscription) Close() {
	s.closed.Store(true)
	s.cancel(ErrClosed)
}

// Closed reports whether Close was called. A subscription that failed and was
// not closed keeps its place: a source that can (Postgres) goes on to hold
// back what its listener has not handled.
func (s *Subscription) Closed() bool { return s.closed.Load() }

// CloseWait closes the subscription and returns nil when no callback is
// running any more, or the cause of ctx's end. A listener that closes its own
// subscription passes the context it was called with: then CloseWait does not
// wait for the listener itself.
func (s *Subscription) CloseWait(ctx context.Context) error {
	s.Close()
	if caller, _ := ctx.Value(callerKey{}).(*Subscription); caller == s {
		return nil
	}
	return s.wait(ctx)
}

func (s *Subscription) wait(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done returns a channel that is closed when the subscription has ended and no
// callback is running.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err returns why the subscription ended: nil while it runs and after a close,
// otherwise a [ListenerError], or what went wrong before the first batch.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// callerKey marks a context as that of a subscription's callback.
type callerKey struct{}

func callerHears(ctx context.Context, f *Feed) bool {
	caller, _ := ctx.Value(callerKey{}).(*Subscription)
	return caller != nil && caller.feed == f
}

// wake is called by Append. The flag saves a channel operation for each batch
// that a busy subscription finds by itself.
func (s *Subscription) wake() {
	if s.waiting.Load() && s.waiting.CompareAndSwap(true, false) {
		select {
		case s.wakeup <- struct{}{}:
		default:
		}
	}
}

func (s *Subscription) run(join Join) {
	defer close(s.done)
	defer s.feed.remove(s)
	err := s.loop(join)
	if errors.Is(err, ErrClosed) {
		err = nil
	}
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	s.cancel(ErrClosed)
}

func (s *Subscription) loop(join Join) error {
	if join != nil {
		if err := s.join(join); err != nil {
			return err
		}
	}
	for {
		next, err := s.next()
		if err != nil {
			return err
		}
		if next == nil {
			return s.finish()
		}
		if next.batch.Position.Compare(s.skip) > 0 {
			if err := s.deliver(next.batch); err != nil {
				return err
			}
		}
		s.at.Store(next)
		s.feed.freed()
	}
}

func (s *Subscription) join(join Join) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.feed.open, func() { cancel(ErrClosed) })
	defer stop()
	skip, err := join(ctx, s.deliver)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.skip = skip
	return err
}

// next returns the next node, or nil when the feed is closed.
func (s *Subscription) next() (*node, error) {
	var stalled <-chan struct{}
	if s.durable != nil {
		stalled = s.durable.Stalled()
	}
	for {
		if s.ctx.Err() != nil {
			return nil, context.Cause(s.ctx)
		}
		select {
		case <-s.feed.open.Done():
			return nil, nil
		case <-stalled:
			if err := s.call(s.last(), s.durable.Flush); err != nil {
				return nil, err
			}
		default:
		}
		if n := s.at.Load().next.Load(); n != nil {
			return n, nil
		}
		// The flag first, then one more look: Append does it the other way
		// round, so that one of the two sees the other.
		s.waiting.Store(true)
		if n := s.at.Load().next.Load(); n != nil {
			s.waiting.Store(false)
			return n, nil
		}
		select {
		case <-s.wakeup:
		case <-s.feed.open.Done():
		case <-s.ctx.Done():
		case <-stalled:
			if err := s.call(s.last(), s.durable.Flush); err != nil {
				return nil, err
			}
		}
		s.waiting.Store(false)
	}
}

// deliver hands the listener what it asked for of a batch.
func (s *Subscription) deliver(b *Batch) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	wanted := s.filter(b)
	if wanted != nil {
		err := s.call(b.Position, func(ctx context.Context) error { return s.listener.OnBatch(ctx, wanted) })
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed = b.Position
	if wanted != nil {
		s.delivered = b.Position
	}
	if b.Kind == Live && !s.live {
		s.live = true
		close(s.liveCh)
	}
	return nil
}

// filter returns the part of b that the subscription asked for, nil if that is
// nothing. Parts of one transaction keep a first and a last even where the
// real ones hold nothing of interest.
func (s *Subscription) filter(b *Batch) *Batch {
	if s.collections == nil || (b.Kind != Changes && b.Kind != Snapshot) {
		return b
	}
	if b.First && b.Last && b.whole(s.collections) {
		return b
	}
	c := b.only(s.collections)
	if len(c.Events) == 0 && b.Kind == Changes && !(s.open && b.Last) {
		return nil
	}
	c.First = !s.open
	s.open = !b.Last
	return c
}

// call runs a callback, contains its panic, and names its error.
func (s *Subscription) call(at Position, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		if err == nil {
			return
		}
		if s.ctx.Err() != nil {
			err = context.Cause(s.ctx) // closed meanwhile: not the listener's fault
			return
		}
		err = &ListenerError{Subscription: s.name, Position: at, Err: err}
	}()
	return f(s.ctx)
}

func (s *Subscription) last() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delivered
}

// finish is the end of a subscription whose feed was closed.
func (s *Subscription) finish() error {
	if s.durable == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, FlushTimeout)
	defer cancel()
	return s.call(s.last(), func(context.Context) error { return s.durable.Flush(ctx) })
}
