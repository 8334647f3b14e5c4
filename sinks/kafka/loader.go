package kafka

import (
	"context"
	"fmt"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// chunkRecords is how many records are handed to the sender at once, at most.
const chunkRecords = 512

// A loader turns one batch into chunks and puts them into the queue.
type loader struct {
	ctx   context.Context //nolint:containedctx // it lives as long as one call of OnBatch
	queue *queue
	limit int // of a record, in bytes
	parts int
	left  int // records to come, at most
	chunk *chunk
}

func newLoader(ctx context.Context, f *Firehose, records int) *loader {
	return &loader{
		ctx: ctx, queue: f.queue, limit: f.opts.MaxMessageBytes, parts: f.opts.Partitions, left: records,
		chunk: newChunk(min(records, chunkRecords)),
	}
}

// load adds a frame, unless it is stored already. The event is nil for a reset.
func (l *loader) load(f *sinks.Frame, t *topic, e *listeners.Event, at listeners.Position) error {
	if f.Partition != sinks.All {
		return l.loadInto(f.Partition, f, t, e, at)
	}
	l.left += l.parts
	for p := range l.parts {
		if err := l.loadInto(p, f, t, e, at); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) loadInto(partition int, f *sinks.Frame, t *topic, e *listeners.Event, at listeners.Position) error {
	tail := t.tails[partition]
	l.left--
	switch {
	case at.Epoch < tail.Epoch && !at.IsZero():
		return &EpochError{Topic: t.name, Tail: tail, Got: at}
	case at.Compare(tail) <= 0:
		return nil
	case e == nil && !t.begun[partition]:
		return nil // nobody has read anything there that could be stale
	}
	t.begun[partition] = true
	if len(l.chunk.records) == cap(l.chunk.records) {
		if err := l.next(); err != nil {
			return err
		}
	}
	r := l.chunk.add(f, t.name, partition)
	if n := size(r); n > l.limit {
		return tooLarge(t, e, at, n, l.limit)
	}
	return nil
}

// next puts the chunk away and begins another one.
func (l *loader) next() error {
	if len(l.chunk.records) > 0 {
		if err := l.queue.put(l.ctx, l.chunk); err != nil {
			return err
		}
	}
	l.chunk = newChunk(min(max(l.left, 0)+1, chunkRecords))
	return nil
}

// finish puts the last chunk away, which says what the batch was.
func (l *loader) finish(upTo listeners.Position, ends bool) error {
	l.chunk.upTo, l.chunk.ends = upTo, ends
	return l.queue.put(l.ctx, l.chunk)
}

func tooLarge(t *topic, e *listeners.Event, at listeners.Position, size, limit int) error {
	if e == nil {
		return fmt.Errorf("topic %s: a reset of %d bytes is larger than the limit of %d; raise MaxMessageBytes", t.name, size, limit)
	}
	key := e.Key().String()
	if most := 200; len(key) > most {
		key = key[:most] + "..."
	}
	return &TooLargeError{Topic: t.name, Collection: e.Schema.Collection(), Key: key, Op: e.Op, Position: at, Size: size, Limit: limit}
}
