package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/rowcall/rowcall/listeners"
)

// run is Run without its end. A slot that is lost may be followed by another
// one.
func (s *Source) run(ctx context.Context) error {
	for first := true; ; first = false {
		err := s.serve(ctx, first)
		again, err := s.beginAgain(ctx, err)
		if !again || err != nil {
			return err
		}
	}
}

// prepare connects and sets up: at once or not at all in the beginning, and
// with patience later.
func (s *Source) prepare(ctx context.Context, first bool) (inv *inventory, snapshot, resumed bool, err error) {
	attempt := func() (bool, error) {
		connect := s.c.connect
		if first {
			connect = s.connectFirst
		}
		conn, err := connect(ctx)
		if err != nil {
			return false, err
		}
		if inv, snapshot, err = s.setUp(ctx, conn); err == nil {
			resumed, err = s.settleSnapshot(ctx, conn, inv, snapshot)
		}
		if closeErr := conn.Close(context.WithoutCancel(ctx)); closeErr != nil {
			s.c.Logger.DebugContext(ctx, "closing the set-up connection", "error", closeErr)
		}
		return false, err
	}
	if first {
		_, err = attempt()
	} else {
		err = s.persist(ctx, "set-up", attempt)
	}
	return inv, snapshot, resumed, err
}

// serve reads one slot, from its making or from where it stands, until it
// ends for good.
func (s *Source) serve(ctx context.Context, first bool) error {
	inv, snapshot, resumed, err := s.prepare(ctx, first)
	if err != nil {
		return err
	}
	if !done(s.ready) {
		s.mu.Lock()
		s.shared = snapshot && !resumed
		s.mu.Unlock()
		s.noteBegin(inv, resumed)
		close(s.ready)
	}

	_, epoch := s.reading()
	b := &batcher{emit: s.append, source: s.c.database, epoch: epoch, maxBytes: s.c.MaxBatchBytes}
	if snapshot {
		err := s.persist(ctx, "snapshot", func() (bool, error) { return false, s.patient(ctx, s.initial(ctx, inv, b)) })
		if err != nil || s.c.Snapshot == SnapshotOnly {
			return err
		}
	}
	ctx, release := s.guard(ctx)
	defer release()
	catalog := &catalog{c: s.c}
	defer catalog.close(ctx)
	defer s.backs.close(ctx)
	started, began := false, time.Now()
	err = s.persist(ctx, "replication", func() (bool, error) {
		ok, err := s.catchUp(ctx, b, catalog, started)
		started = started || ok
		if err == nil && ctx.Err() == nil {
			var streamed bool
			streamed, err = s.stream(ctx, b, catalog, started)
			ok, started = ok || streamed, started || streamed
		}
		if !s.unstreamed && s.c.Streaming == StreamingOn && strings.HasPrefix(sqlState(err), "XX") {
			// Servers of all versions to date have failed to decode a transaction
			// in progress whose savepoint with an ALTER TABLE was rolled back
			// ("could not map filenode"). When it has committed, they can.
			s.unstreamed = true
			s.c.Logger.WarnContext(ctx, "the server failed at a transaction in progress; going on without streaming", "error", err)
			return true, errUnstreamed
		}
		if errors.Is(err, errMessageInDoubt) {
			s.unstreamed = true
			s.c.Logger.WarnContext(ctx, "going on without streaming", "because", err)
			return true, errUnstreamed
		}
		if undecodable(err) {
			left, leaveErr := s.leaveTwoPhase(ctx)
			if left {
				s.onePhase = true
				s.c.Logger.WarnContext(ctx, "the server failed at a prepared transaction; going on without two-phase transactions", "error", err)
				return true, cmp.Or(leaveErr, errOnePhase)
			}
			if leaveErr != nil {
				return false, leaveErr
			}
			lost := s.lost("the server cannot decode what it keeps")
			lost.Err = err
			return false, lost
		}
		if !started && sqlState(err) == "55006" && time.Since(began) > s.c.SlotWait {
			// Taken since the set-up. Later it may be our own last connection.
			err = &SlotError{Slot: s.c.Slot, Reason: "another process reads it", Err: err, Remedy: "stop that one, or choose another slot"}
		}
		return ok, err
	})
	if stopped := stoppedBy(ctx); stopped != nil {
		return stopped
	}
	return err
}

var errUnstreamed = errors.New("connecting again to do without streaming")

// persist repeats an attempt that fails for a reason that may pass, with
// growing delays. An attempt reports whether it got anywhere; then the delays
// start again from the first.
func (s *Source) persist(ctx context.Context, what string, attempt func() (bool, error)) error {
	delays := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0))
	for {
		progressed, err := attempt()
		if ctx.Err() != nil {
			return err
		}
		if err == nil || !transient(err) {
			return err
		}
		if progressed {
			delays.Reset()
		}
		delay := delays.NextBackOff()
		s.c.Logger.WarnContext(ctx, "interrupted, connecting again", "what", what, "error", err, "in", delay.Round(time.Millisecond))
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}

// CaughtUp returns nil when everything that was committed before the call has
// been delivered to every subscription and is stored by those that are
// durable. It asks the database where its log ends. It returns early with
// ctx's error, when Run ends, and when a subscription has failed that the slot
// waits for.
func (s *Source) CaughtUp(ctx context.Context) error {
	conn, err := s.c.connect(ctx)
	if err != nil {
		return err
	}
	target, err := endOfLog(ctx, conn)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	var position listeners.Position
	for {
		if stats := s.Stats(); stats.Received >= target && position.IsZero() {
			position = stats.Position // everything before target is in the feed
		}
		if s.tracker.passed(s.stored()) >= target && s.passed(position) {
			return nil
		}
		if err := s.failed(); err != nil {
			return err
		}
		s.hurry()
		select {
		case <-s.ended:
			if s.runErr != nil {
				return s.runErr
			}
			return fmt.Errorf("cdc: stopped before reaching %s", target)
		default:
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// passed reports whether every subscription has handled everything up to p.
func (s *Source) passed(p listeners.Position) bool {
	for _, sub := range s.feed.Subscriptions() {
		if sub.Stored().Compare(p) < 0 {
			return false
		}
	}
	return true
}

// heard is passed without regard to what subscriptions store of it.
func (s *Source) heard(p listeners.Position) bool {
	for _, sub := range s.feed.Subscriptions() {
		if sub.Handled().Compare(p) < 0 {
			return false
		}
	}
	return true
}

// hurry asks for a status update now: the server's answer tells how far it is.
func (s *Source) hurry() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
