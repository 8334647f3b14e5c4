package cdc_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// small makes a source read tables in pieces of a few pages.
func small(subscribe func(*cdc.Source)) func(*cdc.Source) {
	return func(src *cdc.Source) {
		src.SetChunkPages(3)
		subscribe(src)
	}
}

// query returns rows of JSON as canonical does.
func query(t testing.TB, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return canonical(t, out)
}

// canonical rewrites JSON objects to be compared, and sorts them.
func canonical(t testing.TB, rows []string) []string {
	t.Helper()
	out := make([]string, len(rows))
	for i, row := range rows {
		var v any
		d := json.NewDecoder(strings.NewReader(row))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v", row, err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = string(text)
	}
	slices.Sort(out)
	return out
}

// reads are the rows of a snapshot by collection, sorted, each as its JSON.
func readRows(t testing.TB, rec *listenertest.Recorder) map[string][]string {
	out := make(map[string][]string)
	for _, e := range rec.Events() {
		if e.Op == listeners.Read {
			out[e.Collection] = append(out[e.Collection], e.After)
		}
	}
	for c, rows := range out {
		out[c] = canonical(t, rows)
	}
	return out
}

func version(t testing.TB, conn *pgx.Conn) int {
	t.Helper()
	return count(t, conn, "SELECT current_setting('server_version_num')::int / 10000")
}

func TestSnapshotIsTheTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn,
		"CREATE TABLE plain (id bigint PRIMARY KEY, note text, n numeric)",
		"INSERT INTO plain SELECT i::bigint * 1000003 - 90000000000, repeat('x', i % 50), i / 7.0 FROM generate_series(-3000, 3000) i",
		"DELETE FROM plain WHERE abs(id) % 3 = 0",
		"UPDATE plain SET note = NULL WHERE abs(id) % 5 = 0",
		"CREATE TABLE nokey (a int, b text)",
		"INSERT INTO nokey SELECT i % 10, NULLIF(i % 3, 0)::text FROM generate_series(1, 4000) i",
		"CREATE TABLE wide (id int PRIMARY KEY, body text, raw bytea)",
		"INSERT INTO wide SELECT i, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 700) j), decode(md5(i::text), 'hex') FROM generate_series(1, 40) i",
		"INSERT INTO wide VALUES (1000, repeat('y', 3000000), NULL)",
		"CREATE TABLE empty (id int PRIMARY KEY)",
		"CREATE TABLE dropped (id int PRIMARY KEY, gone text, kept text)",
		"INSERT INTO dropped SELECT i, 'gone', 'kept' || i FROM generate_series(1, 2000) i",
		"ALTER TABLE dropped DROP COLUMN gone",
		"ALTER TABLE dropped ADD COLUMN later int DEFAULT 7",
		"CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, note text)",
		"INSERT INTO computed (id, note) SELECT i, 'n' || i FROM generate_series(1, 2000) i",
		`CREATE SCHEMA "Odd ""one"""`,
		`CREATE TABLE "Odd ""one"""."ta""ble 'x'" ("from" int PRIMARY KEY, "a ""b" text, "ü" text)`,
		`INSERT INTO "Odd ""one"""."ta""ble 'x'" SELECT i, 'q' || i, NULL FROM generate_series(1, 2000) i`,
		"CREATE TABLE parted (id int, region text, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)",
		"CREATE TABLE parted_a (note text, junk int, region text NOT NULL, id int NOT NULL)",
		"ALTER TABLE parted_a DROP COLUMN junk",
		"ALTER TABLE parted ATTACH PARTITION parted_a FOR VALUES IN ('a')",
		"CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b', 'c') PARTITION BY LIST (region)",
		"CREATE TABLE parted_b1 PARTITION OF parted_b FOR VALUES IN ('b')",
		"CREATE TABLE parted_rest PARTITION OF parted DEFAULT",
		"INSERT INTO parted SELECT i, chr(97 + i % 4), 'p' || i FROM generate_series(1, 3000) i WHERE i % 4 <> 2",
		"CREATE TABLE barren (id int PRIMARY KEY) PARTITION BY RANGE (id)",
	)
	want := make(map[string][]string)
	for table, columns := range map[string]string{
		`public.plain`: "", `public.nokey`: "", `public.wide`: "", `public.dropped`: "", `Odd "one".ta"ble 'x'`: "", `public.parted`: "",
		`public.computed`: " - 'twice'",
	} {
		schema, name, _ := strings.Cut(table, ".")
		want[table] = query(t, conn, fmt.Sprintf("SELECT (to_jsonb(t)%s)::text FROM %s t", columns, pgx.Identifier{schema, name}.Sanitize()))
	}
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			var rec listenertest.Recorder
			src := run(t, url, &cdc.Options{
				Snapshot: cdc.SnapshotOnly, SnapshotWorkers: workers, MaxBatchBytes: 50_000,
			}, small(record(t, &rec, nil)))
			if err := src.ended(); err != nil {
				t.Fatalf("Run = %v", err)
			}
			got := readRows(t, &rec)
			for table := range maps.Keys(want) {
				if diff := cmp.Diff(want[table], got[table]); diff != "" {
					t.Errorf("%s (-table +snapshot):\n%.2000s", table, diff)
				}
				delete(got, table)
			}
			for table, rows := range got {
				t.Errorf("%d rows of %s", len(rows), table)
			}
			wantContiguous(t, &rec)
		})
	}
}

// wantContiguous fails the test unless a table's rows come one after the other
// and positions grow by one.
func wantContiguous(t testing.TB, rec *listenertest.Recorder) {
	t.Helper()
	seen := make(map[string]bool)
	last := ""
	for i, e := range rec.Events() {
		if e.Position.Index != uint32(i+1) || e.Cause != listeners.CauseSnapshot {
			t.Fatalf("event %d is at %s by %s", i, e.Position, e.Cause)
		}
		if e.Collection == last {
			continue
		}
		if seen[e.Collection] {
			t.Fatalf("rows of %s come again at %s, after those of %s", e.Collection, e.Position, last)
		}
		seen[e.Collection], last = true, e.Collection
	}
}

func TestSnapshotHonoursColumnListsAndRowFilters(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	if v := version(t, conn); v < 15 {
		t.Skipf("Postgres %d has no column lists and row filters", v)
	}
	exec(t, conn,
		"CREATE TABLE items (id int PRIMARY KEY, secret text, note text)",
		"INSERT INTO items SELECT i, 's', 'n' || i FROM generate_series(1, 3000) i",
		"CREATE TABLE parted (id int PRIMARY KEY, note text, secret text) PARTITION BY RANGE (id)",
		"CREATE TABLE parted_1 (secret text, note text, id int NOT NULL)",
		"ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (1500)",
		"CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1500) TO (10000)",
		"INSERT INTO parted SELECT i, 'n' || i, 's' FROM generate_series(1, 3000) i",
		"CREATE PUBLICATION pub FOR TABLE items (id, note) WHERE (id % 3 = 0 OR id = 1), parted (id, note) WHERE (id > 1000)"+
			" WITH (publish_via_partition_root)",
	)
	want := map[string][]string{
		"public.items":  query(t, conn, "SELECT (to_jsonb(t) - 'secret')::text FROM items t WHERE id % 3 = 0 OR id = 1"),
		"public.parted": query(t, conn, "SELECT (to_jsonb(t) - 'secret')::text FROM parted t WHERE id > 1000"),
	}
	for _, workers := range []int{1, 4} {
		var rec listenertest.Recorder
		src := run(t, url, &cdc.Options{
			Snapshot: cdc.SnapshotOnly, Publication: "pub", SnapshotWorkers: workers,
		}, small(record(t, &rec, nil)))
		if err := src.ended(); err != nil {
			t.Fatalf("Run = %v", err)
		}
		if diff := cmp.Diff(want, readRows(t, &rec)); diff != "" {
			t.Errorf("%d workers (-table +snapshot):\n%.2000s", workers, diff)
		}
	}
}
