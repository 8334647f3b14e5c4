package listeners

import "time"

// Kind says what a batch is.
type Kind uint8

const (
	// Changes is one committed transaction, or a part of one.
	Changes Kind = iota
	// Reset says that what the subscription knows of the batch's Collections
	// may be stale or incomplete: a snapshot of their current state follows.
	Reset
	// Snapshot holds rows of the current state, with Op Read.
	Snapshot
	// Live says that the snapshot is complete; from here on come changes.
	// A snapshot that was interrupted may be taken up again: then Changes of the
	// collections that were complete come before another Reset, which names the
	// others.
	Live
)

var kindNames = [...]string{"changes", "reset", "snapshot", "live"}

// String returns the kind's name.
func (k Kind) String() string { return name(kindNames[:], uint8(k), "Kind") }

// Tx describes the transaction of a batch.
type Tx struct {
	ID   uint64    // the source's number of it; 0 for a snapshot
	Time time.Time // when it committed; for a snapshot, when it was taken
}

// A Batch is one transaction, a part of one, or a step of a snapshot. It is
// read-only and shared.
type Batch struct {
	Kind   Kind
	Source string // the database or grid, as in Schema.Source
	Tx     Tx
	Events []Event
	// Position is that of the last event, or the batch's own where it has
	// none. Who has handled the batch has handled everything up to there.
	Position Position
	// First and Last are both true unless a transaction (or a snapshot) comes
	// in several batches; then only its first and its last part say so.
	First, Last bool
	// Size is the memory that the batch holds, in bytes, as its source
	// estimates it.
	Size int
	// Collections are those that a Reset concerns, each written as
	// [Schema.Collection] returns it; nil means all. What is known of others
	// stays good. Batches of another kind have none.
	Collections []string
}

// whole reports whether there are events and every one is of one of the
// collections.
func (b *Batch) whole(collections map[string]struct{}) bool {
	for i := range b.Events {
		if _, ok := collections[b.Events[i].Schema.Collection()]; !ok {
			return false
		}
	}
	return len(b.Events) > 0
}

// only returns a copy of b with the events of these collections.
func (b *Batch) only(collections map[string]struct{}) *Batch {
	c := *b
	if b.whole(collections) {
		return &c
	}
	c.Events = nil
	for i := range b.Events {
		if _, ok := collections[b.Events[i].Schema.Collection()]; ok {
			c.Events = append(c.Events, b.Events[i])
		}
	}
	return &c
}
