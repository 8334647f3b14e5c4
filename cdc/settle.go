package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// settle keeps tables from being altered while conn's transaction reads them,
// and returns an error, worth another snapshot, if one was altered between the
// snapshot and now. What a rewriting ALTER TABLE or a TRUNCATE has done since,
// is not hidden from an older snapshot: the table looks empty, and its rows would
// be lost, for the stream has no word of them (Postgres manual, "Caveats" of
// "Concurrency Control"). A renamed column is found by its new name only.
//
// The locks are those that reading takes anyway, all of them at once. They go
// with the transaction.
func settle(ctx context.Context, conn *pgx.Conn, tables []snapshotTable) error {
	if len(tables) == 0 {
		return nil
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.schema + "." + t.name
	}
	if _, err := conn.Exec(ctx, lockTables(tables)); err != nil {
		switch sqlState(err) {
		case "42P01", "3F000":
			return fmt.Errorf("a table was dropped or renamed after the snapshot began: %v", err) //nolint:errorlint // to be tried again
		}
		return fmt.Errorf("lock the tables against changes of their columns: %w", err)
	}
	// The catalogs show the snapshot; the functions answer as of now.
	var altered *string
	err := conn.QueryRow(ctx, `
		WITH RECURSIVE read AS (
			SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE format('%s.%s', n.nspname, c.relname) = ANY ($1)
			UNION SELECT i.inhrelid FROM read r JOIN pg_class c ON c.oid = r.oid AND c.relkind = 'p' JOIN pg_inherits i ON i.inhparent = r.oid
		)
		SELECT min(format('%I.%I', n.nspname, c.relname))
		FROM read r JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relfilenode <> coalesce(pg_relation_filenode(c.oid), 0)
			OR EXISTS (SELECT FROM pg_attribute a
				WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
				AND (pg_identify_object_as_address('pg_class'::regclass, c.oid, a.attnum)).object_names
					IS DISTINCT FROM ARRAY[n.nspname, c.relname, a.attname]::text[])`,
		names).Scan(&altered)
	switch {
	case err != nil:
		return fmt.Errorf("look for tables that were altered after the snapshot began: %w", err)
	case altered != nil:
		return fmt.Errorf("table %s was altered or truncated after the snapshot began", *altered)
	}
	return nil
}

// lockTables returns the statement that keeps tables as they are.
func lockTables(tables []snapshotTable) string {
	locks := make([]string, len(tables))
	for i, t := range tables {
		locks[i] = t.only + quote(t.schema, t.name)
	}
	return "LOCK TABLE " + strings.Join(locks, ", ") + " IN ACCESS SHARE MODE"
}
