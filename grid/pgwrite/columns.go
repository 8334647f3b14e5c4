package pgwrite

import (
	"database/sql/driver"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

// A column is one column of a table and where its value is found.
type column struct {
	name  string
	key   bool  // in the primary key
	fixed bool  // the database alone writes it
	inKey []int // the field of K; empty for the whole of it; nil if K has none
	inVal []int // likewise for V
}

// of returns the value at a place of a key or value.
func of(whole reflect.Value, place []int) reflect.Value {
	if len(place) == 0 {
		return whole
	}
	return whole.FieldByIndex(place)
}

// match gives the columns of a table their places in K and V. They must name
// all columns of the primary key.
func match(table string, columns []column, k, v reflect.Type) error {
	var keys []string
	for _, c := range columns {
		if c.key {
			keys = append(keys, c.name)
		}
	}
	if len(keys) == 0 {
		return fmt.Errorf("%s has no primary key, which a write through it needs", table)
	}
	if isScalar(k) {
		if len(keys) > 1 {
			return fmt.Errorf("the primary key of %s is (%s), which is more than the key type %s holds", table, strings.Join(keys, ", "), k)
		}
		at := slices.IndexFunc(columns, func(c column) bool { return c.key })
		columns[at].inKey = []int{}
	} else {
		fields := fieldsOf(k)
		for _, f := range fields {
			at := slices.IndexFunc(columns, func(c column) bool { return c.key && c.name == f.column })
			if at < 0 {
				return fmt.Errorf("the field %s of the key type %s stands for %q, which is not in the primary key (%s) of %s", f.name, k, f.column, strings.Join(keys, ", "), table)
			}
			columns[at].inKey = f.index
		}
		if len(fields) != len(keys) {
			return fmt.Errorf("the primary key of %s is (%s), which the key type %s does not hold", table, strings.Join(keys, ", "), k)
		}
	}
	if isScalar(v) {
		return matchScalar(table, columns, v)
	}
	for _, f := range fieldsOf(v) {
		at := slices.IndexFunc(columns, func(c column) bool { return c.name == f.column })
		switch {
		case at >= 0:
			columns[at].inVal = f.index
		case f.required:
			return fmt.Errorf("the field %s of %s wants column %q, which %s does not have; rename it, or add \",optional\" to its tag", f.name, v, f.column, table)
		}
	}
	return nil
}

// matchScalar finds the column of a V that is not a struct, as grid.Mirror does.
func matchScalar(table string, columns []column, v reflect.Type) error {
	at := -1
	for i, c := range columns {
		switch {
		case c.key:
		case c.name == "value":
			columns[i].inVal = []int{}
			return nil
		case at >= 0:
			return fmt.Errorf("%s has several columns beside its key, which do not fit the value type %s: use a struct", table, v)
		default:
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("%s has no column beside its key for the value type %s", table, v)
	}
	columns[at].inVal = []int{}
	return nil
}

// isScalar reports whether values of t are one column.
func isScalar(t reflect.Type) bool {
	return t.Kind() != reflect.Struct || implements[encoding.TextMarshaler](t) || implements[driver.Valuer](t) || len(fieldsOf(t)) == 0
}

func implements[I any](t reflect.Type) bool {
	i := reflect.TypeFor[I]()
	return t.Implements(i) || reflect.PointerTo(t).Implements(i)
}

// A field is a field of a struct that stands for a column, by the rules of
// listeners.Record.Scan.
type field struct {
	column, name string
	index        []int
	required     bool
}

func fieldsOf(t reflect.Type) []field { return appendFields(nil, t, nil) }

func appendFields(fields []field, t reflect.Type, prefix []int) []field {
	for f := range t.Fields() {
		index := append(slices.Clone(prefix), f.Index...)
		tag, tagged := f.Tag.Lookup("db")
		name, option, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct:
			fields = appendFields(fields, f.Type, index)
			continue
		case name == "-" || !f.IsExported():
			continue
		case name == "":
			name = listeners.ColumnName(f.Name)
		}
		fields = append(fields, field{column: name, name: f.Name, index: index, required: tagged && option != "optional"})
	}
	return fields
}

// argument returns a value as pgx takes it. Strings of any named type go as
// text, which suits every type of the database, and byte arrays as such.
func argument(v reflect.Value) any {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if implements[driver.Valuer](v.Type()) {
		return v.Interface()
	}
	switch {
	case v.Kind() == reflect.String:
		return v.String()
	case v.Kind() == reflect.Array && v.Type().Elem().Kind() == reflect.Uint8:
		raw := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(raw), v)
		if len(raw) == 16 {
			return [16]byte(raw)
		}
		return raw
	}
	return v.Interface()
}
