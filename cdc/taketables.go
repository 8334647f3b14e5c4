package cdc

import (
	"cmp"
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Parts of queries, which have the names c (pg_class), n (pg_namespace) and
// published. Only an immediate primary key can be a replica identity.
const (
	identified = `
		CASE c.relreplident
		  WHEN 'f' THEN true
		  WHEN 'n' THEN false
		  WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
		  ELSE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
		END`
	isPublished = `
		EXISTS (SELECT FROM published p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)`
	withPublished = `
		WITH published AS MATERIALIZED (
		  SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = $1)`
	isSystem     = `(n.nspname LIKE 'pg\_%' OR n.nspname = 'information_schema')`
	tableColumns = `
		c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, ` + isSystem + `,
		c.relreplident::text, ` + identified + `,
		ARRAY(SELECT a.attname::text
		      FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place), pg_attribute a
		      WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
		        AND a.attrelid = c.oid AND a.attnum = k.attnum
		      ORDER BY k.place),
		pg_has_role(c.relowner, 'USAGE'),
		has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'),
		c.relkind = 'r' AND row_security_active(c.oid),
		c.reltuples::float8, ` + isPublished + `,
		CASE WHEN c.relispartition
		     THEN ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS a(relid, place)
		                WHERE place > 1 ORDER BY place)
		     ELSE '{}' END,
		coalesce(CASE WHEN c.relispartition
		     THEN (SELECT p.schemaname || '.' || p.tablename
		           FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS a(relid, place)
		           JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace
		           JOIN published p ON p.schemaname = an.nspname AND p.tablename = ac.relname
		           WHERE place > 1 ORDER BY place DESC LIMIT 1) END, ''),
		EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication pub ON pub.oid = r.prpubid AND pub.pubname = $1
		        WHERE r.prrelid = c.oid
		          AND (to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL))`
)

// What the options ask for: patterns, the publication, or everything.
const (
	wherePatterns = `
		EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS w(schema, name)
		        WHERE w.schema = n.nspname
		          AND (w.name = c.relname OR w.name = '' AND c.relkind IN ('r', 'p') AND NOT ` + isSystem + `))
		AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')`
	wherePublished = isPublished
	whereAll       = `c.relkind IN ('r', 'p') AND NOT ` + isSystem
)

func (inv *inventory) takeTables(ctx context.Context, conn *pgx.Conn, c *config) error {
	where, args := whereAll, []any{c.Publication}
	switch {
	case len(c.patterns) > 0:
		var schemas, names []string
		for _, p := range c.patterns {
			schemas = append(schemas, p.schema)
			if p.all {
				names = append(names, "") // no table has this name
			} else {
				names = append(names, p.table)
			}
		}
		where, args = wherePatterns, append(args, schemas, names)
	case inv.publication != nil:
		where = wherePublished
	}
	rows, err := conn.Query(ctx, withPublished+` SELECT `+tableColumns+`
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE `+where, args...)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, scanTable)
	if err != nil {
		return err
	}
	if err := takePartitions(ctx, conn, c, found); err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b tableInfo) int {
		return cmp.Or(cmp.Compare(a.schema, b.schema), cmp.Compare(a.name, b.name))
	})
	inv.choose(found, c)
	return nil
}

func scanTable(row pgx.CollectableRow) (tableInfo, error) {
	var t tableInfo
	var kind, persistence, identity string
	var system bool
	err := row.Scan(&t.oid, &t.schema, &t.name, &kind, &persistence, &system, &identity, &t.identified,
		&t.primaryKey, &t.owned, &t.readable, &t.rowSecurity, &t.rows, &t.published,
		&t.ancestors, &t.publishedAs, &t.filtered)
	if err != nil {
		return t, err
	}
	t.kind, t.identity = kind[0], identity[0]
	t.partitioned = t.kind == 'p'
	t.refusal = refusal(t.kind, persistence[0], system)
	t.unlogged = t.refusal != ""
	return t, nil
}

// refusal repeats the server's rule of what can be published (Postgres manual,
// CREATE PUBLICATION).
func refusal(kind, persistence byte, system bool) string {
	switch {
	case kind == 'v':
		return "is a view"
	case kind == 'm':
		return "is a materialized view"
	case kind == 'f':
		return "is a foreign table"
	case kind == 'S':
		return "is a sequence"
	case persistence == 't':
		return "is a temporary table"
	case system:
		return "is a system table"
	case persistence == 'u':
		return "is an unlogged table"
	}
	return ""
}

// takePartitions fills in the leaves of the partitioned tables.
func takePartitions(ctx context.Context, conn *pgx.Conn, c *config, found []tableInfo) error {
	roots := make(map[uint32]*tableInfo)
	var oids []uint32
	for i := range found {
		if t := &found[i]; t.partitioned {
			roots[t.oid], oids = t, append(oids, t.oid)
		}
	}
	if len(oids) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, withPublished+`
		SELECT r.oid, n.nspname::text, c.relname::text, c.reltuples::float8, `+identified+`, `+isPublished+`
		FROM unnest($2::oid[]) AS r(oid), pg_partition_tree(r.oid) p
		JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.isleaf ORDER BY n.nspname, c.relname`, c.Publication, oids)
	if err != nil {
		return err
	}
	var root uint32
	var tuples float64
	var part partInfo
	sums := make(map[uint32]float64)
	_, err = pgx.ForEachRow(rows, []any{&root, &part.schema, &part.name, &tuples, &part.identified, &part.published}, func() error {
		roots[root].parts = append(roots[root].parts, part)
		sums[root] += max(tuples, 0)
		return nil
	})
	for oid, sum := range sums {
		roots[oid].rows = sum
	}
	return err
}
