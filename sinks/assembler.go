package sinks

import (
	"github.com/rowcall/rowcall/listeners"
)

const (
	// DefaultMaxTxBytes is what an assembler holds of one transaction before
	// it hands on a part.
	DefaultMaxTxBytes = 4 << 20
	// snapshotRows is how many rows a snapshot's batch has at most.
	snapshotRows = 1000
)

// An Assembler makes batches of parts: those that an in-process listener of the
// source has heard. A transaction is one batch, or several if it is larger than
// MaxTxBytes. Rows of a snapshot come in batches of at most 1000. What comes
// a second time, by its position, is left out. One goroutine at a time.
//
// A snapshot ends, and Live is told, with its last row or marker, or else with the next
// change, unless that is [Part].Filling. So one that was interrupted, and went on in
// another run of the source, is told with one Live, at its end. Where a firehose does
// not write that mark (Kafka, and releases before it), Live comes twice: at the change that came in
// between, when the tables are there that were complete, and at the end. The
// reset before the rest names the other tables, of which the first Live said too much.
type Assembler struct {
	// MaxTxBytes bounds what is held of a transaction, in bytes of
	// [Part].Size. 0 means [DefaultMaxTxBytes].
	MaxTxBytes int
	// Wanted, if it is set, limits the events to those that it returns true
	// for. A transaction of which nothing is left is no batch.
	Wanted func(*listeners.Event) bool
	last   listeners.Position // of the parts so far
	from   listeners.Position // of an event before them whose transaction may go on
	open   *listeners.Batch   // being filled
	more   bool               // parts of the open transaction were handed on
	told   bool               // a transaction or snapshot goes on: its end was not seen
	rows   bool               // rows of a snapshot are to come, or their end
	fill   bool               // the snapshot began with a reset, so that Live ends it
}

// Add takes the next part and calls emit for each batch that is complete. It
// returns the first error of emit, after which it is not to be used again.
func (a *Assembler) Add(p *Part, emit func(*listeners.Batch) error) error {
	if !a.last.IsZero() && p.Position.Compare(a.last) <= 0 {
		return nil
	}
	before := a.last
	a.last = p.Position
	switch p.Kind {
	case listeners.Reset:
		if err := a.interrupt(p, emit); err != nil {
			return err
		}
		a.rows, a.fill = true, true
		return emit(&listeners.Batch{
			Kind: listeners.Reset, Source: p.Source, Tx: p.Tx, Position: p.Position,
			First: true, Last: true, Size: p.Size, Collections: p.Collections,
		})
	case listeners.Live:
		return a.endSnapshot(p, p.Position, emit)
	case listeners.Snapshot, listeners.Changes:
	}
	goesOn := p.Kind == listeners.Changes && p.Filling && a.within()
	same := a.told && a.sameBatch(p, before)
	switch {
	case !a.told || same:
	case goesOn && a.open.Kind == listeners.Snapshot:
		if err := a.Flush(emit); err != nil {
			return err
		}
		a.open, a.more, a.told = nil, false, false
	default:
		// Its end held no event.
		if err := a.close(emit); err != nil {
			return err
		}
	}
	if p.Kind == listeners.Changes && a.rows && !goesOn {
		if err := a.endSnapshot(p, before, emit); err != nil {
			return err
		}
	}
	a.take(p)
	switch {
	case p.TxEnd:
		if err := a.close(emit); err != nil {
			return err
		}
		if p.Kind == listeners.Snapshot {
			return a.endSnapshot(p, p.Position, emit)
		}
	case a.open != nil && (len(a.open.Events) >= snapshotRows && p.Kind == listeners.Snapshot || a.open.Size >= a.limit()):
		return a.part(emit)
	}
	return nil
}

// Follow says that the parts come after an event which was not the last of its
// transaction. If they go on with that, their first batch is no
// [listeners.Batch].First.
func (a *Assembler) Follow(p listeners.Position) { a.last, a.from = p, p }

// Idle reports whether everything that was added was handed on, and no
// transaction or snapshot is under way.
func (a *Assembler) Idle() bool { return !a.told && !a.rows }

// Last returns the position of the last part that was added.
func (a *Assembler) Last() listeners.Position { return a.last }

// Begin says that the snapshot which comes, if one comes, is the source's first:
// it has no reset of its own. The caller has told of one.
func (a *Assembler) Begin() { a.rows, a.fill = true, true }

// Flush hands on rows of a snapshot that were held back only to fill a batch.
func (a *Assembler) Flush(emit func(*listeners.Batch) error) error {
	if a.open != nil && a.open.Kind == listeners.Snapshot && len(a.open.Events) > 0 {
		return a.part(emit)
	}
	return nil
}

func (a *Assembler) limit() int {
	if a.MaxTxBytes > 0 {
		return a.MaxTxBytes
	}
	return DefaultMaxTxBytes
}

// sameBatch reports whether an event belongs to what is under way: the rows of
// one snapshot, or the changes of one transaction, which all have the commit.
func (a *Assembler) sameBatch(p *Part, before listeners.Position) bool {
	if a.open.Kind != p.Kind {
		return false
	}
	return p.Kind == listeners.Snapshot ||
		before.Epoch == p.Position.Epoch && before.Commit == p.Position.Commit
}

func (a *Assembler) take(p *Part) {
	if a.open == nil {
		a.open = &listeners.Batch{
			Kind: p.Kind, Source: p.Source, Tx: p.Tx,
			First: !a.more && (a.from.Epoch != p.Position.Epoch || a.from.Commit != p.Position.Commit), Size: batchBytes,
		}
		a.from = listeners.Position{}
	}
	a.told = true
	if a.Wanted == nil || a.Wanted(&p.Event) {
		a.open.Events = append(a.open.Events, p.Event)
		a.open.Size += p.Size
	}
	a.open.Position = p.Position
}

// batchBytes is what a batch takes without its events.
const batchBytes = 192

// part hands on what there is of a transaction that goes on.
func (a *Assembler) part(emit func(*listeners.Batch) error) error {
	b := *a.open
	a.more = true
	a.open.Events, a.open.Size, a.open.First = nil, batchBytes, false
	return emit(&b)
}

// close hands on the last part.
func (a *Assembler) close(emit func(*listeners.Batch) error) error {
	b := a.open
	more := a.more
	a.open, a.more, a.told = nil, false, false
	if b == nil || len(b.Events) == 0 && !more {
		return nil
	}
	b.Last = true
	return emit(b)
}

// interrupt ends what a reset has cut off. Rows of a snapshot are told all the same:
// the reset may be about other collections than theirs. A transaction that a
// reset of everything has cut off is dropped.
func (a *Assembler) interrupt(p *Part, emit func(*listeners.Batch) error) error {
	if p.Collections != nil && a.open != nil && a.open.Kind == listeners.Changes {
		return a.close(emit)
	}
	err := a.Flush(emit)
	a.open, a.more, a.told = nil, false, false
	return err
}

// endSnapshot tells that the state is complete, and up to where it goes.
func (a *Assembler) endSnapshot(p *Part, at listeners.Position, emit func(*listeners.Batch) error) error {
	if a.told {
		if err := a.close(emit); err != nil {
			return err
		}
	}
	live := a.fill
	a.rows, a.fill = false, false
	if !live {
		return nil
	}
	return emit(&listeners.Batch{
		Kind: listeners.Live, Source: p.Source, Tx: p.Tx, Position: at,
		First: true, Last: true, Size: batchBytes,
	})
}
