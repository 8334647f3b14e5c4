package grid

import (
	"fmt"
	"sync"

	"github.com/hashicorp/go-memdb"

	"github.com/rowcall/rowcall/listeners"
)

const (
	table   = "e"
	idIndex = "id" // memdb wants exactly this name
)

// newDB returns an empty database for entries.
//
// It is a snapshot of an empty one: memdb takes what is not its first instance
// for a copy that nobody watches, and so spares each write the bookkeeping of
// watch channels. Regions have feeds instead.
func newDB[K comparable, V any](defs []indexDef[K, V]) (*memdb.MemDB, error) {
	indexes := map[string]*memdb.IndexSchema{
		idIndex: {Name: idIndex, Unique: true, Indexer: indexer[K, V]{}},
	}
	for slot := range defs {
		name := slotName(slot)
		indexes[name] = &memdb.IndexSchema{Name: name, Unique: true, AllowMissing: true, Indexer: slotIndexer[K, V]{slot: slot}}
	}
	db, err := memdb.NewMemDB(&memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		table: {Name: table, Indexes: indexes},
	}})
	if err != nil {
		return nil, fmt.Errorf("make the table: %w", err)
	}
	return db.Snapshot(), nil
}

// An indexer finds entries by their encoded keys, without reflection.
type indexer[K comparable, V any] struct{}

// FromObject implements [memdb.SingleIndexer].
func (indexer[K, V]) FromObject(obj any) (bool, []byte, error) {
	return true, obj.(*entry[K, V]).id, nil //nolint:errcheck // the table holds nothing else
}

// FromArgs implements [memdb.Indexer].
func (indexer[K, V]) FromArgs(args ...any) ([]byte, error) {
	return args[0].(*lookup).id, nil //nolint:errcheck // find passes nothing else
}

// maxPooledID is how long an id may be to stay in a pool; a rare giant should
// not.
const maxPooledID = 4096

// A lookup holds the argument list of one look-up, so that one from a pool
// makes it without an allocation of its own.
type lookup struct {
	id   []byte
	args [1]any // the lookup itself
}

func newLookup(id []byte) *lookup {
	l := &lookup{id: id}
	l.args[0] = l
	return l
}

type lookups struct{ pool sync.Pool }

func (p *lookups) get() *lookup {
	if l, ok := p.pool.Get().(*lookup); ok {
		return l
	}
	return newLookup(nil)
}

func (p *lookups) put(l *lookup) {
	if cap(l.id) <= maxPooledID {
		p.pool.Put(l)
	}
}

// A view is the state of a region after one transaction. It is immutable.
// Its read transaction serves any number of goroutines at once: memdb only
// reads the tree that it points to.
type view[K comparable, V any] struct {
	txn      *memdb.Txn
	length   int
	position listeners.Position
}

// find returns the entry with l.id, or nil.
func (v *view[K, V]) find(l *lookup) *entry[K, V] {
	obj, err := v.txn.First(table, idIndex, l.args[:]...)
	if err != nil || obj == nil {
		return nil // err is for unknown tables and indexes alone
	}
	return obj.(*entry[K, V]) //nolint:errcheck // the table holds nothing else
}

// all yields the entries in the order of their keys.
func (v *view[K, V]) all(yield func(*entry[K, V]) bool) {
	it, err := v.txn.Get(table, idIndex)
	if err != nil {
		return // as in find
	}
	for obj := it.Next(); obj != nil; obj = it.Next() {
		if !yield(obj.(*entry[K, V])) { //nolint:errcheck // as in find
			return
		}
	}
}

// from yields the entries with this id and greater ones, in the order of their
// keys.
func (v *view[K, V]) from(id []byte, yield func(*entry[K, V]) bool) { v.seek(idIndex, id, yield) }

// seek yields the entries that stand here and behind in an index.
func (v *view[K, V]) seek(index string, at []byte, yield func(*entry[K, V]) bool) {
	it, err := v.txn.LowerBound(table, index, newLookup(at).args[:]...)
	if err != nil {
		return // as in find
	}
	for obj := it.Next(); obj != nil; obj = it.Next() {
		if !yield(obj.(*entry[K, V])) { //nolint:errcheck // as in find
			return
		}
	}
}
