package cdc

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// What decoding looks at counts, and nothing that happens all day.
func TestChangedSince(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url,
		"CREATE TABLE seats (id int PRIMARY KEY, price numeric)", "CREATE TABLE years (id int) PARTITION BY RANGE (id)",
		"CREATE TYPE class AS ENUM ('first')", "CREATE TYPE addr AS (street text)", "CREATE PUBLICATION app", "CREATE SCHEMA sales", "INSERT INTO seats VALUES (1, 2)",
		"CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM seats")
	conn := pgtest.Connect(t, url)
	if _, err := conn.Exec(t.Context(), "SET search_path = pg_catalog"); err != nil {
		t.Fatal(err)
	}
	schemas := "ALTER PUBLICATION app ADD TABLES IN SCHEMA sales"
	wantSchemas := []string{"sales"}
	if conn.PgConn().ParameterStatus("server_version") < "15" { // it has no schemas of publications
		schemas, wantSchemas = "SELECT 1", nil
	}
	for _, tc := range []struct {
		sql  string
		want []string
	}{
		{"UPDATE seats SET price = 3", nil},
		{"CREATE TEMP TABLE scratch (id int)", nil},
		{"ANALYZE seats", nil},
		{"VACUUM seats", nil},
		{"REFRESH MATERIALIZED VIEW totals", nil},
		{"TRUNCATE seats", []string{"public.seats"}},
		{"ALTER TABLE seats ADD cents int DEFAULT 7", []string{"public.seats"}},
		{"ALTER TABLE seats RENAME price TO fare", []string{"public.seats"}},
		{"ALTER TABLE seats REPLICA IDENTITY USING INDEX seats_pkey", []string{"public.seats"}},
		{"ALTER TYPE class ADD VALUE 'second'", []string{"public.class"}},
		{"ALTER TYPE addr ADD ATTRIBUTE zip text", []string{"public.addr"}},
		{"ALTER SCHEMA sales RENAME TO trade", []string{"trade"}},
		{"ALTER SCHEMA trade RENAME TO sales", []string{"sales"}},
		{"CREATE TABLE y1 PARTITION OF years FOR VALUES FROM (1) TO (2)", []string{"public.y1", "public.years"}},
		{"ALTER PUBLICATION app SET (publish = 'insert')", []string{"app"}},
		{"ALTER PUBLICATION app ADD TABLE seats", []string{"public.seats"}},
		{schemas, wantSchemas},
	} {
		next, err := nextTransaction(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, url, tc.sql)
		got, err := changedSince(t.Context(), conn, next)
		if err != nil {
			t.Fatalf("%s: %v", tc.sql, err)
		}
		if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.sql, diff)
		}
	}
}

// A slot that could not be looked at is not left for the next run, which would
// take it for a good one.
func TestSlotThatWasNotLookedAtIsDropped(t *testing.T) {
	url := pgtest.Database(t)
	src, err := New(url, &Options{Slot: "half_made", Snapshot: SnapshotNever})
	if err != nil {
		t.Fatal(err)
	}
	repl, _, err := src.c.connectIdentified(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer repl.Close(context.WithoutCancel(t.Context()))
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	connections := 0
	src.c.conn.AfterConnect = func(context.Context, *pgconn.PgConn) error {
		if connections++; connections == 2 { // to look at it
			cancel(stopped)
		}
		return nil
	}
	_, err = src.createSoundSlot(ctx, repl, src.c.Slot, pglogrepl.CreateReplicationSlotOptions{SnapshotAction: "NOEXPORT_SNAPSHOT"})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("createSoundSlot = %v after %d connections, want an error since ctx has ended", err, connections)
	}
	src.c.conn.AfterConnect = nil
	conn, err := src.c.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if slot, err := lookUpSlot(t.Context(), conn, src.c.Slot); err != nil || slot != nil {
		t.Errorf("lookUpSlot = %+v, %v; want none", slot, err)
	}
}
