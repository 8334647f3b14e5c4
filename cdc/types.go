package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
	"github.com/rowcall/rowcall/listeners"
)

// types are those that only the catalog explains, by OID.
type types map[uint32]*pgvalue.Type

// of returns a type; one that is not there, because it was dropped meanwhile,
// is read as text.
func (ts types) of(oid uint32) *pgvalue.Type {
	if t, ok := ts[oid]; ok {
		return t
	}
	return pgvalue.Of(oid)
}

// foreign returns the OIDs of columns whose types the catalog has to explain.
func foreign(columns []listeners.Column) []uint32 {
	var oids []uint32
	for _, c := range columns {
		if !pgvalue.Builtin(c.TypeID) {
			oids = append(oids, c.TypeID)
		}
	}
	return oids
}

// describeTypes looks up types, with all that lies inside them. The answer is
// what the catalog says now (or in conn's transaction), which may be later than
// the values that are to be read.
func describeTypes(ctx context.Context, conn *pgx.Conn, oids []uint32) (types, error) {
	// to_jsonb looks through domains, takes arrays and composites apart, and uses
	// a cast to json where an extension has one. What the cast prints is known for
	// hstore only.
	rows, err := conn.Query(ctx, `
		WITH RECURSIVE reached AS (
			SELECT unnest($1::oid[]) AS oid
			UNION
			SELECT inside.oid FROM reached r JOIN pg_type t ON t.oid = r.oid, LATERAL (
				SELECT t.typelem WHERE t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc
				UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
				UNION ALL SELECT atttypid FROM pg_attribute
					WHERE t.typtype = 'c' AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
			) inside (oid)
		)
		SELECT t.oid, format('%I.%I', n.nspname, t.typname), t.typdelim::text,
			CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE 0 END,
			CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc THEN t.typelem ELSE 0 END,
			t.typtype = 'c', coalesce(a.names, '{}'), coalesce(a.types, '{}'),
			EXISTS (SELECT FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc
				WHERE k.castsource = t.oid AND k.casttarget = 'pg_catalog.json'::regtype AND p.prosrc = 'hstore_to_json')
		FROM reached r JOIN pg_type t ON t.oid = r.oid JOIN pg_namespace n ON n.oid = t.typnamespace,
		LATERAL (SELECT array_agg(attname::text ORDER BY attnum) AS names, array_agg(atttypid ORDER BY attnum) AS types
			FROM pg_attribute WHERE t.typtype = 'c' AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) a`, oids)
	if err != nil {
		return nil, fmt.Errorf("look up types: %w", err)
	}
	b := typeBuilder{described: make(map[uint32]typeRow), built: make(types)}
	_, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (struct{}, error) {
		var t typeRow
		err := r.Scan(&t.oid, &t.name, &t.delim, &t.base, &t.elem, &t.composite, &t.fieldNames, &t.fieldTypes, &t.hstore)
		b.described[t.oid] = t
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up types: %w", err)
	}
	for oid := range b.described {
		b.build(oid)
	}
	return b.built, nil
}

// A typeRow is what the catalog says of one type.
type typeRow struct {
	oid        uint32
	name       string
	delim      string
	base       uint32 // of a domain
	elem       uint32 // of an array
	composite  bool
	fieldNames []string
	fieldTypes []uint32
	hstore     bool
}

type typeBuilder struct {
	described map[uint32]typeRow
	built     types
}

// build makes a type after those inside it. The server lets no type contain
// itself; were there one, it would be text in itself.
func (b *typeBuilder) build(oid uint32) *pgvalue.Type {
	if t, ok := b.built[oid]; ok {
		return t
	}
	row, ok := b.described[oid]
	if !ok || pgvalue.Builtin(oid) {
		return pgvalue.Of(oid)
	}
	t := pgvalue.Text(oid, row.name)
	b.built[oid] = t
	switch {
	case row.base != 0:
		t = pgvalue.Domain(oid, row.name, b.build(row.base))
	case row.elem != 0:
		elem, delim := b.build(row.elem), byte(',')
		if d := b.described[row.elem].delim; d != "" {
			delim = d[0]
		}
		t = pgvalue.ArrayOf(oid, elem.Name()+"[]", elem, delim)
	case row.composite:
		fields := make([]pgvalue.Field, len(row.fieldNames))
		for i, name := range row.fieldNames {
			fields[i] = pgvalue.Field{Name: name, Type: b.build(row.fieldTypes[i])}
		}
		t = pgvalue.Composite(oid, row.name, fields)
	case row.hstore:
		t = pgvalue.Hstore(oid, row.name)
	}
	b.built[oid] = t
	return t
}
