package grid

import (
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// maxPooledID is how long an id may be to stay in a pool; a rare giant should
// not.
const maxPooledID = 4096

// A lookup is the memory in which the id of one look-up is made.
type lookup struct{ id []byte }

func newLookup(id []byte) *lookup { return &lookup{id: id} }

type lookups struct{ pool sync.Pool }

func (p *lookups) get() *lookup {
	if l, ok := p.pool.Get().(*lookup); ok {
		return l
	}
	return new(lookup)
}

func (p *lookups) put(l *lookup) {
	if cap(l.id) <= maxPooledID {
		p.pool.Put(l)
	}
}

// A view is the state of a region after one transaction. It is immutable, and
// read by any number of goroutines at once.
type view[K comparable, V any] struct {
	state    state[K, V]
	length   int
	position listeners.Position
}

// idRoom is how long an id may be to be made on the stack for a look-up.
const idRoom = 64

// get returns the entry with this id, or nil.
func (v *view[K, V]) get(id []byte) *entry[K, V] { return v.state.ids.Get(id) }

// find returns the entry with l.id, or nil.
func (v *view[K, V]) find(l *lookup) *entry[K, V] { return v.state.ids.Get(l.id) }

// all yields the entries in the order of their keys.
func (v *view[K, V]) all(yield func(*entry[K, V]) bool) { v.state.ids.All(yield) }

// from yields the entries with this id and greater ones, in the order of their
// keys.
func (v *view[K, V]) from(id []byte, yield func(*entry[K, V]) bool) { v.state.ids.From(id, yield) }

// seek yields the entries that stand here and behind in an index.
func (v *view[K, V]) seek(slot int, at []byte, yield func(*entry[K, V]) bool) {
	v.state.indexes[slot].From(at, yield)
}
