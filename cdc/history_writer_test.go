package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// historyTables are what writers write: with the identities DEFAULT and FULL,
// without a key, partitioned, and the one whose rows end the transactions.
var historyTables = []string{
	"CREATE TABLE a (id_0 int PRIMARY KEY, n_0 int NOT NULL, big_0 text)",
	"CREATE TABLE f (id_0 int PRIMARY KEY, n_0 int NOT NULL, big_0 text)",
	"ALTER TABLE f REPLICA IDENTITY FULL",
	"CREATE TABLE log (id_0 int, n_0 int NOT NULL, big_0 text)",
	"CREATE TABLE p (id_0 int, n_0 int NOT NULL, year_0 int, big_0 text, PRIMARY KEY (id_0, year_0)) PARTITION BY RANGE (year_0)",
	"CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (2025) TO (2026)",
	"CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (2026) TO (2027)",
	"ALTER TABLE a ALTER big_0 SET STORAGE EXTERNAL", "ALTER TABLE f ALTER big_0 SET STORAGE EXTERNAL",
	"ALTER TABLE p1 ALTER big_0 SET STORAGE EXTERNAL", "ALTER TABLE p2 ALTER big_0 SET STORAGE EXTERNAL",
	"CREATE TABLE tx (id_0 bigserial PRIMARY KEY, events_0 int)",
	"INSERT INTO a SELECT i, 0, repeat('a', 2500) FROM generate_series(-20, 40) i",
	"INSERT INTO f SELECT i, 0, repeat('f', 2500) FROM generate_series(-20, 40) i",
	"INSERT INTO log SELECT i, 0, 'l' FROM generate_series(-20, -1) i",
	"INSERT INTO p SELECT i, 0, 2025 + i % 2, repeat('p', 2500) FROM generate_series(1, 40) i",
}

// A historyWriter makes transactions over one connection. What fails is rolled
// back and forgotten: the database alone knows what was committed.
type historyWriter struct {
	conn   *pgx.Conn
	r      *rand.Rand
	unique *atomic.Int64 // for keys, columns and new names of columns
	alter  bool          // this one changes tables, too

	tx       pgx.Tx
	events   int    // of the transaction so far
	altered  bool   // the transaction has changed a table
	prepared string // a transaction that is neither committed nor rolled back
	names    map[string]map[string]string
}

// transaction makes a random transaction and reports whether it committed.
func (w *historyWriter) transaction(ctx context.Context) (bool, error) {
	if w.prepared != "" && w.r.IntN(2) == 0 {
		return w.resolve(ctx)
	}
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	w.tx, w.events, w.altered, w.names = tx, 0, false, make(map[string]map[string]string)
	if err := w.steps(ctx, 1+w.r.IntN(4), 0); err != nil {
		return false, err
	}
	if w.r.IntN(6) == 0 {
		return false, tx.Rollback(ctx)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO tx (events_0) VALUES ($1)", w.events); err != nil {
		return false, err
	}
	if w.prepared == "" && !w.altered && w.r.IntN(12) == 0 {
		name := fmt.Sprint("p", w.unique.Add(1))
		if _, err := tx.Exec(ctx, "PREPARE TRANSACTION '"+name+"'"); err != nil {
			return false, err
		}
		w.prepared = name
		return false, nil
	}
	return true, tx.Commit(ctx)
}

// resolve ends the transaction that was prepared.
func (w *historyWriter) resolve(ctx context.Context) (bool, error) {
	end := "COMMIT"
	if w.r.IntN(4) == 0 {
		end = "ROLLBACK"
	}
	_, err := w.conn.Exec(ctx, end+" PREPARED '"+w.prepared+"'")
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == "42704" {
		err = nil // the connection was lost when it had ended
	}
	if err == nil {
		w.prepared = ""
	}
	return end == "COMMIT" && err == nil, err
}

// steps makes n random changes, some of them in savepoints, which are rolled
// back or not.
func (w *historyWriter) steps(ctx context.Context, n, depth int) error {
	for range n {
		if depth < 3 && w.r.IntN(5) == 0 {
			events, outer := w.events, w.tx
			inner, err := outer.Begin(ctx)
			if err != nil {
				return err
			}
			w.tx = inner
			if err = w.steps(ctx, 1+w.r.IntN(3), depth+1); err == nil {
				if w.r.IntN(2) == 0 {
					err, w.events = inner.Rollback(ctx), events
				} else {
					err = inner.Commit(ctx)
				}
			}
			w.tx = outer
			clear(w.names)
			if err != nil {
				return err
			}
			continue
		}
		if err := w.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// exec runs a statement and counts its rows as events. "{n}" stands for the
// present name of column n of the table.
func (w *historyWriter) exec(ctx context.Context, table, sql string, args ...any) error {
	names, err := w.columns(ctx, table)
	if err != nil {
		return err
	}
	for id, name := range names {
		sql = strings.ReplaceAll(sql, "{"+id+"}", name)
	}
	tag, err := w.tx.Exec(ctx, strings.ReplaceAll(sql, "{}", table), args...)
	w.events += int(tag.RowsAffected())
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// columns returns the columns' present names.
func (w *historyWriter) columns(ctx context.Context, table string) (map[string]string, error) {
	if names := w.names[table]; names != nil {
		return names, nil
	}
	rows, err := w.tx.Query(ctx, "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped", table)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for _, name := range list {
		names[column(name)] = name
	}
	w.names[table] = names
	return names, nil
}

func (w *historyWriter) keyed() string { return []string{"a", "f", "p"}[w.r.IntN(3)] }

// step makes one random change.
func (w *historyWriter) step(ctx context.Context) error {
	table := w.keyed()
	low := w.r.IntN(70) - 20
	high := low + w.r.IntN(4)
	big := strings.Repeat(string(rune('a'+w.r.IntN(26))), 100+w.r.IntN(2)*2400)
	switch n := w.r.IntN(100); {
	case n < 15:
		return w.insert(ctx, table, low, high, big)
	case n < 20:
		return w.copy(ctx, big)
	case n < 25:
		return w.exec(ctx, "log", "INSERT INTO {} ({id}, {n}, {big}) VALUES ($1, 0, $2)", w.unique.Add(1), big)
	case n < 45:
		return w.exec(ctx, table, "UPDATE {} SET {n} = {n} + 1 WHERE {id} BETWEEN $1 AND $2", low, high)
	case n < 50:
		return w.exec(ctx, table, "UPDATE {} SET {n} = {n} + 1, {big} = $3 WHERE {id} BETWEEN $1 AND $2", low, high, big)
	case n < 55:
		return w.exec(ctx, table, "UPDATE {} SET {n} = {n} + 1, {big} = NULL WHERE {id} BETWEEN $1 AND $2", low, high)
	case n < 62:
		return w.exec(ctx, table, "UPDATE {} SET {n} = {n} + 1, {id} = $2 WHERE {id} = $1", low, w.unique.Add(1))
	case n < 66:
		return w.exec(ctx, "p", "UPDATE {} SET {n} = {n} + 1, {id} = $3 WHERE {id} = $1 AND {year} = $2", low, 2025+low&1, low+200)
	case n < 70:
		before := w.events // a row that moves to another partition is a delete and a create
		err := w.exec(ctx, "p", "UPDATE {} SET {n} = 0, {year} = 4051 - {year}, {id} = $2 WHERE {id} = $1", low, w.unique.Add(1))
		w.events += w.events - before
		return err
	case n < 80:
		return w.exec(ctx, table, "DELETE FROM {} WHERE {id} BETWEEN $1 AND $2", low, high)
	case n < 84:
		return w.exec(ctx, table, "DELETE FROM {} WHERE {id} > 1000")
	case n < 85:
		err := w.exec(ctx, table, "TRUNCATE {}")
		w.events++
		return err
	case n < 88:
		return w.large(ctx, []string{"a", "f"}[w.r.IntN(2)])
	case n < 94:
		return w.dynamic(ctx, table, low, high)
	default:
		if !w.alter {
			return w.insert(ctx, table, low, low, big)
		}
		return w.alterTable(ctx, []string{"a", "f", "p", "log"}[w.r.IntN(4)])
	}
}

func (w *historyWriter) insert(ctx context.Context, table string, low, high int, big string) error {
	if table == "p" {
		return w.exec(ctx, table, "INSERT INTO {} ({id}, {n}, {year}, {big}) SELECT i, 0, 2025 + (i & 1), $3 FROM generate_series($1::int, $2) i ON CONFLICT DO NOTHING", low, high, big)
	}
	return w.exec(ctx, table, "INSERT INTO {} ({id}, {n}, {big}) SELECT i, 0, $3 FROM generate_series($1::int, $2) i ON CONFLICT DO NOTHING", low, high, big)
}

func (w *historyWriter) copy(ctx context.Context, big string) error {
	table := []string{"a", "f", "log"}[w.r.IntN(3)]
	names, err := w.columns(ctx, table)
	if err != nil {
		return err
	}
	n := 1 + w.r.IntN(300)
	first := w.unique.Add(int64(n)) - int64(n) + 1
	rows, err := w.tx.CopyFrom(ctx, pgx.Identifier{table}, []string{names["id"], names["n"], names["big"]},
		pgx.CopyFromSlice(n, func(i int) ([]any, error) { return []any{first + int64(i), 0, big[:100]}, nil }))
	w.events += int(rows)
	return err
}

// large writes more than the server keeps in memory, in savepoints that are
// rolled back in part, and leaves little of it in the table.
func (w *historyWriter) large(ctx context.Context, table string) error {
	n := 1000 + w.r.IntN(3000)
	first := int(w.unique.Add(int64(n))) - n + 1
	const insert = "INSERT INTO {} ({id}, {n}, {big}) SELECT i, 0, 'large' FROM generate_series($1::int, $2) i"
	if err := w.exec(ctx, table, insert, first, first+n/2); err != nil {
		return err
	}
	for at := first + n/2 + 1; at < first+n; at += 500 {
		if _, err := w.tx.Exec(ctx, "SAVEPOINT large"); err != nil {
			return err
		}
		if w.r.IntN(8) == 0 { // nobody wants it, but it counts in the positions
			if _, err := w.tx.Exec(ctx, "SELECT pg_logical_emit_message(true, 'history', 'large')"); err != nil {
				return err
			}
		}
		before := w.events
		if err := w.exec(ctx, table, insert, at, min(at+499, first+n-1)); err != nil {
			return err
		}
		end := "RELEASE SAVEPOINT large"
		if w.r.IntN(2) == 0 {
			end, w.events = "ROLLBACK TO SAVEPOINT large", before
		}
		if _, err := w.tx.Exec(ctx, end); err != nil {
			return err
		}
	}
	if err := w.exec(ctx, table, "UPDATE {} SET {n} = {n} + 1 WHERE {id} BETWEEN $1 AND $2", first, first+n/4); err != nil {
		return err
	}
	return w.exec(ctx, table, "DELETE FROM {} WHERE {id} BETWEEN $1 AND $2", first+20, first+n)
}

// dynamic writes a column that was added.
func (w *historyWriter) dynamic(ctx context.Context, table string, low, high int) error {
	names, err := w.columns(ctx, table)
	if err != nil {
		return err
	}
	for id := range names {
		if strings.HasPrefix(id, "c") || strings.HasPrefix(id, "s") {
			return w.exec(ctx, table, "UPDATE {} SET {n} = {n} + 1, {"+id+"} = $3 WHERE {id} BETWEEN $1 AND $2", low, high, fmt.Sprint(w.r.IntN(9)))
		}
	}
	return nil
}

// alterTable makes one change of a table. Its rows are no events.
func (w *historyWriter) alterTable(ctx context.Context, table string) error {
	names, err := w.columns(ctx, table)
	if err != nil {
		return err
	}
	clear(w.names)
	w.altered = true // which others would wait for
	var added, any []string
	for id, name := range names {
		any = append(any, name)
		if strings.HasPrefix(id, "c") || strings.HasPrefix(id, "s") {
			added = append(added, name)
		}
	}
	fresh := w.unique.Add(1)
	var sql string
	switch n := w.r.IntN(12); {
	case n < 2:
		sql = fmt.Sprintf("ADD c%d_0 int DEFAULT %[1]d", fresh)
	case n < 3:
		sql = fmt.Sprintf("ADD s%d_0 text", fresh)
	case n < 5 && len(added) > 0:
		sql = "DROP " + added[w.r.IntN(len(added))]
	case n < 8:
		name := any[w.r.IntN(len(any))]
		sql = fmt.Sprintf("RENAME %s TO %s_%d", name, column(name), fresh)
	case n < 9:
		sql = "ALTER " + names["n"] + " TYPE bigint"
	case table == "f" || table == "a":
		sql = "REPLICA IDENTITY " + []string{"DEFAULT", "FULL", "FULL", "NOTHING", "DEFAULT"}[w.r.IntN(5)]
	default:
		return nil
	}
	_, err = w.tx.Exec(ctx, "ALTER TABLE "+table+" "+sql)
	return err
}

// retry reports whether a transaction failed as one does that meets others, or
// a server that goes down.
func retry(err error) bool {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return true // the connection
	}
	switch failed.Code {
	case "23505", // the key exists
		"40001", "40P01", "55P03", // moved to another partition, deadlock, lock timeout
		"42703", "42701", "08P01", // the column was renamed, added, or got another type meanwhile
		"0A000", // the plan's result type changed
		"55000", // no replica identity
		"57P01", "57P02", "57P03", "57014":
		return true
	}
	return false
}
