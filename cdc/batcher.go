package cdc

import (
	"context"
	"errors"
	"math"

	"github.com/rowcall/rowcall/listeners"
)

// A batcher collects events into batches and emits them. It allocates events,
// rows and column offsets in blocks, so that a row costs no allocation of its
// own.
type batcher struct {
	emit     func(context.Context, *listeners.Batch) error
	source   string
	epoch    uint64
	maxBytes int

	kind   listeners.Kind
	cause  listeners.Cause
	commit uint64
	tx     listeners.Tx
	first  bool // the next batch is the first part
	bytes  int

	events []listeners.Event // the block; events[start:] are the batch so far
	start  int
	rows   []row
	cols   []uint32

	last listeners.Position // of the last event emitted
}

// What an event occupies besides its row's bytes: itself, the row header and
// the column offsets of an average table.
const eventOverhead = 88 + 56 + 32

const (
	eventBlock = 512
	rowBlock   = 512
	colBlock   = 8192
)

// begin starts a transaction or a snapshot whose events have this commit.
func (b *batcher) begin(kind listeners.Kind, cause listeners.Cause, commit uint64, tx listeners.Tx) {
	b.kind, b.cause, b.commit, b.tx = kind, cause, commit, tx
	b.first, b.bytes = true, 0
	b.start = len(b.events)
}

// abandon drops the events that were not emitted yet.
func (b *batcher) abandon() {
	clear(b.events[b.start:])
	b.events = b.events[:b.start]
}

// newRow returns a row of a block; it stays valid for ever.
func (b *batcher) newRow(r row) *row {
	if len(b.rows) == cap(b.rows) {
		b.rows = make([]row, 0, rowBlock)
	}
	b.rows = append(b.rows, r)
	return &b.rows[len(b.rows)-1]
}

// offsets returns a slice with room for n more column offsets.
func (b *batcher) offsets(n int) []uint32 {
	if cap(b.cols)-len(b.cols) < n {
		b.cols = make([]uint32, 0, max(colBlock, n))
	}
	return b.cols[len(b.cols):]
}

var errTooManyEvents = errors.New("more than 4,294,967,295 events share one commit; their positions would repeat")

// add appends an event of size bytes with this index within its commit. A
// batch that is full goes to the feed first, so that the batch that ends a
// transaction is never empty.
func (b *batcher) add(ctx context.Context, index uint32, size int) (*listeners.Event, error) {
	if b.bytes >= b.maxBytes && len(b.events) > b.start {
		if err := b.flush(ctx, false); err != nil {
			return nil, err
		}
	}
	if index == math.MaxUint32 {
		return nil, errTooManyEvents
	}
	b.bytes += size + eventOverhead
	if len(b.events) == cap(b.events) {
		pending := b.events[b.start:]
		b.events, b.start = make([]listeners.Event, len(pending), max(eventBlock, 2*len(pending))), 0
		copy(b.events, pending)
	}
	b.events = append(b.events, listeners.Event{
		Cause:    b.cause,
		Position: listeners.Position{Epoch: b.epoch, Commit: b.commit, Index: index},
	})
	return &b.events[len(b.events)-1], nil
}

// pending reports whether events wait for a flush.
func (b *batcher) pending() bool { return len(b.events) > b.start }

// flush emits the events. Empty batches are emitted too: a snapshot without
// rows is one.
func (b *batcher) flush(ctx context.Context, last bool) error {
	n := len(b.events)
	batch := &listeners.Batch{
		Kind: b.kind, Source: b.source, Tx: b.tx, Events: b.events[b.start:n:n],
		Position: listeners.Position{Epoch: b.epoch, Commit: b.commit},
		First:    b.first, Last: last, Size: b.bytes,
	}
	switch {
	case n > b.start:
		batch.Position = b.events[n-1].Position
	case b.last.Epoch == b.epoch && b.last.Commit == b.commit:
		batch.Position = b.last // the parts before it had them all
	}
	if err := b.emit(ctx, batch); err != nil {
		return err
	}
	b.start, b.first, b.bytes = n, false, 0
	b.last = batch.Position
	return nil
}

// mark emits a batch without events, about these collections or all of them.
func (b *batcher) mark(ctx context.Context, kind listeners.Kind, index uint32, collections ...string) error {
	return b.emit(ctx, &listeners.Batch{
		Kind: kind, Source: b.source, Tx: b.tx, First: true, Last: true,
		Position:    listeners.Position{Epoch: b.epoch, Commit: b.commit, Index: index},
		Collections: collections,
	})
}
