package pgvalue

import "github.com/rowcall/rowcall/listeners"

// maxDepth bounds how deep types may lie inside each other, and with it the
// recursion over a value. What is deeper is text.
const maxDepth = 32

// A Field is an attribute of a composite type.
type Field struct {
	Name string
	Type *Type
}

type field struct {
	key []byte // the name as a JSON string, and a colon
	typ *Type
}

// Text returns a type whose values are JSON strings: enums, ranges, and most
// types of extensions.
func Text(oid uint32, name string) *Type { return &Type{oid: oid, name: name} }

// ArrayOf returns the type of arrays of elem, whose typdelim is delim.
func ArrayOf(oid uint32, name string, elem *Type, delim byte) *Type {
	if elem.depth >= maxDepth {
		return Text(oid, name)
	}
	return &Type{
		oid: oid, kind: kindArray, name: name, delim: delim, elem: elem,
		depth: elem.depth + 1, shaped: elem.shaped, json: elem.json,
	}
}

// Domain returns a domain, which prints as the type it is over does.
func Domain(oid uint32, name string, base *Type) *Type {
	d := *base
	d.oid, d.name = oid, name
	return &d
}

// Composite returns a composite type with fields in the order of their
// attribute numbers, dropped ones left out.
func Composite(oid uint32, name string, fields []Field) *Type {
	t := &Type{oid: oid, kind: kindComposite, name: name, depth: 1, shaped: true, fields: make([]field, len(fields))}
	columns := make([]listeners.Column, len(fields))
	for i, f := range fields {
		if f.Type.depth >= maxDepth {
			return Text(oid, name)
		}
		t.depth = max(t.depth, f.Type.depth+1)
		t.json = t.json || f.Type.json
		t.fields[i] = field{key: append(listeners.AppendJSONString(nil, f.Name), ':'), typ: f.Type}
		columns[i] = listeners.Column{Name: f.Name, Type: f.Type.name, TypeID: f.Type.oid}
	}
	t.schema = listeners.NewSchema("", "", name, columns)
	return t
}

// Hstore returns the type hstore of the extension of that name.
func Hstore(oid uint32, name string) *Type { return &Type{oid: oid, kind: kindHstore, name: name} }

// Shaped reports whether the type is a composite or has one inside, so that
// [Type.Fits] can be false.
func (t *Type) Shaped() bool { return t.shaped }
