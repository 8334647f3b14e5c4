package grid

import (
	"bytes"
	"slices"

	"github.com/rowcall/rowcall/grid/internal/trie"
)

// A state is the entries of a region, by their ids and by their places in each
// index. It is immutable.
type state[K comparable, V any] struct {
	ids     trie.Tree[entry[K, V]]
	indexes []trie.Tree[entry[K, V]]
}

// A db holds the present state, and is changed under the region's mu.
type db[K comparable, V any] struct {
	now state[K, V]
	txn dbTxn[K, V] // the last one's memory
}

// newDB returns an empty database with this many indexes.
func newDB[K comparable, V any](indexes int) *db[K, V] {
	d := &db[K, V]{now: state[K, V]{ids: trie.New(func(e *entry[K, V]) []byte { return e.id })}}
	for slot := range indexes {
		d.now.indexes = append(d.now.indexes, trie.New(func(e *entry[K, V]) []byte { return e.places[slot] }))
	}
	return d
}

// A dbTxn changes a db when it is committed. One that is not needs no end.
type dbTxn[K comparable, V any] struct {
	db      *db[K, V]
	ids     trie.Txn[entry[K, V]]
	indexes []trie.Txn[entry[K, V]]
}

// begin starts a transaction, and gives up the one before.
func (d *db[K, V]) begin() *dbTxn[K, V] {
	x := &d.txn
	x.db, x.ids, x.indexes = d, d.now.ids.Txn(), x.indexes[:0]
	for slot := range d.now.indexes {
		x.indexes = append(x.indexes, d.now.indexes[slot].Txn())
	}
	return x
}

// put stores an entry, which has its places in all indexes.
func (x *dbTxn[K, V]) put(e *entry[K, V]) {
	before := x.ids.Set(e)
	for slot := range x.indexes {
		if before != nil && before.places[slot] != nil && !bytes.Equal(before.places[slot], e.places[slot]) {
			x.indexes[slot].Delete(before.places[slot])
		}
		if e.places[slot] != nil {
			x.indexes[slot].Set(e)
		}
	}
}

// remove takes out the entry with the id of e.
func (x *dbTxn[K, V]) remove(e *entry[K, V]) {
	before := x.ids.Delete(e.id)
	if before == nil {
		return
	}
	for slot := range x.indexes {
		if at := before.places[slot]; at != nil {
			x.indexes[slot].Delete(at)
		}
	}
}

func (x *dbTxn[K, V]) commit() {
	x.db.now.ids = x.ids.Tree()
	if len(x.indexes) == 0 {
		return
	}
	x.db.now.indexes = slices.Clone(x.db.now.indexes) // views share the old ones
	for slot := range x.indexes {
		x.db.now.indexes[slot] = x.indexes[slot].Tree()
	}
}
