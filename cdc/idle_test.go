package cdc_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// TestIdleSlotAdvancesWhileAnotherDatabaseWrites is why a source needs no
// heartbeat of its own: the server's keepalives carry the slot over what other
// databases write, and checkpoints carry the WAL that it keeps. The cluster
// is the test's own, since on a shared one other tests' WAL would do the same.
func TestIdleSlotAdvancesWhileAnotherDatabaseWrites(t *testing.T) {
	t.Parallel()
	s := pgtest.Own(t, nil)
	conn := pgtest.Connect(t, s.URL("postgres"))
	exec(t, conn, "CREATE DATABASE idle", "CREATE TABLE busy (id serial PRIMARY KEY)")
	idle := s.URL("idle")
	pgtest.Exec(t, idle, "CREATE TABLE seats (id serial PRIMARY KEY)")
	var rec listenertest.Recorder
	src := run(t, idle, nil, record(t, &rec, nil))
	src.caughtUp()

	exec(t, conn, "INSERT INTO busy SELECT FROM generate_series(1, 50000)")
	written := count(t, conn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
	pgtest.Eventually(t, time.Minute, func() error {
		return slotPast(t, conn, src, "confirmed_flush_lsn", written)
	})
	pgtest.Eventually(t, time.Minute, func() error {
		exec(t, conn, "CHECKPOINT") // the server writes one every checkpoint_timeout
		return slotPast(t, conn, src, "restart_lsn", written)
	})
	if n := len(rec.Events()); n != 0 {
		t.Errorf("%d events of a database that nobody asked for", n)
	}
}

func slotPast(t *testing.T, conn *pgx.Conn, src *running, column string, written int) error {
	t.Helper()
	got := count(t, conn, "SELECT ("+column+" - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = $1", src.Slot())
	if got < written {
		return fmt.Errorf("%s of the slot is at %d, the log was at %d", column, got, written)
	}
	return nil
}
