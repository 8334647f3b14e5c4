package grid

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

// A sourceTable decodes the records of one schema of a mirror's source.
type sourceTable[K comparable, V any] struct {
	schema *listeners.Schema
	shape  *shape // of the mirror's own entries
	keys   []keyName
	scalar string // the column that V is scanned from; "" if V is a struct
}

func newSourceTable[K comparable, V any](grid, region string, s *listeners.Schema, c *codec, value reflect.Type) (*sourceTable[K, V], error) {
	t := &sourceTable[K, V]{schema: s}
	var err error
	if t.keys, err = matchKeys(s, c); err != nil {
		return nil, err
	}
	if isScalar(value) {
		if t.scalar, err = onlyValue(s, value); err != nil {
			return nil, err
		}
	}
	t.shape, err = newShape(grid, region, t.keys, value, t.scalar)
	return t, err
}

// matchKeys pairs the source's key columns with the parts of K, one to one.
func matchKeys(s *listeners.Schema, c *codec) ([]keyName, error) {
	var columns []string
	for _, i := range s.Key() {
		columns = append(columns, s.Columns[i].Name)
	}
	if len(columns) == 0 {
		return nil, fmt.Errorf("%s has no key: give it a primary key, or a unique index and REPLICA IDENTITY USING INDEX", s.Collection())
	}
	if c.scalar() {
		if len(columns) > 1 {
			return nil, fmt.Errorf("the key of %s is (%s), which is more than the key type %s holds: use a struct with a field for each",
				s.Collection(), strings.Join(columns, ", "), c.typ)
		}
		return []keyName{{column: columns[0], part: &c.parts[0]}}, nil
	}
	var keys []keyName
	for _, column := range columns {
		for i := range c.parts {
			if c.parts[i].column == column {
				keys = append(keys, keyName{column: column, part: &c.parts[i]})
			}
		}
	}
	if len(keys) != len(columns) || len(keys) != len(c.parts) {
		return nil, fmt.Errorf("the key of %s is (%s), but the key type %s stands for (%s): they must be the same columns",
			s.Collection(), strings.Join(columns, ", "), c.typ, c.columns())
	}
	return keys, nil
}

// onlyValue returns the column for a V that is not a struct.
func onlyValue(s *listeners.Schema, value reflect.Type) (string, error) {
	if i := s.Index(valueColumn); i >= 0 && !s.Columns[i].Key {
		return valueColumn, nil
	}
	var columns []string
	for _, c := range s.Columns {
		if !c.Key {
			columns = append(columns, c.Name)
		}
	}
	if len(columns) != 1 {
		return "", fmt.Errorf("%s has the columns (%s) beside its key, which do not fit the value type %s: use a struct",
			s.Collection(), strings.Join(columns, ", "), value)
	}
	return columns[0], nil
}

// key decodes the key of a record. A column that the record does not hold is
// taken from the other one.
func (t *sourceTable[K, V]) key(r, other listeners.Record) (K, error) {
	var k K
	for _, name := range t.keys {
		v := r.Get(name.column)
		if v.State() == listeners.Unchanged {
			v = other.Get(name.column)
		}
		if v.State() != listeners.Present {
			return k, fmt.Errorf("key column %s of %s is %s", name.column, t.schema.Collection(), v.State())
		}
		at := place{index: name.part.index}
		if err := name.part.scan(v, at.of(reflect.ValueOf(&k).Elem())); err != nil {
			return k, fmt.Errorf("key column %s.%s into %T: %w", t.schema.Collection(), name.column, k, err)
		}
	}
	return k, nil
}

// value decodes the new value of an event. Columns that the source left out
// are those of the value held so far.
func (t *sourceTable[K, V]) value(e *listeners.Event, held *entry[K, V]) (V, error) {
	var v V
	if t.scalar != "" {
		if held != nil {
			v = held.val
		}
		if err := e.After.Get(t.scalar).Scan(&v); err != nil {
			return v, fmt.Errorf("column %s.%s into %T: %w", t.schema.Collection(), t.scalar, v, err)
		}
		return v, nil
	}
	partial := e.After.Unchanged() != nil
	if partial && held != nil {
		v = held.val
		return v, e.After.Scan(&v)
	}
	if !partial {
		// Without its old record, which would be decoded for nothing.
		e = &listeners.Event{Op: listeners.Read, Position: e.Position, Schema: e.Schema, After: e.After}
	}
	c, err := listeners.NewChange[V](e)
	return c.After, err
}
