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
//
// It is what the events up to its position make of an empty map. So an entry
// whose time is up is in it until its delete is committed; and looking at a
// snapshot does not count as using an entry.
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
	e := s.find(k)
	if e == nil {
		return Entry[K, V]{}, false
	}
	return Entry[K, V]{e.key, e.val, e.pos}, true
}

func (s Snapshot[K, V]) find(k K) *entry[K, V] {
	var room [idRoom]byte
	return s.v.get(encodeKey(s.r.codec, room[:0], &k))
}

// Len returns the number of keys, in constant time.
func (s Snapshot[K, V]) Len() int { return s.v.length }

// Position returns the position of the last change in the snapshot.
func (s Snapshot[K, V]) Position() listeners.Position { return s.v.position }

// All yields the keys and values in key order, see [Region.All].
func (s Snapshot[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		s.v.all(pair(yield))
	}
}

// From yields the keys from this one on, in key order.
func (s Snapshot[K, V]) From(from K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		s.from(&from, nil, pair(yield))
	}
}

// Range yields the keys from the first one up to, but without, the second, in
// key order. It finds its beginning without reading what comes before.
func (s Snapshot[K, V]) Range(from, to K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		s.from(&from, &to, pair(yield))
	}
}

// from yields what is from one key to another, nil for no end.
func (s Snapshot[K, V]) from(from, to *K, yield func(*entry[K, V]) bool) {
	var end []byte
	if to != nil {
		end = encodeKey(s.r.codec, nil, to)
	}
	s.v.from(encodeKey(s.r.codec, nil, from), func(e *entry[K, V]) bool {
		return (to == nil || bytes.Compare(e.id, end) < 0) && yield(e)
	})
}

func pair[K comparable, V any](yield func(K, V) bool) func(*entry[K, V]) bool {
	return func(e *entry[K, V]) bool { return yield(e.key, e.val) }
}

// staying leaves out entries whose time is up at the start of an iteration.
func (r *Region[K, V]) staying(yield func(K, V) bool) func(*entry[K, V]) bool {
	now := r.clock()
	return func(e *entry[K, V]) bool { return r.over(e, now) || yield(e.key, e.val) }
}
