package pgvalue

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
)

// Type says how a column's text is read. It is immutable and may be used by
// any number of goroutines; get it from [Of].
type Type struct {
	oid   uint32
	kind  kind
	delim byte  // between elements; arrays and vectors only
	elem  *Type // arrays and vectors only
	name  string
}

// Of returns the type with an OID. A type that is not built in is read as text,
// and costs an allocation.
func Of(oid uint32) *Type {
	if t, ok := known[oid]; ok {
		return t
	}
	return &Type{oid: oid}
}

// OID returns the type's OID, as pg_type has it.
func (t *Type) OID() uint32 { return t.oid }

// Name returns the name that format_type(oid, NULL) prints, such as "bigint" or
// "text[]". It is empty if the type is not built in.
func (t *Type) Name() string { return t.name }

// known is never written after it is built.
var known = index(builtins[:])

func index(rows []builtin) map[uint32]*Type {
	types := make(map[uint32]*Type, 2*len(rows))
	for _, b := range rows {
		t := &Type{oid: b.oid, kind: b.kind, name: b.name}
		types[b.oid] = t
		if b.array == 0 {
			continue
		}
		a := &Type{oid: b.array, kind: kindArray, name: b.name + "[]", delim: ',', elem: t}
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
