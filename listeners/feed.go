package listeners

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// DefaultFeedBytes is the memory that a feed holds back for its slowest
// subscription unless [FeedOptions] say otherwise.
const DefaultFeedBytes = 16 << 20

// FeedOptions set up a feed. Nil and zero mean the defaults.
type FeedOptions struct {
	// MaxBytes is how much may be appended and not yet handled by every
	// subscription, in bytes of [Batch.Size], before a writer waits. So the
	// feed holds at most this and one more batch of each writer. Default
	// [DefaultFeedBytes].
	MaxBytes int64
	// HistoryBytes is how much of what was appended last the feed keeps although
	// every subscription may have handled it, in bytes of [Batch.Size], so that a
	// subscriber that was away can go on where it was, see
	// [SubscribeOptions].From. What slow subscriptions have not handled is part
	// of it, so a feed holds at most the larger of the two. Default 0: nothing
	// is kept.
	HistoryBytes int64
	// Resume is asked where a subscription from a position begins, if the
	// feed's own batches do not tell; only for one that hears every batch from
	// the feed's first on. It returns the position up to which batches are to be left out:
	// from itself if everything behind it will come through the feed, the zero
	// Position if the feed begins with the present state, and a [HistoryError]
	// if history behind from is gone. It runs on the subscription's goroutine
	// and may block until the answer is known or ctx ends, which it does with
	// the subscription and with the feed. It may be called from several
	// goroutines. Default: what was before the first batch is not known, and
	// counts as gone.
	Resume func(ctx context.Context, from Position) (Position, error)
	// Begin is asked for the position before the feed's first batch, from which
	// Resume lets a subscription go on to hear every batch; only for one with
	// [SubscribeOptions].Positions that has nothing stored and came before the
	// first batch, so that it can store where it began. It returns the zero
	// Position if there is none, because the feed begins with the present state.
	// It runs as Resume does. Default: it is not known, so a name stores nothing
	// before its first batch.
	Begin func(ctx context.Context) (Position, error)
	// Replay, if it is set, is called for a subscription from a position behind
	// which the feed's own batches do not begin, and Resume does not know either.
	// Default: the history is gone then.
	Replay Replay
	// Upstream makes the feed a branch of another one: Upstream's listener
	// appends to it what its subscriptions want of that. Then a full branch
	// makes the writers wait that call Reserve of Upstream's feed, and Append
	// needs no Reserve; a listener of either is never made to wait for itself;
	// and [Subscription.Stored] and [Subscription.Wait] of a subscription count
	// as handled what Upstream has handled without appending anything. The
	// positions are those of Upstream's feed, and Upstream has no branch below
	// a branch. Default: a feed of its own.
	Upstream *Subscription
	// Idle, if it is set, is called each time when the feed's last subscription
	// has ended, on its goroutine, under no lock, and before its Done is closed.
	Idle func()
}

// A Feed is the ordered log between one writer and its subscriptions. It holds
// the batches that the slowest subscription has not handled yet, and those that
// [FeedOptions].HistoryBytes asks for. It starts no goroutine of its own.
type Feed struct {
	max      int64
	history  int64
	resume   func(context.Context, Position) (Position, error) // nil if nobody knows
	begin    func(context.Context) (Position, error)           // likewise
	replay   Replay                                            // nil if there is none
	upstream *Subscription                                     // nil unless it is a branch
	idle     func()                                            // may be nil

	mu      sync.Mutex
	tail    *node
	oldest  *node // of the history; nil if none is kept
	subs    []*Subscription
	waiting chan struct{}   // closed when space may have been freed; nil if nobody waits
	open    context.Context //nolint:containedctx // ends with the feed; its cause is ErrClosed
	close   context.CancelCauseFunc
	clogged bool           // it is a branch that is full, and counts in clogs of the other feed
	clogs   int            // branches that are full
	failure *ListenerError // why it ended, without a subscription; nil if it was closed

	waiters atomic.Int32 // writers in Reserve that found no space
	woken   atomic.Bool  // by Append, somebody who waited, since the last Yield
}

// A node is a place in the log. Readers hold the node behind what they have
// handled and follow next. A node refers only to what comes after it, so what
// every reader has handled is garbage.
type node struct {
	seq      uint64   // of the batch before this place
	bytes    int64    // appended to the feed up to this place
	position Position // of the batch before this place
	within   bool     // the transaction of that batch goes on

	batch *Batch // appended at this place; written before next, read after it
	next  atomic.Pointer[node]
}

// NewFeed returns an empty feed.
func NewFeed(opts *FeedOptions) *Feed {
	f := &Feed{max: DefaultFeedBytes, tail: new(node)}
	f.open, f.close = context.WithCancelCause(context.Background())
	if opts == nil {
		return f
	}
	if opts.MaxBytes > 0 {
		f.max = opts.MaxBytes
	}
	f.upstream, f.idle, f.resume, f.begin, f.replay = opts.Upstream, opts.Idle, opts.Resume, opts.Begin, opts.Replay
	if f.history = opts.HistoryBytes; f.history > 0 {
		f.oldest = f.tail
	}
	return f
}

// Reserve returns when there is room for one more batch. A writer calls it
// before [Feed.Append], and outside any lock that a listener might want. It
// returns the cause of ctx's end, or the reason why the feed was closed.
//
// A listener that writes to the feed it hears is never made to wait for
// itself: pass it the context that the listener got.
func (f *Feed) Reserve(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f.mu.Lock()
		if f.closed() {
			f.mu.Unlock()
			return ErrClosed
		}
		if f.hasRoom() || callerHears(ctx, f) {
			f.mu.Unlock()
			return nil
		}
		if f.waiting == nil {
			f.waiting = make(chan struct{})
		}
		freed := f.waiting
		f.waiters.Add(1)
		full := !f.hasRoom() // again, now that readers see the waiter
		f.mu.Unlock()
		if full {
			select {
			case <-freed:
			case <-ctx.Done():
			case <-f.open.Done():
			}
		}
		f.waiters.Add(-1)
	}
}

// backlog returns the bytes that the slowest subscription has not handled, of
// those that block. One that was closed wants nothing more, even while its last
// callback runs.
func (f *Feed) backlog() int64 {
	slowest := f.tail.bytes
	for _, s := range f.subs {
		if s.place == nil && !s.closed.Load() {
			slowest = min(slowest, s.at.Load().bytes)
		}
	}
	return f.tail.bytes - slowest
}

// Append adds a batch and wakes the subscriptions. It never blocks, and takes
// ownership of b. Only one goroutine at a time may append, in order of
// position. On a closed feed it does nothing.
func (f *Feed) Append(b *Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed() {
		return
	}
	for _, s := range f.subs {
		if s.place != nil {
			s.bound()
		}
	}
	n := &node{
		seq: f.tail.seq + 1, bytes: f.tail.bytes + int64(b.Size),
		position: b.Position, within: b.Kind == Changes && !b.Last,
	}
	f.tail.batch = b
	f.tail.next.Store(n)
	f.tail = n
	if f.oldest != nil {
		f.forget()
	}
	for _, s := range f.subs {
		s.wake()
	}
	f.clogIfFull()
}

// A Join brings a new subscription up to the present: it emits Reset, Snapshot
// and Live batches, in this order, and returns the position up to which the
// feed's batches are contained in them and must be left out. It runs on the
// subscription's goroutine. Its context ends with the subscription and with
// the feed; emit returns an error when the subscription ends.
type Join func(ctx context.Context, emit func(*Batch) error) (Position, error)

// Subscribe adds a subscription that sees every batch appended from now on,
// after what join emits. A nil join means from now on. The rest of a
// transaction of which parts are appended already is left out, since nobody
// could make it whole. The listener may be called before Subscribe has
// returned.
//
// With opts.From or opts.Positions, join is called only where there is no
// position to go on from, or its history is gone; see [SubscribeOptions].
//
// Its errors are [ErrClosed], and options that cannot work. With
// [OverflowReset] and [OverflowConflate], join is called again after each
// overflow, and tells the state as it is then, or later.
func (f *Feed) Subscribe(name string, l Listener, opts *SubscribeOptions, join Join) (*Subscription, error) {
	o := opts.withDefaults()
	if err := errors.Join(o.check(l, join), o.checkRelay(l)); err != nil {
		return nil, fmt.Errorf("subscribe %q: %w", name, err)
	}
	s := newSubscription(f, name, l, o)
	if s.place != nil {
		s.place.again, s.place.joining = join, join != nil || s.past != nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed() {
		return nil, ErrClosed
	}
	s.at.Store(f.tail)
	s.within = f.tail.within
	begin, skip := f.tail.position, Position{} // it wants nothing from before
	if f.upstream != nil && join == nil {
		// What the trunk has taken already may still be on its way into f.
		begin = f.upstream.feed.last().position
		skip = begin
	}
	if s.joining = join != nil || s.past != nil; s.past == nil {
		s.passed, s.stored, s.skip = begin, begin, skip
	} else {
		s.past.begin, s.past.skip = begin, skip
	}
	f.subs = append(f.subs, s)
	go s.run(join) // waited for by CloseWait
	return s, nil
}

// Subscriptions returns those that have not ended, in order of subscription.
func (f *Feed) Subscriptions() []*Subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.subs)
}

// Close ends the feed: appends are ignored, and every subscription finishes
// the batch it is at, has a [Durable] listener flush, and ends without an
// error. It does not wait; [Subscription.CloseWait] does.
func (f *Feed) Close() { f.CloseFor(ErrClosed) }

func (f *Feed) closed() bool { return f.open.Err() != nil }

// remove takes a subscription that has ended out of the accounting.
func (f *Feed) remove(s *Subscription) {
	f.mu.Lock()
	f.subs = slices.DeleteFunc(f.subs, func(o *Subscription) bool { return o == s })
	f.freeLocked()
	idle := len(f.subs) == 0 && f.idle != nil
	f.mu.Unlock()
	if idle {
		f.idle()
	}
}

// freed tells waiting writers that a subscription has moved on.
func (f *Feed) freed() {
	if f.waiters.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.freeLocked()
}

// freeLocked lets waiting writers go on once a quarter of the room is free, so
// that a full feed does not switch goroutines for every batch.
func (f *Feed) freeLocked() {
	f.unclogIfFree()
	if f.waiting != nil && f.clogs == 0 && f.backlog() <= f.max/4*3 {
		close(f.waiting)
		f.waiting = nil
	}
}

// last returns the newest node.
func (f *Feed) last() *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tail
}
