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
