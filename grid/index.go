package grid

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
)

// IndexOptions set up an index. Nil and zero mean the defaults.
type IndexOptions struct {
	// Unique refuses a write that would give two keys the same index value,
	// with a [*UniqueError]. Writes of a region with a unique index are not
	// committed together. A mirror takes what its source says, and cannot have
	// one.
	Unique bool
}

// An Index finds the entries of a region by a value taken from them. It is as
// current as the region: a write and its effect on the index become visible at
// once. All methods may be called from any goroutine; they take no lock, and
// each iteration sees the state at its start.
type Index[K comparable, V any, I comparable] struct {
	r     *Region[K, V]
	slot  int
	codec *codec
}

// An indexDef is an [Index] without the type of its values.
type indexDef[K comparable, V any] struct {
	name   string
	unique bool
	// value returns the encoded index value, or nil if the entry is not in the
	// index.
	value func(K, V) []byte
}

// NewIndex adds an index to a region. The function of returns the value under
// which an entry is found, and whether it is to be found at all; it must depend
// on nothing but its arguments. I can be what a key can be: for an order by
// several fields, a struct.
//
// NewIndex reads all entries, and writers wait meanwhile, as they do for of in
// [Region.Update]; so an index is best made while the region is empty. An index
// stays as long as its region. The errors are [ErrClosed], [ErrTaken] for the
// name, a [*UniqueError], and misuse.
func NewIndex[K comparable, V any, I comparable](r *Region[K, V], name string, of func(K, V) (I, bool), opts *IndexOptions) (*Index[K, V, I], error) {
	if opts == nil {
		opts = new(IndexOptions)
	}
	x := &Index[K, V, I]{r: r}
	var err error
	x.codec, err = newCodec(reflect.TypeFor[I](), r.grid.keys)
	switch {
	case err != nil:
	case of == nil:
		err = errors.New("the function is nil")
	case name == "":
		err = errors.New("an index needs a name")
	case opts.Unique && r.source != nil:
		err = errors.New("a mirror takes what its source says, and cannot have a unique index")
	default:
		x.slot, err = r.addIndex(indexDef[K, V]{name: name, unique: opts.Unique, value: func(k K, v V) []byte {
			i, ok := of(k, v)
			if !ok {
				return nil
			}
			return encodeKey(x.codec, nil, &i)
		}})
	}
	if err != nil {
		return nil, fmt.Errorf("grid: index %q of region %q: %w", name, r.name, err)
	}
	return x, nil
}

// Equal yields the keys and values of the entries with this index value, in
// key order.
func (x *Index[K, V, I]) Equal(i I) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		value := encodeKey(x.codec, nil, &i)
		x.walk(value, yield, func(at []byte) bool { return bytes.HasPrefix(at, value) })
	}
}

// First returns the first entry with this index value: that of a unique index
// is the only one.
func (x *Index[K, V, I]) First(i I) (Entry[K, V], bool) {
	var found Entry[K, V]
	ok := false
	var room [idRoom]byte
	value := encodeKey(x.codec, room[:0], &i)
	x.r.view.Load().seek(x.slot, value, func(e *entry[K, V]) bool {
		if !bytes.HasPrefix(e.places[x.slot], value) {
			return false
		}
		if ok = e.life == nil || !x.r.over(e, x.r.clock()); ok {
			found = Entry[K, V]{e.key, e.val, e.pos}
		}
		return !ok
	})
	return found, ok
}

// From yields the entries with this index value and greater ones, ordered by
// index value and then by key. Index values are ordered as keys are, see
// [Region.All].
func (x *Index[K, V, I]) From(from I) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		x.walk(encodeKey(x.codec, nil, &from), yield, func([]byte) bool { return true })
	}
}

// Range yields the entries with index values from the first one up to, but
// without, the second, in the order of [Index.From].
func (x *Index[K, V, I]) Range(from, to I) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		end := encodeKey(x.codec, nil, &to)
		x.walk(encodeKey(x.codec, nil, &from), yield, func(at []byte) bool { return bytes.Compare(at, end) < 0 })
	}
}

// walk yields from this encoded value on, while within says so of the place.
func (x *Index[K, V, I]) walk(from []byte, yield func(K, V) bool, within func(at []byte) bool) {
	tell := x.r.staying(yield)
	x.r.view.Load().seek(x.slot, from, func(e *entry[K, V]) bool {
		return within(e.places[x.slot]) && tell(e)
	})
}

// holder returns the first entry with this encoded index value, or nil.
func (v *view[K, V]) holder(slot int, value []byte) *entry[K, V] {
	var found *entry[K, V]
	v.seek(slot, value, func(e *entry[K, V]) bool {
		if bytes.HasPrefix(e.places[slot], value) {
			found = e
		}
		return false
	})
	return found
}

// addIndex builds the table anew, with one more index.
func (r *Region[K, V]) addIndex(def indexDef[K, V]) (slot int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defs := r.indexDefs()
	switch {
	case r.closed:
		return 0, ErrClosed
	case slices.ContainsFunc(defs, func(d indexDef[K, V]) bool { return d.name == def.name }):
		return 0, ErrTaken
	}
	slot = len(defs)
	defs = append(slices.Clip(defs), def)
	fresh := newDB[K, V](len(defs))
	now := r.view.Load()
	txn := fresh.begin()
	holders := make(map[string]K)
	now.all(func(e *entry[K, V]) bool {
		c := e.copied() // the one that others read stays as it is
		c.places = append(slices.Clip(e.places), c.place(def))
		c.size += len(c.places[slot])
		if at := c.places[slot]; def.unique && at != nil {
			value := string(c.indexValue(slot))
			if holder, twice := holders[value]; twice {
				err = &UniqueError{Index: def.name, Key: c.key, Holder: holder}
				return false
			}
			holders[value] = c.key
		}
		txn.put(c)
		return true
	})
	if err != nil {
		return 0, err
	}
	txn.commit()
	r.db = fresh
	r.indexes.Store(&defs)
	r.show(now.length, now.position)
	r.lives.renew(r.view.Load())
	return slot, nil
}

// indexDefs returns the present indexes, which change under mu only.
func (r *Region[K, V]) indexDefs() []indexDef[K, V] {
	if defs := r.indexes.Load(); defs != nil {
		return *defs
	}
	return nil
}

// place returns where the entry stands in an index: its value there, then the
// id; or nil.
func (e *entry[K, V]) place(d indexDef[K, V]) []byte {
	value := d.value(e.key, e.val)
	if value == nil {
		return nil
	}
	return append(value, e.id...)
}

// indexValue returns the encoded index value, or nil.
func (e *entry[K, V]) indexValue(slot int) []byte {
	at := e.places[slot]
	return at[:max(0, len(at)-len(e.id))]
}

// index gives an entry that nobody else knows yet its places.
func (e *entry[K, V]) index(defs []indexDef[K, V]) {
	if len(e.places) == len(defs) {
		return
	}
	for _, d := range defs[len(e.places):] {
		at := e.place(d)
		e.places = append(e.places, at)
		e.size += len(at)
	}
}
