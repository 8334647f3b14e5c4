package grid

import (
	"bytes"
	"iter"

	"github.com/rowcall/rowcall/listeners"
)

// An Entry is a key, its value, and their version.
type Entry[K comparable, V any] struct {
	Key   K
	Value V
	// Version is the position of the entry's last change, see
	// [Region.CompareAndPut]. A key that was deleted and made again has a new
	// one. It is never zero in a region of [Open].
	Version listeners.Position
}

// A Snapshot is the state of a region between two transactions. It never
// changes, hinders nobody, and needs no closing; who keeps it keeps the memory
// of what was changed since. All methods may be called from any goroutine.
type Snapshot[K comparable, V any] struct {
	r *Region[K, V]
	v *view[K, V]
}

// Snapshot returns the present state, in constant time.
func (r *Region[K, V]) Snapshot() Snapshot[K, V] { return Snapshot[K, V]{r, r.view.Load()} }

// Get returns the value of a key.
func (s Snapshot[K, V]) Get(k K) (V, bool) {
	e, ok := s.Entry(k)
	return e.Value, ok
}

// Entry returns the value of a key with its version.
func (s Snapshot[K, V]) Entry(k K) (Entry[K, V], bool) {
	var room [idRoom]byte
	e := s.v.get(encodeKey(s.r.codec, room[:0], &k))
	if e == nil {
		return Entry[K, V]{}, false
	}
	return Entry[K, V]{e.key, e.val, e.pos}, true
}

// Len returns the number of keys, in constant time.
func (s Snapshot[K, V]) Len() int { return s.v.length }

// Position returns the position of the last change in the snapshot.
func (s Snapshot[K, V]) Position() listeners.Position { return s.v.position }

// All yields the keys and values in key order, see [Region.All].
func (s Snapshot[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		s.v.all(func(e *entry[K, V]) bool { return yield(e.key, e.val) })
	}
}

// From yields the keys from this one on, in key order.
func (s Snapshot[K, V]) From(from K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		s.v.from(encodeKey(s.r.codec, nil, &from), func(e *entry[K, V]) bool { return yield(e.key, e.val) })
	}
}

// Range yields the keys from the first one up to, but without, the second, in
// key order. It finds its beginning without reading what comes before.
func (s Snapshot[K, V]) Range(from, to K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		end := encodeKey(s.r.codec, nil, &to)
		s.v.from(encodeKey(s.r.codec, nil, &from), func(e *entry[K, V]) bool {
			return bytes.Compare(e.id, end) < 0 && yield(e.key, e.val)
		})
	}
}
