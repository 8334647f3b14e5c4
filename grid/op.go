package grid

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// An opKind says on what condition an op does what.
type opKind uint8

const (
	opPut     opKind = iota
	opInsert         // if the key is absent
	opReplace        // if the entry has op.version
	opDelete
	opLoad // if the key is absent and nobody overtook op.mark
)

// An op is a write of one key: one transaction of its own. Ops come from a pool
// and have one owner at a time: the writer, or the leader that commits for it.
type op[K comparable, V any] struct {
	lookup  // of the key
	kind    opKind
	next    *entry[K, V]       // what to store; nil for a delete
	version listeners.Position // for opReplace
	tag     string             // of its transaction
	mark    *loadMark          // for opLoad

	before *entry[K, V]       // what was there
	change *oneEvent          // the outcome; nil if there is none
	pos    listeners.Position // of the change
	err    error              // why nothing was done
	done   chan struct{}      // receives one value when a leader is through
}

type ops[K comparable, V any] struct{ pool sync.Pool }

func (p *ops[K, V]) get() *op[K, V] {
	if o, ok := p.pool.Get().(*op[K, V]); ok {
		return o
	}
	o := &op[K, V]{done: make(chan struct{}, 1)}
	return o
}

func (p *ops[K, V]) put(o *op[K, V]) {
	if cap(o.id) <= maxPooledID {
		*o = op[K, V]{lookup: o.lookup, done: o.done}
		p.pool.Put(o)
	}
}

// decide says whether the op applies to what is there, nil for nothing.
func (o *op[K, V]) decide(before *entry[K, V]) (apply bool, err error) {
	switch o.kind {
	case opPut:
		return true, nil
	case opInsert:
		if before != nil {
			return false, &ExistsError{Key: o.next.key, Version: before.pos}
		}
		return true, nil
	case opReplace:
		var have listeners.Position
		if before != nil {
			have = before.pos
		}
		if have != o.version {
			return false, &VersionError{Key: o.next.key, Want: o.version, Have: have}
		}
		return true, nil
	case opDelete:
		return before != nil, nil
	case opLoad:
		return before == nil && !o.mark.overtaken.Load(), nil
	}
	return false, nil
}

// write commits a write of one key, alone or together with those that others
// wait to commit.
func (r *Region[K, V]) write(ctx context.Context, kind opKind, k *K, v *V, version listeners.Position) (listeners.Position, error) {
	return r.writeFor(ctx, kind, k, v, version, 0)
}

// writeFor is write of an entry with a duration of its own, 0 for none.
func (r *Region[K, V]) writeFor(ctx context.Context, kind opKind, k *K, v *V, version listeners.Position, ttl time.Duration) (listeners.Position, error) {
	if len(r.grid.writerDefs()) > 0 {
		var val V
		if v != nil {
			val = *v
		}
		return r.writeOneAsking(ctx, kind, *k, val, version, ttl)
	}
	if err := r.reserve(ctx); err != nil {
		return listeners.Position{}, err
	}
	o := r.ops.get()
	defer r.ops.put(o)
	o.kind, o.version, o.tag = kind, version, tagOf(ctx)
	o.id = encodeKey(r.codec, o.id[:0], k)
	if v != nil {
		o.next = r.newEntry(r.shape, o.id, *k, *v)
		r.limit(o.next, ttl)
	}
	r.commit(o)
	r.feed.Yield()
	return o.pos, o.err
}

// commit commits an op or has it committed. The outcome is in the op.
func (r *Region[K, V]) commit(o *op[K, V]) {
	for {
		if r.queue.add(o) {
			r.lead()
		} else {
			<-o.done
		}
		if !errors.Is(o.err, errNotIndexed) {
			return
		}
		// Not by the leader: the index's function is the user's.
		o.err = nil
		o.next.index(r.indexDefs())
	}
}

// commitLocked commits ops in one transaction of the database, each as a
// transaction of the region's own, in their order.
func (r *Region[K, V]) commitLocked(ops []*op[K, V]) {
	if r.closed {
		fail(ops, ErrClosed)
		return
	}
	at := time.Now()
	if r.lives.due.Len() > 0 {
		r.buryLocked(at, r.touchedBy(ops))
	}
	now := r.view.Load()
	length, pos := now.length, now.position
	txn := r.db.begin()
	for i, o := range ops {
		before, settled := earlier(ops[:i], o.id)
		if !settled {
			before = now.find(&o.lookup)
		}
		apply, err := o.decide(before)
		if apply && o.next != nil {
			err = r.admitLocked(now, o.next)
			apply = err == nil
		}
		if err == nil && (apply || o.kind == opDelete) {
			r.overtakeLocked(o.id)
		}
		if !apply {
			o.err = err
			continue
		}
		pos = following(pos)
		if o.next == nil {
			txn.remove(before)
			length--
		} else {
			o.next.pos = pos
			txn.put(o.next)
			if before == nil {
				length++
			}
		}
		o.pos, o.before, o.change = pos, before, r.newChange(before, o.next, pos, at)
		o.change.batch.Tx.Tag = o.tag
		if o.kind == opLoad {
			o.change.event[0].Cause = listeners.CauseLoad
		}
	}
	if pos == now.position {
		return
	}
	for _, o := range ops {
		if o.change != nil {
			r.settleLocked(o.before, o.next, r.clockAt(at))
		}
	}
	evicted := r.evictLocked(txn, length, pos, at)
	if evicted != nil {
		length, pos = length-len(evicted.Events), evicted.Position
	}
	txn.commit()
	r.show(length, pos)
	for _, o := range ops {
		if o.change != nil {
			r.feed.Append(&o.change.batch)
		}
	}
	if evicted != nil {
		r.feed.Append(evicted)
	}
	r.scheduleLocked()
}

// touchedBy yields what the ops come upon: the entries with their keys, and
// those with their values in unique indexes.
func (r *Region[K, V]) touchedBy(ops []*op[K, V]) iter.Seq[*entry[K, V]] {
	return func(yield func(*entry[K, V]) bool) {
		now := r.view.Load()
		for _, o := range ops {
			if !yield(now.find(&o.lookup)) || o.next != nil && !r.rivals(now, o.next, yield) {
				return
			}
		}
	}
}

// rivals yields the holders of an entry's values in unique indexes.
func (r *Region[K, V]) rivals(now *view[K, V], e *entry[K, V], yield func(*entry[K, V]) bool) (more bool) {
	for slot, d := range r.indexDefs() {
		if d.unique && slot < len(e.places) && e.places[slot] != nil && !yield(now.holder(slot, e.indexValue(slot))) {
			return false
		}
	}
	return true
}

// errNotIndexed is why an entry has to be written again: there is a new index.
var errNotIndexed = errors.New("the region has a new index")

// admitLocked reports why an entry cannot be stored. If an index is unique, the
// entry must be the first change after now.
func (r *Region[K, V]) admitLocked(now *view[K, V], e *entry[K, V]) error {
	defs := r.indexDefs()
	if len(e.places) != len(defs) {
		return errNotIndexed
	}
	for slot, d := range defs {
		if !d.unique || e.places[slot] == nil {
			continue
		}
		if holder := now.holder(slot, e.indexValue(slot)); holder != nil && !bytes.Equal(holder.id, e.id) {
			return &UniqueError{Index: d.name, Key: e.key, Holder: holder.key}
		}
	}
	return nil
}

// unique reports whether the region has a unique index.
func (r *Region[K, V]) unique() bool {
	return slices.ContainsFunc(r.indexDefs(), func(d indexDef[K, V]) bool { return d.unique })
}

// earlier returns what the last of these ops that changed the key left there.
func earlier[K comparable, V any](ops []*op[K, V], id []byte) (e *entry[K, V], found bool) {
	for _, o := range slices.Backward(ops) {
		if o.change != nil && bytes.Equal(o.id, id) {
			return o.next, true
		}
	}
	return nil, false
}

func fail[K comparable, V any](ops []*op[K, V], err error) {
	for _, o := range ops {
		o.pos, o.change, o.err = listeners.Position{}, nil, err
	}
}
