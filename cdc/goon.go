package cdc

import (
	"context"

	"github.com/rowcall/rowcall/listeners"
)

// A begin is what the first run of a slot found.
type begin struct {
	confirmed LSN                // every commit from there on comes
	last      listeners.Position // at or after every event before that
	partly    bool               // a snapshot goes on, of the tables that are left
}

// noteBegin is called before anything is read.
func (s *Source) noteBegin(inv *inventory, resumed bool) {
	st := s.state.get()
	b := begin{confirmed: st.Confirmed, last: st.Last, partly: resumed}
	if inv.slot != nil {
		b.confirmed = inv.slot.confirmed // a server that crashed may have forgotten a later one
	}
	if b.last.IsZero() {
		b.last = st.before(st.Confirmed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin = b
}

// resume answers for [listeners.FeedOptions]: from where a subscription hears
// the feed from its beginning, to go on from a position.
//
// The slot's own position is no event's: an idle slot moves over what concerns
// nobody. So the state knows the last transaction that was stored before it.
func (s *Source) resume(ctx context.Context, from listeners.Position) (listeners.Position, error) {
	if err := s.awaitReady(ctx); err != nil {
		return listeners.Position{}, err
	}
	s.mu.Lock()
	begin, epoch, shared, standby := s.begin, s.epoch, s.shared, s.standby
	s.mu.Unlock()
	gone := &listeners.HistoryError{Asked: from, Oldest: begin.last}
	switch {
	case shared:
		return listeners.Position{}, nil
	case begin.partly:
		gone.Oldest = listeners.Position{}
		return listeners.Position{}, gone
	case from.Epoch != epoch:
		return listeners.Position{}, gone
	case from.Compare(begin.last) < 0 && LSN(from.Commit)+1 < begin.confirmed:
		if s.c.StateDir == "" {
			s.c.Logger.WarnContext(ctx, "the slot was confirmed behind a position to go on from; without a StateDir it is not known whether it passed anything", "slot", s.c.Slot, "position", from.String(), "confirmed", begin.confirmed.String())
		}
		return listeners.Position{}, gone
	case standby:
		return from, nil // it may be behind the server that from was read from
	}
	var end LSN
	err := s.persist(ctx, "look-up of the log's end", func() (bool, error) {
		conn, err := s.c.connect(ctx)
		if err != nil {
			return false, err
		}
		defer hangUp(ctx, conn.PgConn())
		end, err = endOfLog(ctx, conn)
		return false, err
	})
	switch {
	case err != nil:
		return listeners.Position{}, err
	case LSN(from.Commit) >= end:
		// A cluster that was restored to a time before it.
		return listeners.Position{}, gone
	}
	return from, nil
}

// beginning answers for [listeners.FeedOptions]. A run that tells a snapshot
// begins with that: whoever leaves before its end has heard nothing to go on
// from.
func (s *Source) beginning(ctx context.Context) (listeners.Position, error) {
	if err := s.awaitReady(ctx); err != nil {
		return listeners.Position{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared || s.begin.partly {
		return listeners.Position{}, nil
	}
	return s.begin.last, nil
}

func (s *Source) awaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-s.ended:
		return listeners.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
