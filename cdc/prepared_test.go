package cdc_test

import (
	"slices"
	"testing"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A transaction that was prepared before another and committed after that one
// was prepared: a slot that is confirmed up to the PREPARE of the other would
// bring its commit without its rows.
func TestPreparedTransactionsThatOverlap(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_prepared_transactions": "10"})
	url := eager(srv.URL("postgres"))
	conn := pgtest.Connect(t, url)
	if v := serverVersion(t, url); v < 150000 {
		t.Skipf("server version %d does not send prepared transactions; 15 does", v)
	}
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	var rec listenertest.Recorder
	opts := &cdc.Options{TwoPhase: true}
	src := run(t, url, opts, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn,
		"BEGIN", "INSERT INTO seats VALUES (1)", "PREPARE TRANSACTION 'first'",
		"BEGIN", "INSERT INTO seats VALUES (2)", "PREPARE TRANSACTION 'second'",
		"COMMIT PREPARED 'first'", "INSERT INTO seats VALUES (3)",
		"BEGIN", "INSERT INTO seats VALUES (4)", "PREPARE TRANSACTION 'third'", "COMMIT PREPARED 'second'")
	for _, end := range []string{"INSERT INTO seats VALUES (5)", "COMMIT PREPARED 'third'"} {
		src.caughtUp()
		src.stop()
		src = run(t, url, opts, record(t, &rec, nil))
		src.caughtUp()
		exec(t, conn, end)
	}
	src.caughtUp()
	got := keys(&rec)
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("events of %q, want all of 1 to 5", got)
	}
}

// Where the server fails at what was prepared and rolled back, the source goes
// on with a slot that need not decode it.
func TestAPreparedTransactionThatTheServerCannotDecode(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_prepared_transactions": "10"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	version := serverVersion(t, url)
	if version < 150000 {
		t.Skipf("server version %d does not send prepared transactions; 15 does", version)
	}
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)", "CREATE TABLE rewritten (id int PRIMARY KEY)")
	var rec listenertest.Recorder
	opts := &cdc.Options{TwoPhase: true, Failover: version >= 170000}
	src := run(t, url, opts, record(t, &rec, nil))
	src.caughtUp()
	src.stop()
	exec(t, conn,
		"INSERT INTO seats VALUES (1)",
		"BEGIN", "INSERT INTO seats VALUES (2)", "PREPARE TRANSACTION 'before'",
		"BEGIN", "SAVEPOINT s", "TRUNCATE rewritten", "INSERT INTO rewritten VALUES (-1)", "RELEASE s", "PREPARE TRANSACTION 'bad'",
		"BEGIN", "INSERT INTO seats VALUES (3)", "PREPARE TRANSACTION 'after'",
		"ROLLBACK PREPARED 'bad'", "VACUUM pg_class", "INSERT INTO seats VALUES (4)")
	src = run(t, url, opts, record(t, &rec, nil))
	src.caughtUp()
	if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE two_phase"); n != 0 {
		t.Error("the slot is one for two-phase transactions still: the server has decoded everything, or this tests nothing")
	}
	exec(t, conn, "COMMIT PREPARED 'after'", "INSERT INTO seats VALUES (5)", "COMMIT PREPARED 'before'")
	src.caughtUp()
	src.stop()
	if got := slotOf(t, url, slotNames(t, conn)[0]); got.Failover != opts.Failover || got.LagBytes > 1<<20 {
		t.Errorf("the slot is %+v", got)
	}
	src = run(t, url, opts, record(t, &rec, nil)) // with two-phase transactions again
	src.caughtUp()
	exec(t, conn, "BEGIN", "INSERT INTO seats VALUES (6)", "PREPARE TRANSACTION 'later'", "COMMIT PREPARED 'later'")
	src.caughtUp()
	if got := keys(&rec); !slices.Equal(got, []string{"1", "4", "3", "5", "2", "6"}) {
		t.Errorf("events of %q, want those of 1, 4, 3, 5, 2 and 6", got)
	}
}
