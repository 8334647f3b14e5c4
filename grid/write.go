package grid

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// Put stores a value, as a create or, if the key exists, an update, and
// returns the position of the event. The value must not change afterwards.
//
// Put waits while the slowest listener is too far behind, see
// [RegionOptions].FeedBytes, and returns the cause of ctx's end if that comes
// first: then nothing was stored. A listener passes its own context on.
// The other errors are [ErrClosed] and [ErrMirror].
func (r *Region[K, V]) Put(ctx context.Context, k K, v V) (listeners.Position, error) {
	pos, err := r.put(ctx, k, v)
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: put into region %q: %w", r.name, err)
	}
	return pos, nil
}

func (r *Region[K, V]) put(ctx context.Context, k K, v V) (listeners.Position, error) {
	if err := r.reserve(ctx); err != nil {
		return listeners.Position{}, err
	}
	l := r.lookups.get()
	defer r.lookups.put(l)
	l.id = encodeKey(r.codec, l.id[:0], &k)
	e := r.newEntry(r.shape, l.id, k, v)

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return listeners.Position{}, ErrClosed
	}
	now := r.view.Load()
	before := now.find(l)
	e.pos = following(now.position)
	txn := r.db.Txn(true)
	if err := txn.Insert(table, e); err != nil {
		txn.Abort()
		return listeners.Position{}, err
	}
	txn.Commit()
	one := r.newChange(listeners.Create, e.pos)
	one.event[0].After = listeners.NewRecord(e)
	one.batch.Size += e.size
	length := now.length + 1
	if before != nil {
		one.event[0].Op = listeners.Update
		one.event[0].Before = listeners.NewRecord(before)
		one.batch.Size += before.size
		length = now.length
	}
	r.show(length, e.pos)
	r.feed.Append(&one.batch)
	return e.pos, nil
}

// Delete removes a key and returns the position of the event. An absent key
// makes no event: then the position is zero and existed false. It waits and
// fails as [Region.Put] does.
func (r *Region[K, V]) Delete(ctx context.Context, k K) (pos listeners.Position, existed bool, err error) {
	pos, existed, err = r.delete(ctx, k)
	if err != nil {
		return listeners.Position{}, false, fmt.Errorf("grid: delete from region %q: %w", r.name, err)
	}
	return pos, existed, nil
}

func (r *Region[K, V]) delete(ctx context.Context, k K) (pos listeners.Position, existed bool, err error) {
	if err := r.reserve(ctx); err != nil {
		return listeners.Position{}, false, err
	}
	l := r.lookups.get()
	defer r.lookups.put(l)
	l.id = encodeKey(r.codec, l.id[:0], &k)

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return listeners.Position{}, false, ErrClosed
	}
	now := r.view.Load()
	before := now.find(l)
	if before == nil {
		return listeners.Position{}, false, nil
	}
	txn := r.db.Txn(true)
	if err := txn.Delete(table, before); err != nil {
		txn.Abort()
		return listeners.Position{}, false, err
	}
	txn.Commit()
	pos = following(now.position)
	one := r.newChange(listeners.Delete, pos)
	one.event[0].Before = listeners.NewRecord(before)
	one.batch.Size += before.size
	r.show(now.length-1, pos)
	r.feed.Append(&one.batch)
	return pos, true, nil
}

// reserve waits for room in the feed, before any lock is taken.
func (r *Region[K, V]) reserve(ctx context.Context) error {
	if r.source != nil {
		return ErrMirror
	}
	err := r.feed.Reserve(ctx)
	if err == nil {
		return nil
	}
	if isClosed(r.done) && errors.Is(err, listeners.ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("wait for the slowest listener: %w", err)
}

// newEntry returns an entry without a position. It copies id.
func (r *Region[K, V]) newEntry(s *shape, id []byte, k K, v V) *entry[K, V] {
	e := &entry[K, V]{shape: s, id: make([]byte, len(id)), key: k, val: v}
	copy(e.id, id)
	e.size = r.sizes.of(e.id, &e.val)
	return e
}

// show makes the committed state of the database the one that readers see. The
// caller holds mu, or is alone.
func (r *Region[K, V]) show(length int, at listeners.Position) {
	r.view.Store(&view[K, V]{txn: r.db.Txn(false), length: length, position: at})
}

// following returns the position of the next transaction of an open region.
func following(p listeners.Position) listeners.Position {
	return listeners.Position{Epoch: p.Epoch, Commit: p.Commit + 1}
}

// A oneEvent is a batch of one event, in one piece of memory.
type oneEvent struct {
	batch listeners.Batch
	event [1]listeners.Event
}

// newChange returns a batch of one event that has no records yet.
func (r *Region[K, V]) newChange(op listeners.Op, at listeners.Position) *oneEvent {
	one := &oneEvent{
		batch: listeners.Batch{
			Kind: listeners.Changes, Source: r.grid.name, Position: at, First: true, Last: true,
			Tx: listeners.Tx{ID: at.Commit, Time: time.Now()}, Size: batchBytes + eventBytes,
		},
		event: [1]listeners.Event{{Op: op, Cause: listeners.CauseWrite, Position: at, Schema: r.shape.schema}},
	}
	one.batch.Events = one.event[:]
	return one
}
