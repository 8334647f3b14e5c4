package cdc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// Stats are what a source has done since it was made.
type Stats struct {
	Events       uint64 // handed to the feed, snapshot rows included
	Reads        uint64 // of them rows of snapshots
	Transactions uint64 // handed over whole
	// Position is that of the last event handed over.
	Position listeners.Position
	// Received is the last WAL position that the server told of, Confirmed the
	// last one that it may forget up to.
	Received, Confirmed LSN
	// LastEvent is the commit time of the last transaction that was handed over
	// with events, as the server's clock has it; zero before the first.
	LastEvent time.Time
	// RetainedWAL and Lag are the bytes that the server kept for the slot, and
	// those that were not confirmed, at the time Watched. They are looked up
	// only where Options.MaxRetainedWAL is set; see [Source.SlotStatus].
	RetainedWAL, Lag int64
	Watched          time.Time
}

// counters gather Stats.
type counters struct {
	mu sync.Mutex
	s  Stats
}

func (c *counters) add(b *listeners.Batch) {
	n := uint64(len(b.Events))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Events += n
	switch {
	case b.Kind == listeners.Snapshot:
		c.s.Reads += n
	case b.Kind == listeners.Changes && b.Last && b.Tx.ID != 0: // a message may belong to none
		c.s.Transactions++
	}
	if b.Kind == listeners.Changes && !b.Tx.Time.IsZero() {
		c.s.LastEvent = b.Tx.Time
	}
	c.s.Position = b.Position
}

func (c *counters) read() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

// watched notes what a look-up has found.
func (c *counters) watched(slot *slotInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.RetainedWAL, c.s.Lag, c.s.Watched = slot.retained, slot.lag, time.Now()
}

// SlotStatus asks the server what it keeps for the source's slot, over a
// connection of its own. A slot that does not exist is a [SlotError] with
// [ErrNoSlot]. It may be called at any time, from any goroutine.
func (s *Source) SlotStatus(ctx context.Context) (SlotStatus, error) {
	conn, err := s.c.connect(ctx)
	if err != nil {
		return SlotStatus{}, err
	}
	defer hangUp(ctx, conn.PgConn())
	slot, err := lookUpSlot(ctx, conn, s.c.Slot)
	switch {
	case err != nil:
		return SlotStatus{}, fmt.Errorf("look up slot %q: %w", s.c.Slot, err)
	case slot == nil:
		return SlotStatus{}, &SlotError{Slot: s.c.Slot, Reason: "there is none yet", Err: ErrNoSlot}
	}
	return slot.status(), nil
}
