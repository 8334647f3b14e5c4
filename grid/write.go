package grid

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
	pos, err := r.write(ctx, opPut, &k, &v, listeners.Position{})
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: put into region %q: %w", r.name, err)
	}
	return pos, nil
}

// PutTTL is [Region.Put] for an entry with a duration of its own, at the end of
// which it is deleted, with [listeners.CauseExpire]. [Forever] stands for no
// end. The time begins with the commit. Every later write begins it anew, with
// its own duration or the region's; RegionOptions.Idle goes for the entry as for
// others.
func (r *Region[K, V]) PutTTL(ctx context.Context, k K, v V, ttl time.Duration) (listeners.Position, error) {
	pos, err := listeners.Position{}, checkTTL(ttl)
	if err == nil {
		pos, err = r.writeFor(ctx, opPut, &k, &v, pos, ttl)
	}
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: put into region %q: %w", r.name, err)
	}
	return pos, nil
}

func checkTTL(ttl time.Duration) error {
	if ttl <= 0 {
		return fmt.Errorf("the duration %s is not positive: use Delete to remove the entry, or Put for the region's own duration", ttl)
	}
	return nil
}

// Insert stores the value of a new key. If the key exists, nothing is stored
// and the error is an [*ExistsError]. It waits and fails as [Region.Put] does.
func (r *Region[K, V]) Insert(ctx context.Context, k K, v V) (listeners.Position, error) {
	pos, err := r.write(ctx, opInsert, &k, &v, listeners.Position{})
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: insert into region %q: %w", r.name, err)
	}
	return pos, nil
}

// CompareAndPut stores a value if the key still has the version that the caller
// has read with [Region.Entry]; the zero version stands for an absent key. If
// not, nothing is stored and the error is a [*VersionError]. The returned
// position is the new version. It waits and fails as [Region.Put] does.
func (r *Region[K, V]) CompareAndPut(ctx context.Context, k K, version listeners.Position, v V) (listeners.Position, error) {
	pos, err := r.write(ctx, opReplace, &k, &v, version)
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: compare and put into region %q: %w", r.name, err)
	}
	return pos, nil
}

// Delete removes a key and returns the position of the event. An absent key
// makes no event: then the position is zero and existed false. It waits and
// fails as [Region.Put] does.
func (r *Region[K, V]) Delete(ctx context.Context, k K) (pos listeners.Position, existed bool, err error) {
	pos, err = r.write(ctx, opDelete, &k, nil, listeners.Position{})
	if err != nil {
		return listeners.Position{}, false, fmt.Errorf("grid: delete from region %q: %w", r.name, err)
	}
	return pos, !pos.IsZero(), nil
}

// Update stores what fn makes of the present value and returns the position of
// the event. Nobody writes in between. If the key is absent, the error is
// [ErrNotFound] and fn is not called, and so it is if the entry's time is up
// when fn returns; if fn returns an error or panics, nothing
// is stored and the error or the panic goes on to the caller.
//
// Unless the grid has writers ([Grid.AddWriter]), fn is called at most once, while all other writers of the region wait: it
// should be short, may read this and other regions, and must not write, nor
// subscribe to or close this one, which would wait for ever. It returns a new
// value and leaves the old one, and what that points to, as it is. Work that
// takes longer is for [Region.CompareAndPut] or [Grid.Do]. Update waits and
// fails as [Region.Put] does.
func (r *Region[K, V]) Update(ctx context.Context, k K, fn func(V) (V, error)) (listeners.Position, error) {
	pos, err := r.update(ctx, k, fn)
	r.feed.Yield()
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: update in region %q: %w", r.name, err)
	}
	return pos, nil
}

func (r *Region[K, V]) update(ctx context.Context, k K, fn func(V) (V, error)) (listeners.Position, error) {
	if fn == nil {
		return listeners.Position{}, errors.New("the function is nil")
	}
	if len(r.grid.writerDefs()) > 0 {
		return r.updateAsking(ctx, k, fn)
	}
	if err := r.reserve(ctx); err != nil {
		return listeners.Position{}, err
	}
	o := r.ops.get()
	defer r.ops.put(o)
	o.id = encodeKey(r.codec, o.id[:0], &k)

	r.mu.Lock()
	defer r.mu.Unlock() // also when fn panics
	if r.closed {
		return listeners.Position{}, ErrClosed
	}
	r.buryLocked(time.Now(), r.touchedBy([]*op[K, V]{o}))
	before := r.view.Load().find(&o.lookup)
	if before == nil {
		return listeners.Position{}, ErrNotFound
	}
	v, err := fn(before.val)
	if err != nil {
		return listeners.Position{}, err
	}
	// Not opPut: the entry's time may be up by now.
	o.kind, o.version = opReplace, before.pos
	o.next, o.tag = r.newEntry(r.shape, o.id, k, v), tagOf(ctx)
	r.limit(o.next, 0)
	r.commitLocked([]*op[K, V]{o})
	if _, ended := errors.AsType[*VersionError](o.err); ended {
		return listeners.Position{}, ErrNotFound
	}
	return o.pos, o.err
}

// PutAll stores all pairs in one transaction and returns its position: one
// batch with a create or update for each key, in the order of the pairs. Of
// pairs with the same key the last counts. Without pairs there is no event, and
// the position is zero.
//
// The pairs are read before anything is locked; all of them, and their events,
// are in memory at once. PutAll waits and fails as [Region.Put] does.
func (r *Region[K, V]) PutAll(ctx context.Context, pairs iter.Seq2[K, V]) (listeners.Position, error) {
	pos, err := r.putAll(ctx, pairs)
	r.feed.Yield()
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: put all into region %q: %w", r.name, err)
	}
	return pos, nil
}

func (r *Region[K, V]) putAll(ctx context.Context, pairs iter.Seq2[K, V]) (listeners.Position, error) {
	if r.source != nil {
		return listeners.Position{}, ErrMirror
	}
	if len(r.grid.writerDefs()) > 0 {
		return r.putAllAsking(ctx, pairs)
	}
	s := staged[K, V]{r: r, tag: tagOf(ctx)}
	for k, v := range pairs {
		s.put(k, v)
	}
	if err := r.reserve(ctx); err != nil {
		return listeners.Position{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := s.prepareLocked(time.Now()); err != nil {
		return listeners.Position{}, err
	}
	return s.commitLocked(), nil
}

// Clear removes all keys in constant time and returns the position of the one
// event: [listeners.Truncate] with [listeners.CauseClear], without a key and
// without values. An empty region stays as it is: then there is no event, and
// the position is zero. Clear waits and fails as [Region.Put] does.
func (r *Region[K, V]) Clear(ctx context.Context) (listeners.Position, error) {
	pos, err := r.clear(ctx)
	r.feed.Yield()
	if err != nil {
		return listeners.Position{}, fmt.Errorf("grid: clear region %q: %w", r.name, err)
	}
	return pos, nil
}

func (r *Region[K, V]) clear(ctx context.Context) (listeners.Position, error) {
	if r.source == nil && len(r.grid.writerDefs()) > 0 {
		return r.clearAsking(ctx)
	}
	if err := r.reserve(ctx); err != nil {
		return listeners.Position{}, err
	}
	return r.clearFrom(ctx, nil, nil)
}

// clearFrom clears unless there is a veto. The error is errChanged if the region
// is not in this state any more; nil stands for any.
func (r *Region[K, V]) clearFrom(ctx context.Context, base *view[K, V], veto error) (listeners.Position, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.view.Load()
	if r.closed {
		return listeners.Position{}, ErrClosed
	}
	if base != nil && base != now {
		return listeners.Position{}, errChanged
	}
	if veto != nil {
		return listeners.Position{}, veto
	}
	r.overtakeAllLocked()
	if now.length == 0 {
		return listeners.Position{}, nil
	}
	r.db = newDB[K, V](len(r.indexDefs()))
	one := r.newChange(nil, nil, following(now.position), time.Now())
	one.event[0].Op, one.event[0].Cause = listeners.Truncate, listeners.CauseClear
	one.batch.Tx.Tag = tagOf(ctx)
	r.lives.clear()
	r.show(0, one.batch.Position)
	r.feed.Append(&one.batch)
	return one.batch.Position, nil
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
	e := allocEntry[K, V](id)
	e.shape, e.key, e.val = s, k, v
	settle(r.codec, &e.key)
	e.size = r.sizes.of(e.id, &e.val)
	e.index(r.indexDefs())
	return e
}

// show makes the committed state of the database the one that readers see. The
// caller holds mu, or is alone.
func (r *Region[K, V]) show(length int, at listeners.Position) {
	r.view.Store(&view[K, V]{state: r.db.now, length: length, position: at})
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

// newChange returns the batch of one change; nil stands for an absent entry.
func (r *Region[K, V]) newChange(before, after *entry[K, V], pos listeners.Position, at time.Time) *oneEvent {
	one := &oneEvent{
		batch: listeners.Batch{
			Kind: listeners.Changes, Source: r.grid.name, Position: pos, First: true, Last: true,
			Tx: listeners.Tx{ID: pos.Commit, Time: at}, Size: batchBytes,
		},
	}
	one.batch.Size += r.describe(&one.event[0], before, after, pos)
	one.batch.Events = one.event[:]
	return one
}

// describe fills in the event of a change and returns its size.
func (r *Region[K, V]) describe(to *listeners.Event, before, after *entry[K, V], at listeners.Position) int {
	to.Op, to.Cause, to.Position, to.Schema = listeners.Update, listeners.CauseWrite, at, r.shape.schema
	size := eventBytes
	if before != nil {
		to.Before = listeners.NewRecord(before)
		size += before.size
	} else {
		to.Op = listeners.Create
	}
	if after != nil {
		to.After = listeners.NewRecord(after)
		size += after.size
	} else {
		to.Op = listeners.Delete
	}
	return size
}
