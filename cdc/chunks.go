package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	maxSnapshotWorkers = 4
	chunkPages         = 1024 // 8 MiB
)

// A tableSize is what a table occupies, its partitions' parts included.
type tableSize struct {
	pages, largest int64 // of all leaves, and of the largest
	scattered      bool  // some leaf is not stored in pages, as a foreign table
}

// A chunk is a range of pages of a table, in each of its partitions if it has
// some.
type chunk struct {
	table    *snapshotTable
	from, to int64 // to is 0 for the one without an end
	pages    int64 // of all partitions, about
}

// measure learns how large tables are. The sizes are those of now, not of the
// snapshot; that does not matter, since a table's last chunk has no end.
func measure(ctx context.Context, conn *pgx.Conn, tables []snapshotTable) error {
	oids := make([]uint32, len(tables))
	byOID := make(map[uint32]*snapshotTable, len(tables))
	for i := range tables {
		oids[i] = tables[i].oid
		byOID[oids[i]] = &tables[i]
	}
	rows, err := conn.Query(ctx, `
		WITH RECURSIVE tree (root, oid) AS (
			SELECT o, o FROM unnest($1::oid[]) o
			UNION ALL SELECT t.root, i.inhrelid FROM tree t
			JOIN pg_class c ON c.oid = t.oid AND c.relkind = 'p' JOIN pg_inherits i ON i.inhparent = t.oid
		), leaf AS (
			SELECT t.root, t.oid, c.relkind <> 'r' AS scattered,
				coalesce(pg_relation_size(t.oid), 0) / current_setting('block_size')::bigint AS pages
			FROM tree t JOIN pg_class c ON c.oid = t.oid WHERE c.relkind <> 'p'
		)
		SELECT root, sum(pages)::bigint, max(pages), bool_or(scattered) FROM leaf GROUP BY root`, oids)
	if err != nil {
		return fmt.Errorf("measure the tables: %w", err)
	}
	var root uint32
	var size tableSize
	_, err = pgx.ForEachRow(rows, []any{&root, &size.pages, &size.largest, &size.scattered}, func() error {
		byOID[root].size = size
		return nil
	})
	if err != nil {
		return fmt.Errorf("measure the tables: %w", err)
	}
	return nil
}

// chunks cuts a table into parts of about pages pages. Together they are the
// table, whatever its size has become.
func (t *snapshotTable) chunks(pages int64) []chunk {
	size := t.size
	if size.scattered || size.pages <= pages {
		return []chunk{{table: t, pages: size.pages}}
	}
	// A chunk takes its range from every partition.
	step := max(1, pages*size.largest/size.pages)
	var out []chunk
	for from := int64(0); from < size.largest; from += step {
		out = append(out, chunk{table: t, from: from, to: from + step, pages: size.pages * step / size.largest})
	}
	out[len(out)-1].to = 0
	return out
}

// sql returns the statement that reads the rows.
func (c *chunk) sql() string {
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, column := range c.table.relation.schema.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(column.Name))
	}
	b.WriteString(" FROM " + c.table.only + quote(c.table.schema, c.table.name))
	var conditions []string
	if c.from > 0 || c.to > 0 {
		conditions = append(conditions, fmt.Sprintf("ctid >= '(%d,0)'", c.from))
	}
	if c.to > 0 {
		conditions = append(conditions, fmt.Sprintf("ctid < '(%d,0)'", c.to))
	}
	if c.table.filter != "" {
		conditions = append(conditions, "("+c.table.filter+")")
	}
	if len(conditions) > 0 {
		b.WriteString(" WHERE " + strings.Join(conditions, " AND "))
	}
	return b.String()
}
