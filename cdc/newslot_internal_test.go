package cdc

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// What decoding looks at counts, and nothing that happens all day.
func TestChangedSince(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url,
		"CREATE TABLE seats (id int PRIMARY KEY, price numeric)", "CREATE TABLE years (id int) PARTITION BY RANGE (id)",
		"CREATE TYPE class AS ENUM ('first')", "CREATE PUBLICATION app", "CREATE SCHEMA sales", "INSERT INTO seats VALUES (1, 2)",
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
