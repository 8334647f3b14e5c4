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
	// Tag is what the writer of a region's transaction said of it, "" for
	// nothing. It stays within the process: sinks do not carry it.
	Tag string
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

// eventsThat returns the events that are wanted, b's own slice if that is all.
// It asks once for each.
func (b *Batch) eventsThat(wanted func(*Event) bool) []Event {
	for i := range b.Events {
		if wanted(&b.Events[i]) {
			continue
		}
		kept := append([]Event(nil), b.Events[:i]...)
		for j := i + 1; j < len(b.Events); j++ {
			if wanted(&b.Events[j]) {
				kept = append(kept, b.Events[j])
			}
		}
		return kept
	}
	return b.Events
}
