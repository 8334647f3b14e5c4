package listeners

import "context"

// Pause holds the subscription: after the callback that runs or is about to
// begin, none begins until [Subscription.Resume]; a snapshot stops where it is,
// and a [Durable] listener is not asked to flush, except at the end of the
// feed. Pause does not block and may be called any number of times, also by the
// listener.
//
// What is appended meanwhile waits, see [Subscription.Lag]. A paused
// subscription is a slow one: its writers wait for it once the feed is full,
// unless its [Overflow] says otherwise. It can be closed like any other, and
// the end of its feed ends it.
func (s *Subscription) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed == nil {
		s.resumed = make(chan struct{})
		s.paused.Store(true)
		if s.interrupt != nil {
			close(s.interrupt)
			s.interrupt = nil
		}
	}
}

// interrupted returns a channel that is closed when the subscription is paused.
func (s *Subscription) interrupted() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupt == nil {
		s.interrupt = make(chan struct{})
	}
	c := s.interrupt
	if s.resumed != nil {
		close(c)
		s.interrupt = nil
	}
	return c
}

// Resume ends a pause, however often Pause was called. Nothing was lost but
// for what the subscription's [Overflow] says.
func (s *Subscription) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed != nil {
		s.paused.Store(false)
		close(s.resumed)
		s.resumed = nil
	}
}

// Paused reports whether the subscription is held by [Subscription.Pause].
func (s *Subscription) Paused() bool { return s.paused.Load() }

// hold waits for the end of a pause, or returns the cause of ctx's end.
func (s *Subscription) hold(ctx context.Context) error {
	for s.paused.Load() {
		s.mu.Lock()
		resumed := s.resumed
		s.mu.Unlock()
		if resumed == nil {
			continue
		}
		select {
		case <-resumed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// holdOpen is hold for as long as the subscription and its feed are open. The
// one that calls it looks which of the two is not.
func (s *Subscription) holdOpen() {
	if !s.paused.Load() {
		return
	}
	ctx, cancel := s.whileOpen()
	defer cancel(nil)
	_ = s.hold(ctx)
}
