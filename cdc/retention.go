package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// RetainedWALPolicy says what a source does when the server keeps more WAL for
// it than Options.MaxRetainedWAL.
type RetainedWALPolicy string

// The policies.
const (
	// RetainedWALWarn logs a warning, at most once a minute.
	RetainedWALWarn RetainedWALPolicy = "warn"
	// RetainedWALPauseSnapshot gives an initial snapshot up whose temporary slot
	// keeps too much while rows are read or stored: the slot goes, and the
	// snapshot begins again after a minute, and after twice as long each time it
	// happens again, up to half an hour. Its rows are delivered again, after
	// another Reset. A source that streams only warns.
	RetainedWALPauseSnapshot RetainedWALPolicy = "pause-snapshot"
	// RetainedWALStop drops the slot, so that the server can free its disk, and
	// delivers a Reset to say that changes are missing. The run ends with a
	// [SlotError], or begins again with a snapshot under [LostSlotResnapshot].
	// The next run begins with a snapshot, too.
	RetainedWALStop RetainedWALPolicy = "stop"
)

const (
	retentionInterval = 10 * time.Second
	// retentionWarning is the least time between two warnings.
	retentionWarning = time.Minute
	// retentionTimeout bounds one look-up, so that a hung one is tried again.
	retentionTimeout = 30 * time.Second

	firstSnapshotPause = time.Minute
	maxSnapshotPause   = 30 * time.Minute
)

// errSnapshotPaused ends an attempt at a snapshot that is to be made later.
var errSnapshotPaused = errors.New("the snapshot's slot keeps more WAL than MaxRetainedWAL")

// stoppedBy returns why a guard has ended this context, nil if none has.
func stoppedBy(ctx context.Context) error {
	cause := context.Cause(ctx)
	if _, ok := errors.AsType[*SlotError](cause); ok || errors.Is(cause, errSnapshotPaused) {
		return cause
	}
	return nil
}

// guard watches the slot until release is called, which waits for it. A policy
// that says so ends the context.
func (s *Source) guard(ctx context.Context) (guarded context.Context, release func()) {
	guarded, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		s.c.watchRetention(guarded, s.c.Slot, func(slot *slotInfo) {
			s.stats.watched(slot)
			if s.c.RetainedWALPolicy == RetainedWALStop && slot.retained > s.c.MaxRetainedWAL {
				cancel(s.overLimit(slot, true))
			}
		})
	})
	return guarded, func() { cancel(nil); wg.Wait() }
}

// guardSnapshot is guard for the temporary slot of an initial snapshot. Its
// release replaces the error of an attempt that it has ended.
func (s *Source) guardSnapshot(ctx context.Context, slot string) (guarded context.Context, release func(*error)) {
	guarded, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		s.c.watchRetention(guarded, slot, func(slot *slotInfo) {
			s.stats.watched(slot)
			switch {
			case slot.retained <= s.c.MaxRetainedWAL:
			case s.c.RetainedWALPolicy == RetainedWALStop:
				cancel(s.overLimit(slot, false))
			case s.c.RetainedWALPolicy == RetainedWALPauseSnapshot:
				cancel(fmt.Errorf("%w: %s of %s", errSnapshotPaused, size(slot.retained), size(s.c.MaxRetainedWAL)))
			}
		})
	})
	return guarded, func(err *error) {
		if stopped := stoppedBy(guarded); stopped != nil && *err != nil {
			*err = stopped
		}
		cancel(nil)
		wg.Wait()
	}
}

func (s *Source) overLimit(slot *slotInfo, permanent bool) *SlotError {
	e := s.lost(fmt.Sprintf("it kept %s of WAL, more than the %s of MaxRetainedWAL, and was dropped", size(slot.retained), size(s.c.MaxRetainedWAL)))
	e.Remedy, e.drop = retentionRemedy(slot)+"; the next run begins with a new snapshot", permanent
	if !permanent {
		e.Reason = fmt.Sprintf("its snapshot kept %s of WAL, more than the %s of MaxRetainedWAL, and was given up", size(slot.retained), size(s.c.MaxRetainedWAL))
		e.Lost = false // nothing was there to be lost
	}
	return e
}

// patient waits after an attempt at a snapshot that has kept too much WAL.
func (s *Source) patient(ctx context.Context, err error) error {
	if !errors.Is(err, errSnapshotPaused) {
		return err
	}
	s.pauses++
	pause := min(cmp.Or(s.c.snapshotPause, firstSnapshotPause)<<min(s.pauses-1, 5), maxSnapshotPause)
	s.c.Logger.WarnContext(ctx, "the snapshot was given up and begins again later", "reason", err, "in", pause)
	if wait := sleep(ctx, pause); wait != nil {
		return wait
	}
	return err
}

// watchRetention looks a slot up until ctx ends, hands what it finds on, and
// warns if the slot keeps more WAL than Options.MaxRetainedWAL. Its connection
// is not the reader's, which must not wait for it.
func (c *config) watchRetention(ctx context.Context, slot string, found func(*slotInfo)) {
	if c.MaxRetainedWAL == 0 {
		return
	}
	q := &catalog{c: c}
	defer q.close(ctx)
	c.warnOfRetention(ctx, func(ctx context.Context) (*slotInfo, error) {
		ctx, cancel := context.WithTimeout(ctx, retentionTimeout)
		defer cancel()
		conn, err := q.connected(ctx)
		if err != nil {
			return nil, err
		}
		info, err := lookUpSlot(ctx, conn, slot)
		if info != nil && found != nil {
			found(info)
		}
		return info, err
	})
}

// warnOfRetention is watchRetention with a look-up that a test can replace.
func (c *config) warnOfRetention(ctx context.Context, lookUp func(context.Context) (*slotInfo, error)) {
	tick := time.NewTicker(cmp.Or(c.watchInterval, retentionInterval))
	defer tick.Stop()
	var warned time.Time
	for {
		slot, err := lookUp(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.Logger.DebugContext(ctx, "the slot could not be looked up", "slot", c.Slot, "error", err)
		case slot == nil: // the reader notices, and says so
		case slot.retained > c.MaxRetainedWAL && (warned.IsZero() || time.Since(warned) >= retentionWarning):
			warned = time.Now()
			c.Logger.WarnContext(ctx, "the slot keeps much WAL", "slot", cmp.Or(slot.name, c.Slot), "kept", size(slot.retained),
				"limit", size(c.MaxRetainedWAL), "behind", size(slot.lag), "wal_status", slot.walStatus,
				"remedy", retentionRemedy(slot))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// retentionRemedy tells the two causes apart: what a reader has confirmed is
// still kept as long as a transaction from before it is open.
func retentionRemedy(s *slotInfo) string {
	if s.lag > s.retained/2 {
		return "a subscription is slow or stopped: see its log, or raise the limit while it catches up"
	}
	return "an open transaction holds it back: SELECT pid, xact_start, state FROM pg_stat_activity" +
		" WHERE backend_xid IS NOT NULL ORDER BY xact_start, and pg_prepared_xacts"
}
