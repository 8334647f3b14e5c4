package listeners

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// DefaultSaveInterval is how often a subscription stores its position at most,
// unless [SubscribeOptions] say otherwise.
const DefaultSaveInterval = 250 * time.Millisecond

// SaveTimeout bounds each attempt to store a position, the last one of a
// subscription too.
const SaveTimeout = 10 * time.Second

// A saving stores the positions of one subscription, on a goroutine of its own,
// so that a slow store does not slow the listener.
type saving struct {
	store    PositionStore
	interval time.Duration
	keeper   PositionKeeper // nil before the name is opened
	urgent   chan struct{}  // of capacity 1: somebody waits in revoke
	quit     chan struct{}  // closed when the subscription ends
	stopped  chan struct{}  // closed when its goroutine has ended

	border Position // of the last whole transaction or snapshot; guarded by Subscription.mu

	// Of its goroutine, and after that of the subscription's.
	mark  Position // a border that waits for a Durable listener, or for what is parked
	due   Position // the last border that was ready to be stored
	taken bool     // the name is another's

	mu    sync.Mutex
	saved Position
	kept  Position      // the last one that was saved, also after what is stored was revoked
	err   error         // of the last attempt
	asked chan struct{} // to be closed when what is stored is revoked; nil if nobody waits
}

// revoked is stored where no position is good to go on from any more, but the
// present state is not told to its end: no position of a source is like it.
func revoked() Position { return Position{Index: 1} }

// limit returns what of a position is stored.
func (p *past) limit(handled Position) Position {
	if p.saving == nil {
		return handled
	}
	v := p.saving
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.kept.Compare(handled) < 0 {
		return v.kept
	}
	return handled
}

func (v *saving) state() (Position, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.saved, v.err
}

func (v *saving) set(saved Position, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch v.err = err; {
	case err != nil:
	case saved == revoked():
		v.saved = Position{}
	default:
		v.saved, v.kept = saved, saved
	}
}

// revoke has the position that is stored taken back, before the listener is
// told the present state again: it forgets what it had, so it cannot go on from
// there if it ends before it has heard that to its end. The caller has set
// joining, so that no border comes.
func (s *Subscription) revoke() error {
	if s.past == nil || s.past.saving == nil {
		return nil
	}
	v := s.past.saving
	s.mu.Lock()
	none := v.border.IsZero()
	s.mu.Unlock()
	v.mu.Lock()
	none = none && v.saved.IsZero()
	v.mu.Unlock()
	if none {
		return nil
	}
	return s.takeBack()
}

// giveUp is revoke for a position whose history is gone, be it stored or From:
// it may be a good one again by the next time, if its source has grown past it,
// and the present state not be told to its end.
func (s *Subscription) giveUp() error {
	if s.past.saving == nil {
		return nil
	}
	if err := s.takeBack(); err != nil {
		return err
	}
	s.past.saving.forget()
	return nil
}

func (s *Subscription) takeBack() error {
	v, done := s.past.saving, make(chan struct{})
	v.mu.Lock()
	v.asked = done
	v.mu.Unlock()
	v.urgent <- struct{}{} // there is room: nobody else asks
	select {
	case <-done:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-s.feed.open.Done():
		return errFeedEnded
	}
}

// revoking reports whether somebody waits for that.
func (v *saving) revoking() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked != nil
}

// wasRevoked is called when that is stored.
func (s *Subscription) wasRevoked() {
	v := s.past.saving
	v.mark, v.due = Position{}, Position{}
	s.mu.Lock()
	v.border = Position{}
	s.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.asked)
	v.asked = nil
}

// forget is called when what is stored is of no use any more. Nothing counts
// as stored from now on, not even if positions go back.
func (v *saving) forget() { v.set(Position{}, nil) }

// Saved returns the position that is stored under the subscription's name, see
// [SubscribeOptions].Positions, the zero Position if none is or it was taken
// back, and why the last attempt to store one failed, nil if it did not. It is
// tried again.
func (s *Subscription) Saved() (Position, error) {
	if s.past == nil || s.past.saving == nil {
		return Position{}, nil
	}
	return s.past.saving.state()
}

// noteLocked is called when what was passed moves; whole says that it is the
// end of something. A position within a snapshot is none to go on from.
func (s *Subscription) noteLocked(whole bool) {
	if whole && (!s.joining || s.replaying) && s.past != nil && s.past.saving != nil {
		s.past.saving.border = s.passed
	}
}

// openName takes the subscription's name in its store, and begins to save.
func (s *Subscription) openName(ctx context.Context) (Position, error) {
	v := s.past.saving
	var stored Position
	err := contained(func() (err error) {
		v.keeper, stored, err = v.store.Open(ctx, s.name)
		return err
	})
	if err != nil {
		v.keeper = nil
		return Position{}, fmt.Errorf("subscription %q: load its position: %w", s.name, err)
	}
	v.set(stored, nil)
	go s.save() // waited for by endSaving
	return stored, nil
}

// save runs until the subscription ends.
func (s *Subscription) save() {
	v := s.past.saving
	defer close(v.stopped)
	timer := time.NewTimer(v.interval)
	defer timer.Stop()
	for {
		moved := s.watch()
		target, more := s.savable()
		if v.revoking() {
			target = revoked()
		}
		if target.IsZero() && !more {
			select {
			case <-moved:
				continue
			case <-v.urgent:
				continue
			case <-v.quit:
				return
			}
		}
		if !target.IsZero() {
			if err := s.saveNow(target); errors.Is(err, ErrNameTaken) {
				v.taken = true
				s.cancel(err)
				return
			} else if err == nil && target == revoked() {
				s.wasRevoked()
				continue
			}
		}
		timer.Reset(v.interval)
		select {
		case <-timer.C:
		case <-v.urgent:
		case <-v.quit:
			return
		}
	}
}

// savable returns the position to store, the zero Position if there is none,
// and whether there may be one without anybody to say so.
func (s *Subscription) savable() (target Position, more bool) {
	v := s.past.saving
	s.mu.Lock()
	border := v.border
	s.mu.Unlock()
	handled := s.Handled()
	saved, _ := v.state()
	silent := s.durable != nil // who deals with a parked batch says so
	switch {
	case border.IsZero() || border == saved:
		return Position{}, false
	case handled.Compare(border) >= 0:
		v.mark, v.due = Position{}, border
		return border, false
	case handled.Compare(v.mark) >= 0:
		// A Durable listener may never be up to date, nor who has parked batches. So
		// one border after the other waits for that, and none is remembered but it.
		if !v.mark.IsZero() {
			v.due = v.mark
		}
		v.mark = border
	}
	if v.due == saved {
		return Position{}, silent
	}
	return v.due, silent // once more, if the store has failed
}

func (s *Subscription) saveNow(p Position) error {
	v := s.past.saving
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), SaveTimeout)
	defer cancel()
	err := contained(func() error { return v.keeper.Save(ctx, p) })
	if err != nil {
		err = fmt.Errorf("subscription %q: store its position %s: %w", s.name, p, err)
	}
	v.set(p, err)
	return err
}

// endSaving stores the last position, if there is one that is not stored.
func (s *Subscription) endSaving() error {
	if s.past == nil || s.past.saving == nil || s.past.saving.keeper == nil {
		return nil
	}
	v := s.past.saving
	close(v.quit)
	<-v.stopped
	var err error
	if target, _ := s.savable(); !target.IsZero() && !v.taken {
		err = s.saveNow(target)
	}
	if closeErr := contained(v.keeper.Close); closeErr != nil && err == nil {
		err = fmt.Errorf("subscription %q: let go of its name: %w", s.name, closeErr)
	}
	return err
}

// contained runs the code of a store.
func contained(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
