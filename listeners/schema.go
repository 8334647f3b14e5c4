package listeners

import (
	"encoding/binary"
	"hash/fnv"
	"sync"
)

// A Column describes one column of a [Schema].
type Column struct {
	Name   string
	Type   string // the source's own name of the type, such as "bigint"; "" if it has none
	TypeID uint32 // the source's own number of the type (Postgres: the OID); 0 if it has none
	Key    bool   // part of the key
}

// A Schema describes one version of a collection: a table or a region. It is
// immutable; a schema change makes a new one, and every record points to the
// schema it was written with.
type Schema struct {
	// Source is the name of the database or grid, such as "shop".
	Source string
	// Namespace is the Postgres schema, such as "public"; empty for regions.
	Namespace string
	// Name is the table or region, such as "seats".
	Name string
	// Columns are in the order of the records.
	Columns []Column

	collection string
	version    uint64
	key        []int
	byName     map[string]int
	plans      sync.Map // reflect.Type -> *scanPlan or error
}

// NewSchema returns a schema. It takes ownership of columns.
func NewSchema(source, namespace, name string, columns []Column) *Schema {
	s := &Schema{
		Source: source, Namespace: namespace, Name: name, Columns: columns,
		collection: name, byName: make(map[string]int, len(columns)),
	}
	if namespace != "" {
		s.collection = namespace + "." + name
	}
	for i, c := range columns {
		s.byName[c.Name] = i
		if c.Key {
			s.key = append(s.key, i)
		}
	}
	s.version = fingerprint(columns)
	return s
}

// Collection returns "namespace.name", or the name alone without a namespace.
func (s *Schema) Collection() string { return s.collection }

// Version identifies the columns: it is a fingerprint of their order, names,
// types and key flags. It is the same in every process, and another one after a
// column was added, dropped, renamed, or given another type, or when the key is
// another. Tables with the same columns have the same Version. A type counts by
// its number, by its name only if it has none; its length and precision, and
// what is inside an enum or a composite, do not count.
//
// It is the FNV-1a 64 hash of, for each column, the name, a zero byte, the
// type's number as 4 bytes, big-endian, its name if the number is 0, a zero
// byte, and 1 or 0 for part of the key or not.
func (s *Schema) Version() uint64 { return s.version }

func fingerprint(columns []Column) uint64 {
	h := fnv.New64a()
	var b []byte
	for _, c := range columns {
		b = append(append(b[:0], c.Name...), 0)
		b = binary.BigEndian.AppendUint32(b, c.TypeID)
		if c.TypeID == 0 {
			b = append(b, c.Type...)
		}
		key := byte(0)
		if c.Key {
			key = 1
		}
		_, _ = h.Write(append(b, 0, key)) // never fails
	}
	return h.Sum64()
}

// Key returns the indexes of the key columns, in column order; empty if the
// collection has no key. The caller must not change it.
func (s *Schema) Key() []int { return s.key }

// Index returns the index of the column with this exact name, or -1.
func (s *Schema) Index(column string) int {
	if i, ok := s.byName[column]; ok {
		return i
	}
	return -1
}
