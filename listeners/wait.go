package listeners

import (
	"context"
	"fmt"
	"time"
)

// A durable listener does not say when it has stored something, so Wait asks
// it, at first often.
const (
	askFirst = time.Millisecond
	askLast  = 50 * time.Millisecond
)

// Wait returns nil when the listener has handled (or, if it is [Durable],
// stored) everything that it wants up to a position: what a write returned, for
// instance, so that the writer knows that this listener has heard of it. A
// snapshot that is under way counts when the listener has handled its Live,
// since before that it does not know what the snapshot contains.
//
// It returns the cause of ctx's end; and an error that wraps [ErrClosed], or
// what [Subscription.Err] returns, when the subscription is closed or ends
// before that; and at once a [ParkedError] when a parked batch holds the position
// back. A position that the source never reaches is waited for until
// then. Wait does not make a durable listener flush. A listener that waits for
// its own subscription would never return; with the context it was called
// with, it gets an error instead.
func (s *Subscription) Wait(ctx context.Context, p Position) error {
	own, _ := ctx.Value(callerKey{}).(*Subscription)
	var ask *time.Timer // nil unless the listener must be asked
	pause := askFirst
	for {
		moved, upstream := s.watch(), s.watchUpstream()
		if s.reached(p) {
			return nil
		}
		switch {
		case s.ctx.Err() != nil:
			return s.endedBefore(p)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case own == s:
			return fmt.Errorf("subscription %q: its listener waits for itself to handle %s; wait on another goroutine", s.name, p)
		}
		if err := s.heldBack(p); err != nil {
			return err
		}
		var asked <-chan time.Time
		if s.durable != nil {
			if ask == nil {
				ask = time.NewTimer(pause)
				defer ask.Stop()
			} else {
				ask.Reset(pause)
			}
			asked = ask.C
			pause = min(2*pause, askLast)
		}
		select {
		case <-upstream:
		case <-moved:
			pause = askFirst
		case <-asked:
		case <-s.ctx.Done():
		case <-ctx.Done():
		}
	}
}

// watch returns a channel that is closed when the subscription has next handled
// or left out something.
func (s *Subscription) watch() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved == nil {
		s.moved = make(chan struct{})
	}
	return s.moved
}

// move is movedLocked for who has not the mu.
func (s *Subscription) move() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.movedLocked()
}

// movedLocked wakes those who wait.
func (s *Subscription) movedLocked() {
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

func (s *Subscription) reached(p Position) bool {
	s.mu.Lock()
	joining := s.joining
	s.mu.Unlock()
	return !joining && s.Handled().Compare(p) >= 0
}

// heldBack returns an error if p is not reached until somebody deals with a
// parked batch.
func (s *Subscription) heldBack(p Position) error {
	s.mu.Lock()
	joining := s.joining
	s.mu.Unlock()
	if l := s.lot(); l != nil && !joining {
		if e, ok := l.holding(p); ok {
			return &ParkedError{Subscription: s.name, ID: e.ID, Position: e.Batch.Position, Err: e.Err}
		}
	}
	return nil
}

func (s *Subscription) endedBefore(p Position) error {
	err := s.Err()
	if err == nil {
		err = context.Cause(s.ctx)
	}
	return fmt.Errorf("subscription %q ended at %s before it reached %s: %w", s.name, s.Handled(), p, err)
}
