package cdc

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// What happens to a table between a snapshot and its reading must not cost a
// row: a table that was rewritten looks empty to the snapshot.
func TestSnapshotNoticesAlteredTables(t *testing.T) {
	url := pgtest.Database(t)
	setup := []string{
		"CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1)",
		"CREATE TABLE p (id int) PARTITION BY LIST (id)", "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)", "INSERT INTO p VALUES (1)",
	}
	for name, tc := range map[string]struct{ sql, want string }{
		"nothing":               {"SELECT 1", ""},
		"rows":                  {"INSERT INTO t VALUES (2)", ""},
		"a column added":        {"ALTER TABLE t ADD w int DEFAULT 5", ""},
		"rewritten":             {"ALTER TABLE t ALTER id TYPE bigint", "table public.t was altered or truncated after the snapshot began"},
		"truncated":             {"TRUNCATE t", "table public.t was altered or truncated after the snapshot began"},
		"a column renamed":      {"ALTER TABLE t RENAME v TO w", "table public.t was altered or truncated after the snapshot began"},
		"a partition truncated": {"TRUNCATE p1", "table public.p1 was altered or truncated after the snapshot began"},
		"renamed":               {"ALTER TABLE t RENAME TO u", "a table was dropped or renamed after the snapshot began"},
		"dropped":               {"DROP TABLE t", ""}, // not published any more
		"its schema renamed":    {"ALTER SCHEMA public RENAME TO private", "a table was dropped or renamed after the snapshot began"},
	} {
		t.Run(name, func(t *testing.T) {
			pgtest.Exec(t, url, "DROP SCHEMA IF EXISTS public, private CASCADE; CREATE SCHEMA public")
			pgtest.Exec(t, url, setup...)
			pgtest.Exec(t, url, "DROP PUBLICATION IF EXISTS settled", "CREATE PUBLICATION settled FOR TABLE t, p WITH (publish_via_partition_root)")
			s, err := New(url, &Options{Publication: "settled"})
			if err != nil {
				t.Fatal(err)
			}
			repl, id, err := s.c.connectReplication(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer hangUp(t.Context(), repl)
			s.system = id
			e, err := s.export(t.Context(), passing)
			if err != nil {
				t.Fatal(err)
			}
			defer e.close(t.Context())
			conn, _, err := e.join(t.Context(), s.c)
			if err != nil {
				t.Fatal(err)
			}
			defer hangUp(t.Context(), conn.PgConn())
			pgtest.Exec(t, url, tc.sql)
			tables, err := s.snapshotTables(t.Context(), conn, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			// One that goes after it was listed.
			if name == "dropped" {
				if err := settle(t.Context(), conn, append(tables, snapshotTable{schema: "public", name: "t"})); err == nil || !transient(err) {
					t.Errorf("settle = %v, want an error that is worth another snapshot", err)
				}
				return
			}
			err = settle(t.Context(), conn, tables)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("settle = %v, want nil", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("settle = %v, want %q", err, tc.want)
			case err != nil && !transient(err):
				t.Errorf("settle = %v, which is not tried again", err)
			}
		})
	}
}

// The connection that exported a snapshot may end before the snapshot is
// imported. That is a reason for another one, not for giving up.
func TestSnapshotThatIsGoneIsTakenAgain(t *testing.T) {
	url := pgtest.Database(t)
	s, err := New(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	repl, id, err := s.c.connectReplication(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), repl)
	s.system = id
	e, err := s.export(t.Context(), passing)
	if err != nil {
		t.Fatal(err)
	}
	e.close(t.Context())
	pgtest.Eventually(t, time.Minute, func() error {
		conn, _, err := e.join(t.Context(), s.c)
		switch {
		case err == nil: // the server takes a moment to notice
			hangUp(t.Context(), conn.PgConn())
			return errors.New("the snapshot can still be imported")
		case !transient(err):
			t.Errorf("join = %v, which is not tried again", err)
		}
		return nil
	})
}
