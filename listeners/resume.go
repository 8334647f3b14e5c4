package listeners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// A past is what a subscription needs that goes on from a position.
type past struct {
	from   Position // the zero Position if only the store knows
	saving *saving  // nil unless it stores positions

	// Where it begins without a position, at the time of Subscribe, and what it
	// leaves out then.
	begin, skip Position
}

func newPast(opts *SubscribeOptions) *past {
	if opts.From.IsZero() && opts.Positions == nil {
		return nil
	}
	p := &past{from: opts.From}
	if opts.Positions != nil {
		p.saving = &saving{
			store: opts.Positions, interval: cmp.Or(max(0, opts.SaveInterval), DefaultSaveInterval),
			urgent: make(chan struct{}, 1), quit: make(chan struct{}), stopped: make(chan struct{}),
		}
	}
	return p
}

// takeUp finds the place to go on from. It returns the join that is needed
// because there is none, nil if nothing is to be told.
func (s *Subscription) takeUp(join Join) (Join, error) {
	ctx, cancel := s.whileOpen()
	defer cancel(nil)
	from := s.past.from
	if s.past.saving != nil {
		stored, err := s.openName(ctx)
		if err != nil {
			return nil, s.unlessClosed(err)
		}
		if stored == revoked() {
			if join == nil {
				return nil, s.unlessClosed(&HistoryError{Subscription: s.name, Asked: stored})
			}
			return join, nil
		}
		if !stored.IsZero() {
			from = stored
		}
	}
	if from.IsZero() {
		return join, s.beginAfresh(ctx, join)
	}
	at, skip, err := s.feed.find(ctx, s.at.Load(), from)
	gone, isGone := errors.AsType[*HistoryError](err)
	switch {
	case isGone && s.feed.replay != nil:
		return s.replay(from, join), nil
	case isGone && join != nil:
		if err := s.giveUp(); err != nil {
			return nil, s.unlessClosed(err)
		}
		return join, nil // its position stays unknown until that is told
	case isGone:
		named := *gone
		named.Subscription, named.Asked = s.name, from
		return nil, s.unlessClosed(&named)
	case err != nil:
		return nil, s.unlessClosed(fmt.Errorf("subscription %q: go on from %s: %w", s.name, from, err))
	}
	s.goOn(at, skip)
	return nil, nil //nolint:nilnil // nothing is to be told
}

// unlessClosed returns the reason of an end that came from outside in place of
// the error that it led to.
func (s *Subscription) unlessClosed(err error) error {
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case s.feed.closed():
		return ErrClosed
	}
	return err
}

// beginAfresh is for a subscription that has no position to go on from: what
// came before Subscribe is not for it.
func (s *Subscription) beginAfresh(ctx context.Context, join Join) error {
	begin := s.past.begin
	if join == nil {
		if begin.IsZero() && s.past.saving != nil {
			var err error
			if begin, err = s.feed.beginning(ctx); err != nil {
				return s.unlessClosed(fmt.Errorf("subscription %q: where its source begins: %w", s.name, err))
			}
		}
		s.joined(s.past.skip)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.stored, s.joining = begin, begin, join != nil
	s.noteLocked(true)
	s.movedLocked()
	return nil
}

// beginning returns the position before the first batch, the zero Position if
// there is none.
func (f *Feed) beginning(ctx context.Context) (Position, error) {
	switch {
	case f.upstream != nil:
		return f.upstream.feed.beginning(ctx)
	case f.begin != nil:
		return f.begin(ctx)
	}
	return Position{}, nil
}

// goOn has it hear what is behind a place, but for what is at or before skip.
func (s *Subscription) goOn(at *node, skip Position) {
	s.feed.mu.Lock()
	// Otherwise it overflowed meanwhile, and has to begin again anyway.
	if s.place == nil || !s.place.dropped {
		if s.ctx.Err() == nil {
			s.at.Store(at)
		}
		s.within = false
		s.open = at.within && !skip.IsZero()
	}
	if s.place != nil {
		s.place.joining = false
	}
	s.skip = skip
	s.feed.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.stored, s.joining = skip, skip, false
	s.noteLocked(true)
	s.movedLocked()
}

// unheard returns what of a batch was not heard before, which is all of it
// unless the position to go on from lies within.
func (s *Subscription) unheard(b *Batch) *Batch {
	rest := s.behind(b)
	if rest != b {
		s.open = true
	}
	return rest
}

// behind returns b without the events at or before skip. Only a transaction
// that is split otherwise than it was when its first events were heard has
// some.
func (s *Subscription) behind(b *Batch) *Batch {
	if b.Kind != Changes || b.Position.Commit != s.skip.Commit || b.Position.Epoch != s.skip.Epoch {
		return b
	}
	n := 0
	for n < len(b.Events) && b.Events[n].Position.Compare(s.skip) <= 0 {
		n++
	}
	if n == 0 {
		return b
	}
	c := *b
	c.Events, c.First = b.Events[n:], false
	return &c
}

// find returns the place in the log from which on a reader of it that leaves
// out what is at or before skip hears all that came behind a position. Own is
// the place of the reader that asks. The error is a [HistoryError] if there is none.
func (f *Feed) find(ctx context.Context, own *node, from Position) (at *node, skip Position, err error) {
	f.mu.Lock()
	base, tail := own, f.tail
	if f.oldest != nil && f.oldest.seq < base.seq {
		base = f.oldest
	}
	f.mu.Unlock()

	var oldest Position
	if from.Compare(tail.position) <= 0 {
		// The log is read without the lock, since writers wait for that: a node
		// does not change once there is another one.
		for n := base; n != nil && n.position.Compare(from) <= 0; n = n.next.Load() {
			if n.seq > 0 {
				at = n
			}
			if n == tail {
				break
			}
		}
		if at != nil {
			return at, from, nil
		}
	}
	switch {
	case base.seq > 0:
		oldest = base.position
	case f.resume != nil:
		skip, err := f.resume(ctx, from)
		return base, skip, err
	case base.next.Load() != nil:
		oldest = base.next.Load().position
	}
	return nil, Position{}, &HistoryError{Asked: from, Oldest: oldest}
}

// forget drops the oldest of the history that is more than was asked for.
func (f *Feed) forget() {
	for f.tail.bytes-f.oldest.bytes > f.history {
		f.oldest = f.oldest.next.Load()
	}
}
