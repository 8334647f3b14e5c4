package listeners

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Parked is a batch that a listener could not handle, or one that waits
// behind such a one, see [RetryPolicy].Park.
type Parked struct {
	ID uint64 // of this subscription; the first is 1
	// Batch is what the listener was or is to be given. It is read-only.
	Batch *Batch
	// Err is what the listener last returned for it (of a panic a [PanicError]);
	// nil if it was never handed over, or only in a group.
	Err      error
	Attempts int       // how often it was handed over
	Since    time.Time // when it was parked
	// Behind is the ID of an earlier one that concerns one of its keys and has to
	// go first; 0 if there is none.
	Behind uint64
	// Stale says that a Reset of its collections came after it: the state that was
	// told since contains it. It can only be discarded.
	Stale bool
}

// ErrNotParked says that a subscription has parked no batch of an ID, or no
// longer.
var ErrNotParked = errors.New("listeners: not parked")

// ErrStale says that a parked batch is older than the state that its listener
// was told since.
var ErrStale = errors.New("listeners: parked before a reset, whose snapshot contains it; discard it")

// A ParkedBehindError says that an earlier parked batch has to go first.
type ParkedBehindError struct{ ID, Behind uint64 }

// Error implements error.
func (e *ParkedBehindError) Error() string {
	return fmt.Sprintf("parked batch %d concerns a key of %d, which was parked before; retry or discard %d first", e.ID, e.Behind, e.Behind)
}

// A ParkFullError says that a batch could not be parked. It was not handled.
type ParkFullError struct {
	Batches int   // that are parked
	Bytes   int64 // of them
	Err     error // of the listener; nil for a batch that had to wait behind a parked one
}

// Error implements error.
func (e *ParkFullError) Error() string {
	s := fmt.Sprintf("no room to park the batch beside %d of %d bytes; retry or discard those, or raise ParkMax or ParkBytes", e.Batches, e.Bytes)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the listener's error.
func (e *ParkFullError) Unwrap() error { return e.Err }

// A ParkedError is what [Subscription.Wait] returns for a position that a parked
// batch holds back.
type ParkedError struct {
	Subscription string
	ID           uint64
	Position     Position
	Err          error // of the listener
}

// Error implements error.
func (e *ParkedError) Error() string {
	return fmt.Sprintf("subscription %q has parked the batch at %s; retry or discard parked batch %d: %v", e.Subscription, e.Position, e.ID, e.Err)
}

// Unwrap returns the listener's error.
func (e *ParkedError) Unwrap() error { return e.Err }

// Parked returns the batches that are parked, in the order in which they were,
// which is the order of each key. It is empty without [RetryPolicy].Park. The
// list outlives the subscription, in memory.
//
// A batch that concerns a key of a parked one is parked behind it without being
// handed over, and so are the later parts of a transaction of which a part is
// parked: a key's events never swap. An update of the key concerns both keys; a
// truncate, a message and a row without a whole key concern all of their
// collection. Rows that are read again while changes come (a Snapshot without a
// Reset) wait as changes do. A Reset of its collections makes a parked batch stale; of a batch
// that only in part belongs to them, that part becomes one of its own.
func (s *Subscription) Parked() []Parked {
	l := s.lot()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Parked, len(l.list))
	for i, e := range l.list {
		out[i] = e.Parked
	}
	if l.policy.ParkUnordered {
		return out
	}
	before := newQueue()
	for i, e := range l.list {
		if e.Stale {
			continue
		}
		if before.has(e) {
			out[i].Behind = l.blockerOf(i)
		}
		before.add(e)
	}
	return out
}

// RetryParked hands a parked batch over once more, between two others, on the
// subscription's goroutine, and returns what the listener did. If that was nil,
// the batch is no longer parked, and those that waited behind it and nothing else
// follow in order, as new batches would, until one fails: that one is an entry
// with an error then. Other errors are [ErrNotParked], [ErrStale], a
// [ParkedBehindError], the cause of ctx's end, and one that wraps [ErrClosed] or
// what [Subscription.Err] returns after the end.
//
// It waits for its turn: for the batch that the listener is at with its
// attempts, a snapshot, the end of a pause. After ctx's end it waits no more; an
// attempt that has begun goes on, and [Subscription.Parked] tells how it ended.
// A listener cannot retry with the context it was called with.
func (s *Subscription) RetryParked(ctx context.Context, id uint64) error {
	l := s.lot()
	if l == nil {
		return s.parkedErr(id, ErrNotParked)
	}
	if own, _ := ctx.Value(callerKey{}).(*Subscription); own == s {
		return s.parkedErr(id, errors.New("its listener waits for itself; retry on another goroutine"))
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r := &retryRequest{id: id, done: make(chan error, 1)}
	if err := l.ask(r); err != nil {
		return s.parkedErr(id, err)
	}
	s.nudge()
	var err error
	select {
	case err = <-r.done:
	case <-ctx.Done():
		l.withdraw(r)
		return context.Cause(ctx)
	case <-s.done:
		select {
		case err = <-r.done:
		default:
			if err = s.Err(); err == nil {
				err = ErrClosed
			}
		}
	}
	return s.parkedErr(id, err)
}

// DiscardParked gives a parked batch up, and then counts it as handled. Those
// that waited behind it and nothing else are handed over next. It does not
// block. Its errors are [ErrNotParked] and that the batch is being retried.
func (s *Subscription) DiscardParked(id uint64) error {
	l := s.lot()
	if l == nil {
		return s.parkedErr(id, ErrNotParked)
	}
	if err := l.discard(id); err != nil {
		return s.parkedErr(id, err)
	}
	s.move()
	s.nudge()
	return nil
}

func (s *Subscription) parkedErr(id uint64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("subscription %q, parked batch %d: %w", s.name, id, err)
}

// nudge has the subscription's goroutine look for what to do besides batches.
func (s *Subscription) nudge() {
	select {
	case s.wakeup <- struct{}{}:
	default: // it will look
	}
}

func (s *Subscription) lot() *lot {
	if s.relay == nil {
		return nil
	}
	return s.relay.lot
}
