package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func scan[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestDatabasesAreApart(t *testing.T) {
	one, two := pgtest.Database(t), pgtest.Database(t)
	if one == two {
		t.Fatalf("Database() twice = %s", one)
	}
	pgtest.Exec(t, one, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
	if got := scan[int](t, pgtest.Connect(t, one), "SELECT count(*) FROM t"); got != 2 {
		t.Errorf("rows = %d, want 2", got)
	}
	if scan[bool](t, pgtest.Connect(t, two), "SELECT to_regclass('t') IS NOT NULL") {
		t.Error("a table of one database shows in the other")
	}
	if got := scan[string](t, pgtest.Connect(t, one), "SELECT current_database()"); !strings.HasPrefix(got, "t_databasesareapart_") {
		t.Errorf("current_database() = %s, want the test's name in it", got)
	}
}

func TestDatabaseIsDroppedWithAllThatHoldsIt(t *testing.T) {
	outer, whole := pgtest.Connect(t, pgtest.Database(t)), t
	var name string
	t.Run("leave a mess", func(t *testing.T) {
		url := pgtest.Database(t)
		conn := pgtest.Connect(t, url)
		name = scan[string](t, conn, "SELECT current_database()")
		pgtest.Exec(t, url, "CREATE TABLE t (id int)")
		pgtest.Exec(t, url, "SELECT pg_create_logical_replication_slot('idle_"+name[len(name)-8:]+"', 'pgoutput')")
		startReplication(whole, url, "busy_"+name[len(name)-8:])
		pgtest.Exec(t, url, "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s "+name+"'")
	})
	for _, catalog := range []string{"pg_database WHERE datname", "pg_replication_slots WHERE database", "pg_prepared_xacts WHERE database"} {
		if n := scan[int](t, outer, "SELECT count(*) FROM "+catalog+" = $1", name); n != 0 {
			t.Errorf("after the test, %d rows in %s = %s, want 0", n, catalog, name)
		}
	}
}

// startReplication leaves a walsender that keeps its slot in use.
func startReplication(t *testing.T, url, slot string) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url+"?replication=database")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	if err := conn.Exec(t.Context(), "CREATE_REPLICATION_SLOT "+slot+" LOGICAL pgoutput").Close(); err != nil {
		t.Fatal(err)
	}
	conn.Frontend().SendQuery(&pgproto3.Query{
		String: "START_REPLICATION SLOT " + slot + " LOGICAL 0/0 (proto_version '1', publication_names 'none')",
	})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		msg, err := conn.ReceiveMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := msg.(*pgproto3.CopyBothResponse); ok {
			return
		}
	}
}

func TestOwnIsAnotherServerAndAGivenOneIsUsed(t *testing.T) {
	s := pgtest.Own(t, map[string]string{"wal_level": "replica"})
	if got := scan[string](t, pgtest.Connect(t, s.URL("postgres")), "SHOW wal_level"); got != "replica" {
		t.Errorf("SHOW wal_level = %s, want replica", got)
	}
	if err := s.Restart(t.Context(), pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, s.URL("postgres"), "SELECT 1")

	t.Setenv(pgtest.URLVariable, s.URL("postgres")+"?application_name=given")
	conn := pgtest.Connect(t, pgtest.Database(t))
	if got := scan[string](t, conn, "SHOW port"); got != fmt.Sprint(s.Port()) {
		t.Errorf("SHOW port = %s, want that of the given server, %d", got, s.Port())
	}
	if got := scan[string](t, conn, "SHOW application_name"); got != "given" {
		t.Errorf("SHOW application_name = %s, want the URL's parameters kept", got)
	}
}

// recorder is a TB that notes how a test ended instead of ending this one.
type recorder struct {
	testing.TB

	skipped, failed string
}

type ended struct{}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return "recorded" }
func (r *recorder) Fatal(args ...any) {
	r.failed = fmt.Sprint(args...)
	panic(ended{})
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	panic(ended{})
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	panic(ended{})
}

func record(t *testing.T, f func(testing.TB)) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	func() {
		defer func() {
			if v := recover(); v != nil && v != any(ended{}) {
				panic(v)
			}
		}()
		f(r)
	}()
	return r
}

func TestMissingServerFailsInCI(t *testing.T) {
	t.Setenv(pgserver.BinDirVariable, t.TempDir())
	t.Setenv("CI", "true")
	r := record(t, func(tb testing.TB) { pgtest.Own(tb, nil) })
	if r.failed == "" || r.skipped != "" {
		t.Errorf("Own() in CI without PostgreSQL: failed with %q, skipped with %q; want a failure", r.failed, r.skipped)
	}
}

func TestEventually(t *testing.T) {
	calls := 0
	pgtest.Eventually(t, time.Minute, func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if calls != 3 {
		t.Errorf("check ran %d times, want 3", calls)
	}
	r := record(t, func(tb testing.TB) {
		pgtest.Eventually(tb, time.Millisecond, func() error { return errors.New("never") })
	})
	if !strings.Contains(r.failed, "never") {
		t.Errorf("Eventually gave up with %q, want the last error in it", r.failed)
	}
}
