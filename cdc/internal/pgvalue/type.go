package pgvalue

import "github.com/rowcall/rowcall/listeners"

// kind groups the types that are read alike.
type kind uint8

const (
	kindText    kind = iota // a string that may hold anything, and every unknown type
	kindOpaque              // a string with a syntax of its own: inet, bit, tsvector, ranges
	kindInt                 // smallint, integer, bigint
	kindOID                 // unsigned 32 bits, a JSON string: oid, xid, cid
	kindNumeric             // numeric
	kindFloat               // real, double precision
	kindBool
	kindBytea
	kindUUID
	kindDate
	kindTimestamp
	kindTimestamptz
	kindInterval
	kindJSON   // json, jsonb
	kindArray  // {1,2}
	kindVector // int2vector, oidvector: 1 2
	kindComposite
	kindHstore
)

// Type says how a column's text is read. It is immutable and may be used by
// any number of goroutines; get it from [Of], or from [Text], [ArrayOf],
// [Domain], [Composite] and [Hstore] for what a catalog describes.
type Type struct {
	oid   uint32
	kind  kind
	delim byte  // between elements; arrays and vectors only
	depth uint8 // how many types lie inside each other
	elem  *Type // arrays and vectors only
	name  string

	fields []field           // composites only
	schema *listeners.Schema // of the fields
	shaped bool              // is a composite, or has one inside
	json   bool              // is json or jsonb, or has them inside
}

// Of returns the type with an OID. A type that is not built in is read as text,
// and costs an allocation.
func Of(oid uint32) *Type {
	if t, ok := known[oid]; ok {
		return t
	}
	return &Type{oid: oid}
}

// Builtin reports whether [Of] knows the type with an OID.
func Builtin(oid uint32) bool {
	_, ok := known[oid]
	return ok
}

// OID returns the type's OID, as pg_type has it.
func (t *Type) OID() uint32 { return t.oid }

// Name returns the name that format_type(oid, NULL) prints, such as "bigint" or
// "text[]", or what the constructor was given. It is empty if the type is not
// built in and nobody described it.
func (t *Type) Name() string { return t.name }

// known is never written after it is built.
var known = index(builtins[:])

func index(rows []builtin) map[uint32]*Type {
	types := make(map[uint32]*Type, 2*len(rows))
	for _, b := range rows {
		t := &Type{oid: b.oid, kind: b.kind, name: b.name, json: b.kind == kindJSON}
		types[b.oid] = t
		if b.array == 0 {
			continue
		}
		a := &Type{oid: b.array, kind: kindArray, name: b.name + "[]", delim: ',', elem: t, json: t.json}
		if b.oid == oidBox {
			a.delim = ';'
		}
		types[b.array] = a
	}
	for vector, elem := range map[uint32]uint32{oidInt2vector: oidInt2, oidOidvector: oidOID} {
		types[vector].delim, types[vector].elem = ' ', types[elem]
	}
	return types
}
