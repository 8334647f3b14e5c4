package cdc

import (
	"context"
	"time"
)

const (
	retentionInterval = 10 * time.Second
	// retentionWarning is the least time between two warnings.
	retentionWarning = time.Minute
	// retentionTimeout bounds one look-up, so that a hung one is tried again.
	retentionTimeout = 30 * time.Second
)

// watchRetention warns of a slot that keeps more WAL than Options.MaxRetainedWAL,
// until ctx ends. Its connection is not the reader's, which must not wait for it.
func (c *config) watchRetention(ctx context.Context) {
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
		return lookUpSlot(ctx, conn, c.Slot)
	})
}

// warnOfRetention is watchRetention with a look-up that a test can replace.
func (c *config) warnOfRetention(ctx context.Context, lookUp func(context.Context) (*slotInfo, error)) {
	tick := time.NewTicker(retentionInterval)
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
			c.Logger.WarnContext(ctx, "the slot keeps much WAL", "slot", c.Slot, "kept", size(slot.retained),
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
