package cdc_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// logger writes to the test's output, too.
func (l *logBuffer) logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewMultiHandler(
		slog.NewTextHandler(l, nil),
		slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
}

func (l *logBuffer) count(message string) int { return strings.Count(l.String(), message) }

// drained reports whether a source began to catch up by SQL, once, and was not
// refused.
func (l *logBuffer) drained() bool {
	return l.count(`msg="catching up"`) == 1 && l.count("does not work here") == 0
}

// slots creates a publication of all tables and slots at one point.
func slots(t testing.TB, conn *pgx.Conn, names ...string) {
	t.Helper()
	exec(t, conn, "CREATE PUBLICATION all_tables FOR ALL TABLES")
	for _, name := range names {
		exec(t, conn, "SELECT pg_create_logical_replication_slot('"+name+"', 'pgoutput')")
	}
}

// slotOptions read such a slot.
func slotOptions(t testing.TB, slot string, catchUp int64, log *logBuffer) *cdc.Options {
	return &cdc.Options{
		Slot: slot, Publication: "all_tables", Snapshot: cdc.SnapshotNever, CatchUpBytes: catchUp,
		Logger: log.logger(t), MaxBytes: 4 << 20, MaxBatchBytes: 100_000,
	}
}

// A backlog that is drained by SQL brings what streaming brings: the same
// events at the same positions in the same batches.
func TestCatchUpBringsWhatStreamingBrings(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn,
		"CREATE TYPE place AS (coach int, seat text)",
		"CREATE TABLE seats (id int PRIMARY KEY, note text, at place, wide text, sold timestamptz)",
		"ALTER TABLE seats ALTER COLUMN wide SET STORAGE EXTERNAL",
		"CREATE TABLE trips (code text PRIMARY KEY, price numeric)", "ALTER TABLE trips REPLICA IDENTITY FULL",
		"CREATE TABLE log (line text)")
	slots(t, conn, "streamed", "drained")
	for i := range 30 {
		exec(t, conn,
			fmt.Sprintf("INSERT INTO seats SELECT i, md5(i::text), ROW(i, 'a'::text)::place, repeat(md5(i::text), 200), '2026-01-01' FROM generate_series(%d, %d) i", i*100, i*100+99),
			fmt.Sprintf("UPDATE seats SET note = 'sold' WHERE id %% 7 = 0 AND id >= %d", i*100),
			fmt.Sprintf("UPDATE seats SET id = -id WHERE id = %d", i*100+50),
			fmt.Sprintf("INSERT INTO trips VALUES ('t%d', 1.50), ('u%[1]d', NULL)", i),
			fmt.Sprintf("UPDATE trips SET price = price * 2 WHERE code = 't%d'", i),
			"INSERT INTO log VALUES ('a line')",
			"DELETE FROM seats WHERE id % 11 = 0")
	}
	exec(t, conn, "INSERT INTO seats SELECT i, 'one large transaction' FROM generate_series(100000, 150000) i",
		"ALTER TABLE trips ADD COLUMN class int", "INSERT INTO trips VALUES ('v', 3, 1)",
		"BEGIN", "INSERT INTO trips VALUES ('w', 3, 2)", "SAVEPOINT s", "INSERT INTO trips VALUES ('x', 3, 2)", "ROLLBACK TO s", "COMMIT",
		"TRUNCATE trips, log", "INSERT INTO log VALUES ('the end')")

	read := func(slot string, catchUp int64) ([]listenertest.Batch, bool) {
		var rec listenertest.Recorder
		var log logBuffer
		src := run(t, url, slotOptions(t, slot, catchUp, &log), record(t, &rec, nil))
		src.caughtUp()
		src.stop()
		return rec.Batches(), log.drained()
	}
	want, _ := read("streamed", -1)
	got, drained := read("drained", 100_000)
	if !drained {
		t.Errorf("the backlog was not drained by SQL")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%d batches came by streaming, %d by SQL (-streaming +SQL):\n%.3000s", len(want), len(got), diff)
	}
	if n := count(t, conn, "SELECT count(DISTINCT confirmed_flush_lsn) FROM pg_replication_slots WHERE slot_name IN ('streamed', 'drained') AND confirmed_flush_lsn >= $1::text::pg_lsn",
		cdc.LSN(want[len(want)-1].Position.Commit).String()); n < 1 {
		t.Error("the slots were not confirmed")
	}
	if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 2 {
		t.Errorf("%d slots are left, want the two", n)
	}
}
