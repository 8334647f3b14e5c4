package grid

import (
	"bytes"
	"errors"
	"reflect"

	"github.com/rowcall/rowcall/listeners"
)

// An entry is one version of a key's value. It is immutable and shared by the
// map, by its older snapshots and by the events: it is their row.
type entry[K comparable, V any] struct {
	id  []byte // the encoded key
	key K
	val V
	// places in the region's indexes, nil where it is in none
	places [][]byte
	shape  *shape
	pos    listeners.Position
	size   int         // estimated
	life   *life[K, V] // nil if it stays until somebody deletes it
}

// A shortEntry is an entry and its id in one piece of memory, which saves an
// allocation and, for a look-up that compares the id, a cache miss.
type shortEntry[K comparable, V any] struct {
	room [16]byte
	entry[K, V]
}

// allocEntry returns an entry of which only the id is set, to a copy.
func allocEntry[K comparable, V any](id []byte) *entry[K, V] {
	var short *shortEntry[K, V]
	if len(id) > len(short.room) {
		return &entry[K, V]{id: bytes.Clone(id)}
	}
	short = new(shortEntry[K, V])
	short.id = short.room[:copy(short.room[:], id):len(id)]
	return &short.entry
}

// copied returns a copy that does not keep the memory of e.
func (e *entry[K, V]) copied() *entry[K, V] {
	c := allocEntry[K, V](e.id)
	id := c.id
	*c = *e
	c.id = id
	return c
}

var (
	_ listeners.Row    = (*entry[string, int])(nil)
	_ listeners.Native = (*entry[string, int])(nil)
)

// Native implements [listeners.Native].
func (e *entry[K, V]) Native() any { return &e.val }

// Schema implements [listeners.Row].
func (e *entry[K, V]) Schema() *listeners.Schema { return e.shape.schema }

// State implements [listeners.Row]. No column of a region is ever unchanged.
func (e *entry[K, V]) State(i int) listeners.State {
	if _, ok := resolve(e.column(i)); !ok && e.shape.columns[i].part == nil {
		return listeners.Null
	}
	return listeners.Present
}

// Text implements [listeners.Row].
func (e *entry[K, V]) Text(i int) []byte {
	if p := e.shape.columns[i].part; p != nil {
		return keyText(p, &e.key, e.column(i))
	}
	return textOf(e.column(i))
}

// AppendJSON implements [listeners.Row].
func (e *entry[K, V]) AppendJSON(dst []byte, i int) []byte {
	if p := e.shape.columns[i].part; p != nil {
		return appendKeyJSON(dst, p, &e.key, e.column(i))
	}
	return appendJSON(dst, e.column(i))
}

// Scan implements [listeners.Row].
func (e *entry[K, V]) Scan(i int, dst any) error {
	d := reflect.ValueOf(dst)
	if d.Kind() != reflect.Pointer || d.IsNil() {
		return errors.New("want a non-nil pointer")
	}
	if p := e.shape.columns[i].part; p != nil && d.Elem().Kind() == reflect.String {
		d.Elem().SetString(string(e.Text(i)))
		return nil
	}
	return assign(d.Elem(), e.column(i))
}

func (e *entry[K, V]) column(i int) reflect.Value {
	at := &e.shape.columns[i]
	whole := reflect.ValueOf(&e.val)
	if at.key {
		whole = reflect.ValueOf(&e.key)
	}
	return at.of(whole.Elem())
}
