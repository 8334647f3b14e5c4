package pgwrite

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// A target is a table and the statements that change it.
type target struct {
	name    string // as it was given: "public.seats"
	quoted  string // for SQL
	primary string // the name of the primary key's constraint
	columns []column

	put, insert, update, remove, read string

	// What the statements take: the columns of insert and put, those of update
	// without the key, those of the key.
	stored, changed, keys []int
	loaded                []int // the columns that read returns
}

// newTarget looks a table up in the catalog.
func newTarget(ctx context.Context, db DB, table string, k, v reflect.Type) (*target, error) {
	namespace, name, ok := strings.Cut(table, ".")
	if !ok || namespace == "" || name == "" {
		return nil, fmt.Errorf("%q is not a table: write it as \"schema.table\"", table)
	}
	t := &target{name: table}
	rows, err := db.Query(ctx, `
		SELECT a.attname, coalesce(a.attnum = ANY(i.indkey), false), a.attgenerated <> '' OR a.attidentity = 'a',
		       coalesce((SELECT conname FROM pg_catalog.pg_constraint WHERE conindid = i.indexrelid AND contype = 'p'), '')
		FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
		ORDER BY a.attnum`, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", table, err)
	}
	var c column
	if _, err = pgx.ForEachRow(rows, []any{&c.name, &c.key, &c.fixed, &t.primary}, func() error {
		t.columns = append(t.columns, c)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up %s: %w", table, err)
	}
	if len(t.columns) == 0 {
		return nil, fmt.Errorf("there is no table %s in this database", table)
	}
	if err := match(table, t.columns, k, v); err != nil {
		return nil, err
	}
	t.write(pgx.Identifier{namespace, name}.Sanitize())
	return t, nil
}

// write writes the statements.
func (t *target) write(table string) {
	t.quoted = table
	var names, values, set, sameKey, load []string
	for i, c := range t.columns {
		name := pgx.Identifier{c.name}.Sanitize()
		if c.inVal != nil {
			t.loaded = append(t.loaded, i)
			load = append(load, name)
		}
		switch {
		case c.key:
			t.keys = append(t.keys, i)
			sameKey = append(sameKey, name)
		case c.fixed || c.inVal == nil:
			continue
		default:
			t.changed = append(t.changed, i)
			set = append(set, name)
		}
		t.stored = append(t.stored, i)
		names = append(names, name)
		values = append(values, fmt.Sprintf("$%d", len(t.stored)))
	}
	const returning = " RETURNING pg_catalog.pg_current_xact_id()::text"
	// OVERRIDING concerns a key that is an identity, and nothing else.
	t.insert = "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") OVERRIDING SYSTEM VALUE VALUES (" + strings.Join(values, ", ") + ")"
	assign := func(value func(i int, name string) string) string {
		if len(set) == 0 {
			return sameKey[0] + " = " + table + "." + sameKey[0] // a change all the same, that comes back
		}
		var parts []string
		for i, name := range set {
			parts = append(parts, name+" = "+value(i, name))
		}
		return strings.Join(parts, ", ")
	}
	where := func(first int) string {
		var parts []string
		for i, name := range sameKey {
			parts = append(parts, fmt.Sprintf("%s = $%d", name, first+i))
		}
		return " WHERE " + strings.Join(parts, " AND ")
	}
	t.put = t.insert + " ON CONFLICT (" + strings.Join(sameKey, ", ") + ") DO UPDATE SET " +
		assign(func(_ int, name string) string { return "EXCLUDED." + name }) + returning
	t.insert += returning
	t.update = "UPDATE " + table + " SET " + assign(func(i int, _ string) string { return fmt.Sprintf("$%d", i+1) }) + where(len(set)+1) + returning
	t.remove = "DELETE FROM " + table + where(1) + returning
	if len(load) == 0 {
		load = sameKey
	}
	t.read = "SELECT " + strings.Join(load, ", ") + " FROM " + table + where(1) + " FOR UPDATE"
}

// arguments returns the values of these columns.
func (t *target) arguments(columns []int, k, v reflect.Value) []any {
	args := make([]any, len(columns))
	for n, i := range columns {
		c := &t.columns[i]
		if c.key {
			args[n] = argument(of(k, c.inKey))
		} else {
			args[n] = argument(of(v, c.inVal))
		}
	}
	return args
}

// A Table writes through to the table that a region mirrors. All methods may be
// called from any goroutine, as far as the [DB] allows it.
type Table[K comparable, V any] struct {
	w      *Writer
	r      *grid.Region[K, V]
	target *target
	watch  *watcher
}

// Bind makes a Table of a mirror and the table that it mirrors, such as
// "public.seats". It looks the table up, and fails if the region's types do not
// fit it. K and V stand for columns as they do for [grid.Mirror]. The columns
// are those of now: bind again after a change of the schema that the types
// follow.
//
// It subscribes to the region, until [Writer.Close] or the region's own end.
func Bind[K comparable, V any](ctx context.Context, w *Writer, r *grid.Region[K, V], table string) (*Table[K, V], error) {
	fail := func(err error) (*Table[K, V], error) {
		return nil, fmt.Errorf("pgwrite: bind region %q to %s: %w", r.Name(), table, err)
	}
	if !r.Mirrors() {
		return fail(errors.New("it is no mirror, so nothing would come back: use grid.Mirror or grid.AddTable"))
	}
	target, err := newTarget(ctx, w.db, table, reflect.TypeFor[K](), reflect.TypeFor[V]())
	if err != nil {
		return fail(err)
	}
	t := &Table[K, V]{w: w, r: r, target: target}
	if t.watch, err = w.watchRegion(r, table); err != nil {
		return fail(err)
	}
	return t, nil
}

// Region returns the mirror, to read from.
func (t *Table[K, V]) Region() *grid.Region[K, V] { return t.r }

// Put stores a row, whether the key exists or not, and returns the position
// with which the region shows it. Of a row that exists only the columns that V
// has fields for are changed. The errors are those of [Writer.Do].
func (t *Table[K, V]) Put(ctx context.Context, k K, v V) (listeners.Position, error) {
	return t.one(ctx, func(tx *Tx) error { return In(tx, t).Put(k, v) })
}

// Insert stores a new row. If the key exists in the database, the error is a
// [*grid.ExistsError] without a version. Else it is like [Table.Put].
func (t *Table[K, V]) Insert(ctx context.Context, k K, v V) (listeners.Position, error) {
	return t.one(ctx, func(tx *Tx) error { return In(tx, t).Insert(k, v) })
}

// Update stores what fn makes of the row as it is in the database, which may be
// newer than what the region shows. Nobody else changes the row in between. If
// there is none, the error is [grid.ErrNotFound]. fn may be called more than
// once, see [Writer.Do]. Else it is like [Table.Put].
func (t *Table[K, V]) Update(ctx context.Context, k K, fn func(V) (V, error)) (listeners.Position, error) {
	return t.one(ctx, func(tx *Tx) error { return In(tx, t).Update(k, fn) })
}

// Delete removes a row and reports whether it existed in the database. If not,
// there is nothing to wait for, and the position is zero. Else it is like
// [Table.Put].
func (t *Table[K, V]) Delete(ctx context.Context, k K) (at listeners.Position, existed bool, err error) {
	at, err = t.one(ctx, func(tx *Tx) error {
		existed, err = In(tx, t).Delete(k)
		return err
	})
	return at, existed, err
}

func (t *Table[K, V]) one(ctx context.Context, fn func(*Tx) error) (listeners.Position, error) {
	seen, err := t.w.do(ctx, fn)
	return seen[t.watch], err
}
