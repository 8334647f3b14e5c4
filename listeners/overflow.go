package listeners

import (
	"errors"
	"fmt"
	"time"
)

// DefaultBacklogBytes bounds the backlog of a subscription that does not block
// its writers, unless [SubscribeOptions] say otherwise.
const DefaultBacklogBytes = 4 << 20

// Overflow says what happens when a subscription is too slow. Only
// OverflowBlock loses nothing; with the others no writer waits for the
// subscription, and [SubscribeOptions].BacklogBytes bounds what is kept for it.
type Overflow uint8

const (
	// OverflowBlock makes the writers of the feed wait. Every batch arrives.
	// It is the default, and the only policy for a [Durable] listener.
	OverflowBlock Overflow = iota
	// OverflowConflate merges what waits to the net change of each key: the old
	// row of the first change and the new row of the last one. What was created
	// and deleted meanwhile vanishes. The state after each batch is exact, what
	// lay between is lost, and so are the borders of transactions: those that
	// were merged arrive as one, with the Tx and Position of the last. The
	// events are in the order of each key's last change; if none is left there
	// is no batch. Not merged are
	// messages, changes of the key, and changes of rows without a whole key;
	// after a truncate or a Reset, what it made obsolete is gone.
	//
	// What does not fit into half of BacklogBytes even so, and an overflow
	// while the present state is told, is dealt with as by OverflowReset if the
	// subscription has asked for Current, as by OverflowDisconnect otherwise.
	OverflowConflate
	// OverflowReset drops the backlog and begins again: the listener gets a
	// Reset, the present state as Snapshot batches, Live, and then every later
	// change once, as at first. The changes that were dropped are lost, their
	// result is in the snapshot. It needs Current.
	OverflowReset
	// OverflowDisconnect ends the subscription with a [LaggedError].
	OverflowDisconnect
)

var overflowNames = [...]string{"block", "conflate", "reset", "disconnect"}

// String returns the policy's name.
func (o Overflow) String() string { return name(overflowNames[:], uint8(o), "Overflow") }

// check returns what cannot work.
func (o *SubscribeOptions) check(l Listener, join Join) error {
	_, durable := l.(Durable)
	switch {
	case int(o.Overflow) >= len(overflowNames):
		return fmt.Errorf("there is no policy %s", o.Overflow)
	case o.Overflow == OverflowBlock:
		return nil
	case durable:
		return fmt.Errorf("policy %s: a Durable listener must hear everything; use OverflowBlock", o.Overflow)
	case o.Overflow == OverflowReset && join == nil:
		return errors.New("policy reset: there is no state to begin again with; set Current")
	}
	return nil
}

// A place is where a subscription stands that does not block writers. A writer
// that finds its backlog too long may change it, so it is guarded by the
// feed's mu, as is Subscription.within here.
type place struct {
	max   int64
	again Join // how to begin again; nil if it cannot

	taken   bool // the batch at the place is being handled
	left    bool // it is not for this subscription
	joining bool // so that nobody knows yet what the snapshot contains
	dropped bool // the backlog; it has to begin again
	// The commit of the oldest change of what was merged or dropped, and the
	// seq of its place; zero if there is none.
	since  time.Time
	merged uint64

	lapse *Batch // stands for a backlog that was dropped
}

// take returns the next batch for its goroutine, p.lapse if it has to begin
// again, nil if there is nothing to do.
func (s *Subscription) take() *Batch {
	f, p := s.feed, s.place
	f.mu.Lock()
	defer f.mu.Unlock()
	at := s.at.Load()
	switch {
	case p.dropped:
		return p.lapse
	case at.next.Load() == nil:
		return nil
	}
	p.taken, p.left = true, s.leftOut(at.batch)
	return at.batch
}

// advance is called when a batch that was taken is handled.
func (s *Subscription) advance() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.place.taken = false
	if next := s.at.Load().next.Load(); next != nil {
		s.at.Store(next)
	}
}

// joined is called when the present state is told up to a position.
func (s *Subscription) joined(skip Position) {
	if s.place != nil {
		s.feed.mu.Lock()
		defer s.feed.mu.Unlock()
		s.place.joining = false
	}
	s.skip = skip
}

// bound is called by Append, with the feed's mu, before it adds a batch.
func (s *Subscription) bound() {
	p, tail := s.place, s.feed.tail
	from := s.at.Load()
	if p.taken {
		if next := from.next.Load(); next != nil {
			from = next
		}
	}
	if p.dropped || tail.bytes-from.bytes < p.max || s.ctx.Err() != nil {
		return
	}
	oldest := s.since(from)
	if s.overflow == OverflowConflate && !p.joining && s.conflate(from) {
		p.since = oldest
		return
	}
	if s.overflow == OverflowDisconnect || p.again == nil {
		s.cancel(s.lagged())
		s.detach()
		return
	}
	p.dropped, p.since = true, oldest
	s.detach()
	p.merged = s.at.Load().seq
}

// since returns when the oldest change at or behind a place was committed.
func (s *Subscription) since(at *node) time.Time {
	if s.place != nil && !s.place.since.IsZero() && at.seq == s.place.merged {
		return s.place.since
	}
	if at.next.Load() == nil {
		return time.Time{}
	}
	return at.batch.Tx.Time
}

func (s *Subscription) lagged() *LaggedError {
	at, tail := s.at.Load(), s.feed.tail
	e := &LaggedError{Subscription: s.name, Lag: lag(at, tail, s.since(at)), Limit: s.place.max}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Position = s.passed
	return e
}

// rejoin tells the present state again, since the backlog was dropped.
func (s *Subscription) rejoin() error {
	f, p := s.feed, s.place
	s.mu.Lock()
	s.joining = true
	s.mu.Unlock()
	switch err := s.revoke(); {
	case errors.Is(err, errFeedEnded):
		return nil // next finds that, too
	case err != nil:
		return err
	}
	f.mu.Lock()
	lagged := s.lagged()
	// What the feed took before this is in the state that join will read.
	p.dropped, p.joining, p.since = false, true, time.Time{}
	s.at.Store(f.tail)
	s.within = f.tail.within
	f.mu.Unlock()
	s.open, s.others = false, false

	told := s.told
	if err := s.join(p.again); err != nil {
		return err
	}
	if s.told == told && !s.feed.closed() {
		return fmt.Errorf("its source did not tell its state again: %w", lagged)
	}
	return nil
}
