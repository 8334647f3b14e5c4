package grid

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"
)

// A TxRegion is a region as a transaction sees it: its state at the
// transaction's first use of it, and the transaction's own writes. It belongs
// to the goroutine that fn of [Grid.Do] is called on.
type TxRegion[K comparable, V any] struct {
	staged[K, V]
	tx   *Tx
	base *view[K, V]
	at   int64 // when, by the region's clock
	err  error // why it cannot be used

	reads map[string]*entry[K, V] // by id, what base has; nil for absent
	whole bool                    // read all of base
	wiped bool                    // by [Region.Clear]
}

var _ txPart = (*TxRegion[string, int])(nil)

// In returns a region to be read and written within a transaction. Called again
// with the same region, it returns the same. A mirror can be read, not written.
//
// A region of another grid cannot take part: then every write fails, no key is
// found, and [Grid.Do] returns an error that says so.
func In[K comparable, V any](tx *Tx, r *Region[K, V]) *TxRegion[K, V] {
	for _, p := range tx.parts {
		if p.of(r) {
			return p.(*TxRegion[K, V]) //nolint:errcheck // the region has these types
		}
	}
	t := &TxRegion[K, V]{staged: staged[K, V]{r: r, tag: tx.tag}, tx: tx, base: r.view.Load(), at: r.clock()}
	if r.grid != tx.grid {
		t.err = fmt.Errorf("grid %q: transaction: region %q is of grid %q: a transaction stays within one grid", tx.grid.name, r.name, r.grid.name)
		if tx.err == nil {
			tx.err = t.err
		}
		return t
	}
	tx.parts = append(tx.parts, t)
	return t
}

// Get returns the value of a key.
func (t *TxRegion[K, V]) Get(k K) (V, bool) {
	if e := t.find(encodeKey(t.r.codec, nil, &k)); e != nil {
		return e.val, true
	}
	var zero V
	return zero, false
}

func (t *TxRegion[K, V]) find(id []byte) *entry[K, V] {
	if w, own := t.writes[string(id)]; own {
		return w.next
	}
	if t.err != nil {
		return nil
	}
	e := t.base.find(newLookup(id))
	if e != nil && !t.r.use(e, t.base, t.at) {
		e = nil
	}
	if t.reads == nil {
		t.reads = make(map[string]*entry[K, V])
	}
	t.reads[string(id)] = e
	return e
}

// Put stores a value, whether the key exists or not. The value must not change
// afterwards. The errors are [ErrMirror], [ErrTxOver] and a region of another
// grid.
func (t *TxRegion[K, V]) Put(k K, v V) error {
	if err := t.writable(); err != nil {
		return fmt.Errorf("grid: put into region %q: %w", t.r.name, err)
	}
	t.put(k, v)
	return nil
}

// PutTTL is [TxRegion.Put] for an entry with a duration of its own, see
// [Region.PutTTL].
func (t *TxRegion[K, V]) PutTTL(k K, v V, ttl time.Duration) error {
	err := t.writable()
	if err == nil {
		err = checkTTL(ttl)
	}
	if err != nil {
		return fmt.Errorf("grid: put into region %q: %w", t.r.name, err)
	}
	t.putFor(k, v, ttl)
	return nil
}

// Insert stores the value of a new key. If the key exists, the error is an
// [*ExistsError]; its version is zero if this transaction has put the key. It
// fails as [TxRegion.Put] does.
func (t *TxRegion[K, V]) Insert(k K, v V) error {
	err := t.writable()
	if err == nil {
		if held := t.find(encodeKey(t.r.codec, nil, &k)); held != nil {
			err = &ExistsError{Key: k, Version: held.pos}
		}
	}
	if err != nil {
		return fmt.Errorf("grid: insert into region %q: %w", t.r.name, err)
	}
	t.put(k, v)
	return nil
}

// Delete removes a key and reports whether it existed. It fails as
// [TxRegion.Put] does.
func (t *TxRegion[K, V]) Delete(k K) (existed bool, err error) {
	if err := t.writable(); err != nil {
		return false, fmt.Errorf("grid: delete from region %q: %w", t.r.name, err)
	}
	id := encodeKey(t.r.codec, nil, &k)
	existed = t.find(id) != nil
	if _, own := t.writes[string(id)]; existed || !own {
		t.write(id, nil) // also if it is absent: that overtakes a load
	}
	return existed, nil
}

func (t *TxRegion[K, V]) writable() error {
	switch {
	case t.err != nil:
		return t.err
	case t.tx.over:
		return ErrTxOver
	case t.r.source != nil:
		return ErrMirror
	}
	return nil
}

// All yields the keys and values in key order, see [Region.All]. What the
// transaction writes meanwhile is not in it.
func (t *TxRegion[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { t.walk(nil, nil, yield) }
}

// From yields the keys from this one on, as [TxRegion.All] does.
func (t *TxRegion[K, V]) From(from K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { t.walk(encodeKey(t.r.codec, nil, &from), nil, yield) }
}

// Range yields the keys from the first one up to, but without, the second, as
// [TxRegion.All] does.
func (t *TxRegion[K, V]) Range(from, to K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		t.walk(encodeKey(t.r.codec, nil, &from), encodeKey(t.r.codec, nil, &to), yield)
	}
}

// walk yields what is from one id to another, nil for no bound. It counts as
// having read the whole region: nobody may add a key that it would have found.
func (t *TxRegion[K, V]) walk(from, to []byte, yield func(K, V) bool) {
	if t.err != nil {
		return
	}
	t.whole = true
	own := slices.DeleteFunc(t.sorted(), func(w stagedWrite[K, V]) bool { return bytes.Compare(w.id, from) < 0 })
	more := true
	tell := func(e *entry[K, V]) bool {
		more = (to == nil || bytes.Compare(e.id, to) < 0) && yield(e.key, e.val)
		return more
	}
	t.base.from(from, func(e *entry[K, V]) bool {
		for len(own) > 0 && bytes.Compare(own[0].id, e.id) <= 0 {
			w := own[0]
			own = own[1:]
			if w.next != nil && !tell(w.next) {
				return false
			}
			if bytes.Equal(w.id, e.id) {
				return true
			}
		}
		return t.r.over(e, t.at) || tell(e)
	})
	for _, w := range own {
		if more && w.next != nil {
			tell(w.next)
		}
	}
}

func (t *TxRegion[K, V]) name() string                      { return t.r.name }
func (t *TxRegion[K, V]) order() uint64                     { return t.r.order }
func (t *TxRegion[K, V]) of(region any) bool                { return region == any(t.r) }
func (t *TxRegion[K, V]) writing() bool                     { return len(t.writes) > 0 }
func (t *TxRegion[K, V]) reserve(ctx context.Context) error { return t.r.reserve(ctx) }
func (t *TxRegion[K, V]) lock()                             { t.r.mu.Lock() }
func (t *TxRegion[K, V]) unlock()                           { t.r.mu.Unlock() }
func (t *TxRegion[K, V]) yield()                            { t.r.feed.Yield() }

// unchangedLocked reports whether what was read would still be read.
// Time that is up by now is a change, whether it is committed or not.
func (t *TxRegion[K, V]) unchangedLocked(at time.Time) bool {
	if t.whole && t.r.lives.due.Len() > 0 {
		t.r.expireSomeLocked(at)
	}
	now := t.r.view.Load()
	if now == t.base && (t.whole || t.r.lives.due.Len() == 0) {
		return true
	}
	if t.whole {
		return false
	}
	for id, e := range t.reads {
		held := now.find(newLookup([]byte(id)))
		if held != nil && t.r.over(held, t.r.clockAt(at)) {
			held = nil
		}
		if held != e {
			return false
		}
	}
	return true
}
