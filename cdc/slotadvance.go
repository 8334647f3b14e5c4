package cdc

import (
	"context"
	"fmt"
	"time"
)

const (
	// The server reads the log once more to move a slot, from where the slot
	// holds it. So the slot is moved at most once per advanceInterval, and for
	// at most a tenth of the time.
	advanceInterval = time.Second
	advanceShare    = 10
	advanceTimeout  = 10 * time.Second
)

// A slotAdvancer moves the slot behind what is stored while a copy of it is
// read.
type slotAdvancer struct {
	s       *Source
	catalog catalog // its own: the reader must not wait for it
	last    LSN     // where the slot was moved to
}

// run moves the slot from time to time until ctx ends. It returns a SlotError
// when the slot cannot be moved any more; other errors are left to the reader.
func (a *slotAdvancer) run(ctx context.Context) error {
	wait := advanceInterval
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		began := time.Now()
		err := a.advance(ctx)
		if err != nil && ctx.Err() == nil {
			if !transient(err) {
				return err
			}
			a.s.c.Logger.DebugContext(ctx, "the slot was not moved", "error", err)
		}
		wait = max(advanceInterval, advanceShare*time.Since(began))
	}
}

// advance moves the slot to the end of the last transaction that is stored with
// everything before it. It goes on for up to advanceTimeout after ctx has ended:
// the server would go on in any case, and keep the slot from the next one.
func (a *slotAdvancer) advance(ctx context.Context) error {
	ending := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ending, func() {
		timer := time.NewTimer(advanceTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	defer stop()
	confirmed := a.s.Stats().Confirmed
	if confirmed <= a.last {
		return nil
	}
	if _, err := a.s.state.reach(confirmed, true); err != nil {
		return err
	}
	slot := a.s.c.Slot
	conn, err := a.catalog.connected(ctx)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)", slot, confirmed.String())
	switch {
	case sqlState(err) == "22023": // invalid parameter: it is further already
		return a.s.lost("somebody else read it or recreated it")
	case err != nil:
		return fmt.Errorf("advance slot %q to %s: %w", slot, confirmed, a.s.slotLost(ctx, err))
	}
	a.last = confirmed
	return nil
}
