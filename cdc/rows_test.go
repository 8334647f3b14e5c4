package cdc_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// Random hex does not compress, so 10 kB of it go to the TOAST table.
const bigText = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 320) i)"

func TestUnchangedTOASTIsNeverNull(t *testing.T) {
	for name, tc := range map[string]struct {
		identity      string
		wantUnchanged []string
		wantBefore    bool
	}{
		"default identity leaves it unchanged": {identity: "DEFAULT", wantUnchanged: []string{"photo"}},
		"full identity fills it in":            {identity: "FULL", wantBefore: true},
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			conn := pgtest.Connect(t, url)
			exec(t, conn, "CREATE TABLE people (id int PRIMARY KEY, name text, photo text)",
				"ALTER TABLE people REPLICA IDENTITY "+tc.identity)
			var rec listenertest.Recorder
			src := run(t, url, nil, record(t, &rec, nil))
			src.caughtUp()
			exec(t, conn, "INSERT INTO people VALUES (1, 'Ann', "+bigText+")",
				"UPDATE people SET name = 'Anna' WHERE id = 1",
				"UPDATE people SET id = 2 WHERE id = 1", // a key update must not fill the value from the old key, either
				"DELETE FROM people WHERE id = 2")
			src.caughtUp()
			events := rec.Events()
			if len(events) != 4 {
				t.Fatalf("got %d events, want 4: %v", len(events), lines(events))
			}
			for i, e := range events[1:3] {
				if diff := cmp.Diff(tc.wantUnchanged, e.Unchanged); diff != "" {
					t.Errorf("update %d: unchanged columns (-want +got):\n%s", i, diff)
				}
				if got := strings.Contains(e.After, `"photo"`); got != (tc.wantUnchanged == nil) || strings.Contains(e.After, "null") {
					t.Errorf("update %d: after is %.80s…", i, e.After)
				}
				if got := e.Before != "null"; got != tc.wantBefore {
					t.Errorf("update %d: before is %.80s…, want one: %t", i, e.Before, tc.wantBefore)
				}
			}
			if e := events[2]; e.Key != "2" || e.OldKey != "1" {
				t.Errorf("update of the key: key %q, old key %q; want 2 and 1", e.Key, e.OldKey)
			}
			if e := events[3]; e.Key != "2" || (e.Before != "null") != tc.wantBefore {
				t.Errorf("delete: key %q, before %.80s…", e.Key, e.Before)
			}
		})
	}
}

type person struct {
	ID    int
	Name  *string
	Photo string
}

func TestTypedHandlersOnATable(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE people (id int PRIMARY KEY, name text, photo text)", "CREATE TABLE other (id int PRIMARY KEY)",
		"INSERT INTO people VALUES (1, NULL, 'x')")
	var got []string
	note := func(what string) func(context.Context, listeners.Change[person]) error {
		return func(_ context.Context, c listeners.Change[person]) error {
			got = append(got, what+" "+c.Key+" "+c.Before.Photo+">"+c.After.Photo+strings.Join(c.Missing, ","))
			return nil
		}
	}
	src := run(t, url, nil, func(src *cdc.Source) {
		_, err := src.Table("public.people").Subscribe("typed", listeners.Handlers[person]{
			OnRead: note("read"), OnCreate: note("create"), OnUpdate: note("update"), OnDelete: note("delete"),
			OnCommit: func(context.Context, listeners.Tx, listeners.Position) error { got = append(got, "commit"); return nil },
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	})
	src.caughtUp()
	exec(t, conn,
		"BEGIN", "INSERT INTO people VALUES (2, 'Ann', 'y')", "INSERT INTO other VALUES (1)", "UPDATE people SET photo = "+bigText+" WHERE id = 1", "COMMIT",
		"INSERT INTO other VALUES (2)",
		"UPDATE people SET name = 'Bob' WHERE id = 1",
		"DELETE FROM people WHERE id = 2")
	src.caughtUp()
	src.stop()
	for i := range got {
		if len(got[i]) > 100 {
			got[i] = got[i][:20] + "…"
		}
	}
	want := []string{"read 1 >x", "create 2 >y", "update 1 >c4ca4238a0…", "commit", "update 1 >photo", "commit", "delete 2 >", "commit"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestPartitionedTableArrivesUnderItsOwnName(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE trips (id int, year int, PRIMARY KEY (id, year)) PARTITION BY RANGE (year)",
		"CREATE TABLE trips_25 PARTITION OF trips FOR VALUES FROM (2025) TO (2026)",
		"CREATE TABLE trips_26 PARTITION OF trips FOR VALUES FROM (2026) TO (2027)",
		"INSERT INTO trips VALUES (1, 2025), (2, 2026)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Tables: []string{"trips"}}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "INSERT INTO trips VALUES (3, 2025)", "UPDATE trips SET year = 2026 WHERE id = 3")
	src.caughtUp()
	want := []string{
		`read public.trips/1/2025: null -> {"id":1,"year":2025}`,
		`read public.trips/2/2026: null -> {"id":2,"year":2026}`,
		`create public.trips/3/2025: null -> {"id":3,"year":2025}`,
		`delete public.trips/3/2025: null -> null`, // Postgres moves a row to another partition this way
		`create public.trips/3/2026: null -> {"id":3,"year":2026}`,
	}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestTableWithoutKey(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE log (line text)", "INSERT INTO log VALUES ('first')",
		"CREATE TABLE full_log (line text)", "ALTER TABLE full_log REPLICA IDENTITY FULL",
		"CREATE TABLE keyed (id int PRIMARY KEY, v int)", "ALTER TABLE keyed REPLICA IDENTITY FULL")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "INSERT INTO log VALUES ('second')", "INSERT INTO full_log VALUES ('a')", "UPDATE full_log SET line = 'b'", "DELETE FROM full_log",
		"INSERT INTO keyed VALUES (1, 1)", "UPDATE keyed SET v = 2")
	src.caughtUp()
	want := []string{
		`read public.log/: null -> {"line":"first"}`,
		`create public.log/: null -> {"line":"second"}`,
		`create public.full_log/: null -> {"line":"a"}`,
		`update public.full_log/: {"line":"a"} -> {"line":"b"}`,
		`delete public.full_log/: {"line":"b"} -> null`,
		`create public.keyed/1: null -> {"id":1,"v":1}`, // not all columns, as the protocol marks them
		`update public.keyed/1: {"id":1,"v":1} -> {"id":1,"v":2}`,
	}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestRolledBackChangesNeverArrive(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn,
		"BEGIN", "INSERT INTO seats VALUES (1)", "SAVEPOINT s", "INSERT INTO seats SELECT generate_series(100, 4100)", "ROLLBACK TO s", "INSERT INTO seats VALUES (2)", "COMMIT",
		"BEGIN", "INSERT INTO seats VALUES (3)", "ROLLBACK")
	src.caughtUp()
	want := []string{`create public.seats/1: null -> {"id":1}`, `create public.seats/2: null -> {"id":2}`}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestInterleavedTransactionsArriveInCommitOrder(t *testing.T) {
	url := pgtest.Database(t)
	a, b := pgtest.Connect(t, url), pgtest.Connect(t, url)
	exec(t, a, "CREATE TABLE seats (id int PRIMARY KEY)")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, a, "BEGIN", "INSERT INTO seats VALUES (1)")
	exec(t, b, "BEGIN", "INSERT INTO seats VALUES (10)")
	exec(t, a, "INSERT INTO seats VALUES (2)")
	exec(t, b, "INSERT INTO seats VALUES (11)", "COMMIT")
	exec(t, a, "INSERT INTO seats VALUES (3)", "COMMIT")
	src.caughtUp()
	var keys []string
	events := rec.Events()
	for i, e := range events {
		keys = append(keys, e.Key)
		if i > 0 && e.Position.Compare(events[i-1].Position) <= 0 {
			t.Errorf("position %s does not come after %s", e.Position, events[i-1].Position)
		}
	}
	if diff := cmp.Diff([]string{"10", "11", "1", "2", "3"}, keys); diff != "" {
		t.Errorf("keys in order of arrival (-want +got):\n%s", diff)
	}
}
