package listeners

import (
	"database/sql/driver"
	"encoding"
	"reflect"
)

// scalar returns the column that a value which is no struct of columns is
// scanned from: the one named "value", as regions name it, or the only one
// outside the key. A time and the like are no structs of columns, either.
func (s *Schema) scalar(t reflect.Type) (int, bool) {
	if t.Kind() == reflect.Struct && !is[encoding.TextUnmarshaler](t) && !is[driver.Valuer](t) {
		return 0, false
	}
	if i := s.Index("value"); i >= 0 && !s.Columns[i].Key {
		return i, true
	}
	only := -1
	for i := range s.Columns {
		if s.Columns[i].Key {
			continue
		}
		if only >= 0 {
			return 0, false
		}
		only = i
	}
	return only, only >= 0
}

func is[I any](t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[I]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[I]())
}
