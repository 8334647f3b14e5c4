package listeners

import "sync"

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
	return s
}

// Collection returns "namespace.name", or the name alone without a namespace.
func (s *Schema) Collection() string { return s.collection }

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
