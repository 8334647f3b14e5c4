package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

const (
	defaultCatchUpBytes = 64 << 20

	// A call reads the log from the slot's restart point again, which is at the
	// start of the oldest transaction that was open when the server last noted
	// those. So calls are large, as far as the server's temporary files and the
	// wait for the first row allow.
	firstCall    = 100_000 // changes
	largeCall    = 500_000
	largestCall  = 2_000_000 // where much is read again
	callBytes    = 512 << 20 // of log: many of its bytes may be of other tables
	slowCall     = 10 * time.Second
	worstReread  = 4 // times the new log that the next call will cover
	handOverPart = 4 // the rest is streamed once it is this part of CatchUpBytes
)

// A lag is how far the slot is behind, and why its rows may not be read by SQL.
type lag struct {
	bytes  int64
	system uint64
	active bool
	why    string
}

// lag looks the slot up. What is wrong with it is for streaming to say.
func (q *catalog) lag(ctx context.Context) (lag, error) {
	conn, err := q.connected(ctx)
	if err != nil {
		return lag{}, err
	}
	var l lag
	var system int64
	// A slot that standbys keep a copy of must not be read ahead of them. The
	// walsender waits for them, the reader of a copy would not.
	err = conn.QueryRow(ctx, `
		SELECT CASE WHEN NOT pg_is_in_recovery() THEN coalesce(pg_current_wal_flush_lsn() - confirmed_flush_lsn, 0) ELSE 0 END::bigint,
			active, (SELECT system_identifier FROM pg_control_system()),
			CASE WHEN two_phase THEN 'the slot is one for two-phase transactions, and a copy of it would not be'
				WHEN coalesce(to_jsonb(s) ->> 'failover', 'false') = 'true'
					AND coalesce(current_setting('synchronized_standby_slots', true), '') <> ''
				THEN 'synchronized_standby_slots is set for this slot' ELSE '' END
		FROM pg_replication_slots s WHERE slot_name = $1`, q.c.Slot).Scan(&l.bytes, &l.active, &system, &l.why)
	l.system = uint64(system)
	return l, err
}

// catchUp reads a large backlog with SQL functions: a walsender sends each row
// on its own, a query's result comes in large pieces. It leaves the rest to
// streaming, which begins at the slot's confirmed position and leaves out what
// is in the feed. It reports whether anything was read. An error is one to try
// again after or to end with; where SQL is refused, there is none.
func (s *Source) catchUp(ctx context.Context, b *batcher, catalog *catalog, again bool) (progressed bool, err error) {
	if s.c.CatchUpBytes < 0 || s.noCatchUp || s.c.TwoPhase {
		return false, nil
	}
	l, err := catalog.lag(ctx)
	system, _ := s.reading()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil && transient(err):
		return false, fmt.Errorf("look up slot %q: %w", s.c.Slot, err)
	case err != nil:
		l.why = err.Error()
	case l.active, l.system != system, l.bytes <= s.c.CatchUpBytes:
		return false, nil
	}
	if l.why != "" {
		s.c.Logger.InfoContext(ctx, "no catching up by SQL; streaming", "slot", s.c.Slot, "because", l.why)
		return false, nil
	}
	if err := s.recogniseServer(ctx); err != nil {
		return false, err
	}
	if err := s.checkSlot(ctx, catalog, again); err != nil {
		return false, err
	}
	began, before := time.Now(), s.Stats()
	s.c.Logger.InfoContext(ctx, "catching up", "slot", s.c.Slot, "from", before.Confirmed.String(), "behind", size(l.bytes))
	progressed, err = s.drainCopy(ctx, b, catalog)
	now := s.Stats()
	took := time.Since(began)
	if ctx.Err() != nil {
		return progressed, err
	}
	if refused(err) {
		// Streaming may work, or says better what is wrong.
		s.noCatchUp = true
		s.c.Logger.WarnContext(ctx, "catching up by SQL does not work here; streaming", "slot", s.c.Slot, "error", err)
		return progressed, nil
	}
	if err == nil {
		s.c.Logger.InfoContext(ctx, "caught up", "slot", s.c.Slot, "at", now.Received.String(),
			"events", now.Events-before.Events, "took", took.Round(time.Millisecond))
	}
	return progressed, err
}

// refused reports whether the server does not want this query from us: no
// privilege, no free slot, a limit on temporary files.
func refused(err error) bool {
	if _, ok := errors.AsType[*SlotError](err); ok {
		return false
	}
	state := sqlState(err)
	return state != "" && (!transient(err) || state[:2] == "53" || state == "57014")
}

// drainCopy reads a copy of the slot while the slot itself follows what is
// stored.
func (s *Source) drainCopy(ctx context.Context, b *batcher, catalog *catalog) (progressed bool, err error) {
	q, err := s.copySlot(ctx)
	if err != nil {
		return false, err
	}
	// Not before the copy was made: it could be of another slot of that name.
	if err := s.checkSlot(ctx, catalog, true); err != nil {
		q.close(ctx)
		return false, err
	}
	a := &slotAdvancer{s: s}
	a.catalog.c = s.c
	defer a.catalog.close(ctx)
	reading, cancel := context.WithCancelCause(ctx)
	var advancing sync.WaitGroup
	advancing.Go(func() {
		if err := a.run(reading); err != nil {
			cancel(err)
		}
	})
	progressed, err = s.drainCalls(reading, q, b, catalog)
	if ctx.Err() == nil && reading.Err() != nil {
		err = context.Cause(reading)
	}
	cancel(nil)
	advancing.Wait()
	q.close(ctx)
	if err == nil {
		// There streaming begins. It can begin before, too, and leaves out what is
		// in the feed.
		if err = a.advance(ctx); err != nil && ctx.Err() == nil && transient(err) {
			s.c.Logger.WarnContext(ctx, "the slot was not moved after catching up", "slot", s.c.Slot, "error", err)
			err = nil
		}
	}
	if ctx.Err() == nil {
		return progressed, err
	}
	if stopped := stoppedBy(ctx); stopped != nil {
		return progressed, stopped
	}
	err = s.stop(ctx)
	if err := a.advance(ctx); err != nil {
		s.c.Logger.WarnContext(ctx, "the slot was not moved at the end; some transactions will come again", "error", err)
	}
	return progressed, err
}

// drainCalls reads the copy call by call until the rest is small.
func (s *Source) drainCalls(ctx context.Context, q *slotCopy, b *batcher, catalog *catalog) (progressed bool, err error) {
	for n := firstCall; ; {
		d := s.newDecoder(b, catalog, nil)
		began, from := time.Now(), q.at
		err := q.read(ctx, n, from+callBytes, func(lsn LSN, msg []byte) error {
			progressed = true
			return d.message(ctx, lsn, msg)
		})
		if err == nil && d.open {
			err = &DecodeError{LSN: q.at, Message: pgoutput.TypeBegin, Err: errors.New("a transaction has no end")}
		}
		if skippedPublication(err) {
			return progressed, s.publicationGone(err)
		}
		if err != nil {
			return progressed, fmt.Errorf("catch up: %w", err)
		}
		if err := q.look(ctx); err != nil {
			return progressed, fmt.Errorf("catch up: %w", err)
		}
		s.tracker.nothing(q.at, false)
		if err := s.checkSlot(ctx, catalog, true); err != nil {
			return progressed, err
		}
		covered, reread, left := int64(q.at-from), int64(q.at-q.restart), int64(q.end-q.at)
		s.c.Logger.DebugContext(ctx, "catch-up call", "at", q.at.String(), "covered", size(covered),
			"read_again", size(reread), "left", size(left), "took", time.Since(began).Round(time.Millisecond))
		if left < s.c.CatchUpBytes/handOverPart || covered <= 0 {
			return progressed, nil
		}
		next := n
		switch {
		case time.Since(began) > slowCall:
		case n < largeCall:
			next = min(4*n, largeCall)
		case reread > covered:
			next = min(2*n, largestCall)
		}
		if reread > worstReread*min(left, covered*int64(next)/int64(n)) {
			// A transaction is open for long, or others write as fast as this reads.
			s.c.Logger.InfoContext(ctx, "too much would be read again; streaming the rest", "left", size(left), "again", size(reread))
			return progressed, nil
		}
		n = next
	}
}
