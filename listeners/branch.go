package listeners

import "context"

// A feed with an upstream is a branch of that subscription's feed, its trunk.
// The two count as one where it matters to those who write and wait:
//
//   - A branch that is full stops the trunk's writers, not the listener that
//     appends to it, for that would keep the other branches from what is
//     committed already. So [Feed.Append] of a branch needs no Reserve.
//   - A listener of either is never made to wait for room in the trunk.
//   - A subscription of a branch has handled what upstream has found nothing
//     for it in.
//
// Locks are taken from the branch to the trunk: clog wants the branch's mu.

// hasRoom wants mu.
func (f *Feed) hasRoom() bool { return f.clogs == 0 && f.backlog() < f.max }

// clogIfFull wants mu.
func (f *Feed) clogIfFull() {
	if f.upstream == nil || f.clogged || f.backlog() < f.max {
		return
	}
	f.clogged = true
	f.waiters.Add(1) // so that readers report that they have moved on
	f.upstream.feed.clog(+1)
	f.unclogIfFree() // again, now that they do
}

// unclogIfFree wants mu.
func (f *Feed) unclogIfFree() {
	if f.clogged && (f.closed() || f.backlog() <= f.max/4*3) {
		f.clogged = false
		f.waiters.Add(-1)
		f.upstream.feed.clog(-1)
	}
}

// clog counts branches that are full.
func (f *Feed) clog(change int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clogs += change
	f.freeLocked()
}

// hears reports whether a subscription's listener is one of a feed or of one of
// its branches.
func (s *Subscription) hears(f *Feed) bool {
	return s.feed == f || s.feed.upstream != nil && s.feed.upstream.feed == f
}

// Fail ends the feed as [Feed.Close] does, but its subscriptions end with a
// [ListenerError] that has this position and error. A source calls it when it
// cannot go on.
func (f *Feed) Fail(at Position, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed() {
		f.failure = &ListenerError{Position: at, Err: err}
		f.close(ErrClosed)
		f.unclogIfFree()
	}
}

// failed returns why the feed has ended for this subscription, nil if it was
// closed. The feed has ended.
func (f *Feed) failed(s *Subscription) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure == nil {
		return nil
	}
	return &ListenerError{Subscription: s.name, Position: f.failure.Position, Err: f.failure.Err}
}

// upTo returns passed, or how far upstream is if the branch has nothing behind
// passed: the position of a batch up to which the listener has handled all.
func (s *Subscription) upTo(passed Position) Position {
	if s.feed.upstream == nil {
		return passed
	}
	upstream := s.feed.upstream.Stored() // before the last, so that it is not ahead of it
	last := s.feed.last().position
	s.mu.Lock()
	joining := s.joining
	s.mu.Unlock()
	if joining || passed.Compare(last) < 0 || upstream.Compare(passed) < 0 || s.ctx.Err() != nil {
		return passed
	}
	return upstream
}

// watchUpstream is watch for upstream; nil if there is none.
func (s *Subscription) watchUpstream() (moved <-chan struct{}) {
	if s.feed.upstream != nil {
		moved = s.feed.upstream.watch()
	}
	return moved
}

func callerHears(ctx context.Context, f *Feed) bool {
	caller, _ := ctx.Value(callerKey{}).(*Subscription)
	return caller != nil && caller.hears(f)
}
