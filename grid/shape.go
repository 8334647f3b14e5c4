package grid

import (
	"database/sql/driver"
	"encoding"
	"fmt"
	"reflect"

	"github.com/rowcall/rowcall/listeners"
)

// Column names of keys and values that are not structs.
const (
	keyColumn   = "key"
	valueColumn = "value"
)

// A shape says which column of a region's schema is found where in an entry.
type shape struct {
	schema  *listeners.Schema
	columns []place // in the order of the schema
}

// A place is a key or a value, or a field of it.
type place struct {
	key   bool
	index []int    // nil for the whole
	part  *keyPart // of a key whose text is not simply that of its kind, else nil
}

// of returns the value at this place of a key or value.
func (p *place) of(whole reflect.Value) reflect.Value {
	if p.index == nil {
		return whole
	}
	return whole.FieldByIndex(p.index)
}

// A keyName is a part of the key under the name it has as a column.
type keyName struct {
	column string
	part   *keyPart
}

// newShape makes the schema of a region: the key columns, then the columns of
// the value that are not named like one of these. A value that is not a struct
// is the column scalar.
func newShape(grid, region string, keys []keyName, value reflect.Type, scalar string) (*shape, error) {
	s := new(shape)
	var columns []listeners.Column
	seen := make(map[string]string)
	for _, k := range keys {
		columns = append(columns, listeners.Column{Name: k.column, Type: k.part.typ.String(), Key: true})
		at := place{key: true, index: k.part.index}
		if k.part.whole {
			at.part = k.part
		}
		s.columns = append(s.columns, at)
		seen[k.column] = ""
	}
	fields := []field{{column: scalar, name: value.String(), typ: value}}
	if !isScalar(value) {
		fields = fieldsOf(value)
	}
	for _, f := range fields {
		if f.column == "" {
			continue
		}
		if other, twice := seen[f.column]; twice {
			if other == "" {
				continue // the key itself
			}
			return nil, fmt.Errorf("the fields %s and %s of %s both stand for column %q; rename one with a db tag", other, f.name, value, f.column)
		}
		seen[f.column] = f.name
		columns = append(columns, listeners.Column{Name: f.column, Type: f.typ.String()})
		s.columns = append(s.columns, place{index: f.index})
	}
	s.schema = listeners.NewSchema(grid, "", region, columns)
	return s, nil
}

// isScalar reports whether values of t are one column. Structs that know their
// text or their database value, such as time.Time and sql.NullString, are, and
// so are those without any column.
func isScalar(t reflect.Type) bool {
	if t.Kind() != reflect.Struct || implements[encoding.TextMarshaler](t) || implements[driver.Valuer](t) {
		return true
	}
	for _, f := range fieldsOf(t) {
		if f.column != "" {
			return false
		}
	}
	return true
}

func implements[I any](t reflect.Type) bool {
	i := reflect.TypeFor[I]()
	return t.Implements(i) || reflect.PointerTo(t).Implements(i)
}

// keyNames names the parts of an open region's key.
func (c *codec) keyNames() []keyName {
	names := make([]keyName, len(c.parts))
	for i := range c.parts {
		names[i] = keyName{column: c.parts[i].column, part: &c.parts[i]}
		if c.scalar() {
			names[i].column = keyColumn
		}
	}
	return names
}
