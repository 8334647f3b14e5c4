package cdc

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

// A liveColumn is a column of a table as the catalog has it now.
type liveColumn struct {
	name      string
	typeID    uint32
	generated bool
	key       bool // of the primary key
}

// keyThen returns the names that the columns of a table's primary key had when
// a Relation message was written. The message does not mark them where the
// replica identity is FULL or NOTHING, and the catalog knows the names of now.
func (d *decoder) keyThen(ctx context.Context, m pgoutput.Relation) ([]string, error) {
	key, err := d.catalog.primaryKey(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	missing := func(name string) bool {
		return !slices.ContainsFunc(m.Columns, func(c pgoutput.Column) bool { return c.Name == name })
	}
	if len(key) > 0 && !slices.ContainsFunc(key, missing) {
		return key, nil
	}
	live, err := d.catalog.liveColumns(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	table := m.Namespace + "." + m.Name
	switch {
	case len(live) == 0:
		d.catalog.keyLost(ctx, m.ID, table, "the table is gone")
	case len(key) > 0:
		if then, ok := keyByPlace(m.Columns, live); ok {
			return then, nil
		}
		d.catalog.keyLost(ctx, m.ID, table, fmt.Sprintf("the key is now %q, and the columns do not tell what it was", key))
	}
	return nil, nil
}

// keyByPlace takes columns that have another name now for renamed ones, if
// nothing but names can have changed: there are as many columns, of the same
// types, and those that kept their names kept their places. Generated columns
// count only where the message has them.
func keyByPlace(then []pgoutput.Column, live []liveColumn) (key []string, ok bool) {
	if len(then) != len(live) {
		live = slices.DeleteFunc(slices.Clone(live), func(c liveColumn) bool { return c.generated })
	}
	if len(then) != len(live) {
		return nil, false
	}
	for i, c := range then {
		same := slices.IndexFunc(live, func(l liveColumn) bool { return l.name == c.Name })
		if live[i].typeID != c.TypeID || (same >= 0 && same != i) {
			return nil, false
		}
		if live[i].key {
			key = append(key, c.Name)
		}
	}
	return key, true
}

// liveColumns returns the columns of a table in their order, none if the table
// is gone.
func (q *catalog) liveColumns(ctx context.Context, relation uint32) ([]liveColumn, error) {
	conn, err := q.connected(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `
		SELECT a.attname, a.atttypid, a.attgenerated <> '', coalesce(a.attnum = ANY (i.indkey), false)
		FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, relation)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (c liveColumn, err error) {
		return c, r.Scan(&c.name, &c.typeID, &c.generated, &c.key)
	})
}

// keyLost warns, once for each relation.
func (q *catalog) keyLost(ctx context.Context, relation uint32, table, reason string) {
	if q.lost[relation] {
		return
	}
	if q.lost == nil {
		q.lost = make(map[uint32]bool)
	}
	q.lost[relation] = true
	q.c.Logger.WarnContext(ctx, "changes from before a change of the table have no key: its replica identity is FULL or NOTHING, "+
		"so that the stream does not name the key", "table", table, "reason", reason)
}
