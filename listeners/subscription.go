package listeners

import (
	"context"
	"errors"
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
	relay       *relay  // nil if the listener is called as it is
	ephemeral   bool
	overflow    Overflow
	collections map[string]struct{} // nil for all
	wanted      func(*Event) bool   // nil for all
	ctx         context.Context     //nolint:containedctx // the lifetime of its goroutine
	cancel      context.CancelCauseFunc
	done        chan struct{}

	// at is the place behind what was handled. Its goroutine moves it; who
	// ends the subscription takes it off the log, see detach.
	at    atomic.Pointer[node]
	place *place // nil if it blocks writers
	past  *past  // nil unless it goes on from a position

	// Of the goroutine alone.
	skip   Position
	within bool // the feed is within a transaction that began before Subscribe
	open   bool // parts of a transaction were delivered, its last part was not
	others bool // the snapshot that is under way is one of other collections
	// filtering is the transaction of the batch that wanted is asked about.
	filtering Tx
	told      int // batches that join emitted
	stalled   <-chan struct{}
	failure   error // why it ends, should no function return to tell

	closed  atomic.Bool // by Close
	paused  atomic.Bool // by Pause
	waiting atomic.Bool // for a wake-up
	wakeup  chan struct{}

	mu        sync.Mutex
	delivered Position // of the last batch that the listener took
	passed    Position // of the last batch handled or left out
	stored    Position // the highest that Stored returned
	joining   bool     // the present state is not told to its end
	replaying bool     // though joining, it goes on from a position, and each is one to go on from
	live      bool
	liveCh    chan struct{}
	resumed   chan struct{} // closed by Resume; nil unless paused
	interrupt chan struct{} // closed by Pause; nil if nobody waits
	moved     chan struct{} // closed when passed changes; nil if nobody waits
	err       error
	reason    error // once it has ended
}

func newSubscription(f *Feed, name string, l Listener, opts SubscribeOptions) *Subscription {
	s := &Subscription{
		name: name, feed: f, listener: l, ephemeral: opts.Ephemeral, overflow: opts.Overflow,
		done: make(chan struct{}), wakeup: make(chan struct{}, 1), liveCh: make(chan struct{}),
	}
	s.durable, _ = l.(Durable)
	s.past = newPast(&opts)
	if s.overflow != OverflowBlock {
		s.place = &place{max: DefaultBacklogBytes, lapse: &Batch{Kind: Reset}}
		if opts.BacklogBytes > 0 {
			s.place.max = opts.BacklogBytes
		}
	}
	if len(opts.Collections) > 0 {
		s.collections = make(map[string]struct{}, len(opts.Collections))
		for _, c := range opts.Collections {
			s.collections[c] = struct{}{}
		}
		s.wanted = func(e *Event) bool { return s.wants(e.Schema.Collection()) }
	}
	if only := opts.Filter; only != nil {
		s.wanted = func(e *Event) bool { return s.wants(e.Schema.Collection()) && only(e) }
	}
	if only, before := opts.FilterTx, s.wanted; only != nil {
		s.wanted = func(e *Event) bool { return (before == nil || before(e)) && only(e, s.filtering) }
	}
	s.relay = newRelay(s, &opts)
	s.ctx, s.cancel = context.WithCancelCause(context.WithValue(context.Background(), callerKey{}, s))
	return s
}

// Name returns the name given to Subscribe.
func (s *Subscription) Name() string { return s.name }

// Ephemeral reports whether its source may forget what it has not handled.
func (s *Subscription) Ephemeral() bool { return s.ephemeral }

// Stored returns the position up to which the listener has handled (or, if it
// is [Durable], stored) everything that it wants; with
// [SubscribeOptions].Positions no further than that is stored there. It begins
// with the position of the feed's last batch at the time of Subscribe, or with
// the one to go on from, the zero Position until that is known or, if its history
// is gone, the present state was told, and never goes back. It stays before a parked batch, see [RetryPolicy].ParkReleases. After
// the subscription has ended it stays where it was.
func (s *Subscription) Stored() Position {
	handled := s.Handled()
	if s.past != nil {
		return s.past.limit(handled)
	}
	return handled
}

// Handled is [Subscription.Stored] without regard to
// [SubscribeOptions].Positions.
func (s *Subscription) Handled() Position {
	s.mu.Lock()
	delivered, at := s.delivered, s.passed
	s.mu.Unlock()
	at = s.upTo(at)
	if s.durable != nil && !delivered.IsZero() {
		// After the look at delivered, so that an answer at or behind it covers
		// all of that; outside the lock, since it is the listener's code.
		if stored := s.durable.Stored(); stored.Compare(delivered) < 0 {
			at = stored
		}
	}
	if l := s.lot(); l != nil {
		// After the look at passed: what that contains was parked before.
		if most, ok := l.limit(); ok && most.Compare(at) < 0 {
			at = most
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Compare(s.stored) > 0 {
		s.stored = at
	}
	return s.stored
}

// Live returns a channel that is closed when the listener has handled the
// first [Live] batch.
func (s *Subscription) Live() <-chan struct{} { return s.liveCh }

// Lag is how far a subscription is behind its source.
type Lag struct {
	Batches int           // appended and not handled yet; each counts that was merged or dropped
	Bytes   int64         // their size, as [Batch.Size] counts; after they were merged, what is left of it
	Age     time.Duration // since the commit of the oldest of them; 0 if there is none

	// Joining says that it is not known yet where the subscription goes on, or
	// that the present state is being told, at first or again. Batches are then
	// only those that came since.
	Joining bool

	// Parked batches are not among those; see [Subscription.Parked].
	Parked      int
	ParkedBytes int64         // their size, as [Batch.Size] counts
	ParkedAge   time.Duration // since the commit of the oldest of them; 0 if there is none
}

// Lag returns how far the listener is behind at this moment.
func (s *Subscription) Lag() Lag {
	joining := s.isJoining() // first: a look at the backlog may come too late for it
	l := s.lagOfFeed()
	l.Joining = joining
	if s.relay != nil {
		s.relay.addTo(&l)
	}
	return l
}

func (s *Subscription) isJoining() bool {
	if s.place != nil {
		s.feed.mu.Lock()
		joining := s.place.joining
		s.feed.mu.Unlock()
		if joining {
			return true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joining
}

func (s *Subscription) lagOfFeed() Lag {
	if s.place == nil {
		at := s.at.Load() // before the last, so that it is not behind it
		return lag(at, s.feed.last(), s.since(at))
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	at := s.at.Load()
	return lag(at, s.feed.tail, s.since(at))
}

func lag(at, last *node, since time.Time) Lag {
	l := Lag{Batches: int(last.seq - at.seq), Bytes: last.bytes - at.bytes}
	if !since.IsZero() {
		l.Age = max(0, time.Since(since))
	}
	return l
}

// Close ends the subscription: its context ends, and after the callback that
// may be running there is no other. A writer no longer waits for it, even if
// that callback hangs. Close does not block and may be called any number of
// times, also by the listener itself.
func (s *Subscription) Close() {
	s.closed.Store(true)
	s.cancel(ErrClosed)
	s.leave()
	s.feed.freed()
}

// leave is detach for who has not the feed's mu.
func (s *Subscription) leave() {
	if s.place != nil {
		// Against a writer that would put it back, see bound.
		s.feed.mu.Lock()
		defer s.feed.mu.Unlock()
	}
	s.detach()
}

// detach takes the subscription off the log. Otherwise all that is appended
// from now on would stay in memory as long as somebody holds the subscription.
func (s *Subscription) detach() {
	at := s.at.Load()
	s.at.Store(&node{seq: at.seq, bytes: at.bytes})
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

// Err returns why the subscription ended: nil while it runs, after it or its
// feed was closed, otherwise a [ListenerError], or what went wrong before the
// first change. A listener that failed with an [ErrClosed] of something else is
// no exception, unless its subscription is closed, too.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() && errors.Is(s.err, ErrClosed) {
		return nil
	}
	return s.err
}

// callerKey marks a context as that of a subscription's callback.
type callerKey struct{}
