package grid

import (
	"reflect"
	"slices"
	"strings"

	"github.com/rowcall/rowcall/listeners"
)

// A field is one field of a struct type and the column it stands for, by the
// rules of listeners.Record.Scan.
type field struct {
	column string // "" if the field has no column
	name   string // in Go
	typ    reflect.Type
	index  []int   // as for reflect.Value.FieldByIndex; no pointers on the way
	offset uintptr // within the outermost struct
}

// fieldsOf lists the fields of a struct type; embedded structs count as their
// fields.
func fieldsOf(t reflect.Type) []field { return appendFields(nil, t, nil, 0) }

func appendFields(fields []field, t reflect.Type, prefix []int, offset uintptr) []field {
	for f := range t.Fields() {
		tag, tagged := f.Tag.Lookup("db")
		column, _, _ := strings.Cut(tag, ",")
		next := field{
			column: column, name: f.Name, typ: f.Type,
			index: append(slices.Clone(prefix), f.Index...), offset: offset + f.Offset,
		}
		switch {
		case column == "-":
			next.column = ""
		case f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct:
			fields = appendFields(fields, f.Type, next.index, next.offset)
			continue
		case !f.IsExported():
			next.column = ""
		case column == "":
			next.column = listeners.ColumnName(f.Name)
		}
		fields = append(fields, next)
	}
	return fields
}
