package cdc

import (
	"sync"

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
	case b.Kind == listeners.Changes && b.Last:
		c.s.Transactions++
	}
	c.s.Position = b.Position
}

func (c *counters) read() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}
