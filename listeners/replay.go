package listeners

import (
	"context"
	"errors"
)

// A Replay tells a subscription what came behind a position, from elsewhere than
// the feed: it emits those batches in order, each once, and returns the position
// up to which the feed's batches are contained in them, or before the position to
// go on from, and must be left out. It tells at least all that was appended
// before it was called. A [HistoryError] says that what came behind the position
// is gone. It runs as a [Join] does.
type Replay func(ctx context.Context, from Position, emit func(*Batch) error) (Position, error)

// replay returns a join that goes on from a position, with join where that is
// not possible.
func (s *Subscription) replay(from Position, join Join) Join {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.stored, s.joining, s.replaying = from, from, true, true
	s.skip = from
	s.movedLocked()
	return func(ctx context.Context, emit func(*Batch) error) (Position, error) {
		at, err := s.feed.replay(ctx, from, emit)
		s.mu.Lock()
		s.replaying = false
		s.mu.Unlock()
		gone, isGone := errors.AsType[*HistoryError](err)
		switch {
		case isGone && join != nil:
			if err := s.giveUp(); err != nil {
				return Position{}, err
			}
			return join(ctx, emit)
		case isGone:
			named := *gone
			named.Subscription, named.Asked = s.name, from
			return Position{}, &named
		}
		return at, err
	}
}
