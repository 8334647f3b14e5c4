package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// eager makes the server stream what is larger than 64 kB.
func eager(url string) string {
	separator := "?"
	if strings.Contains(url, "?") {
		separator = "&"
	}
	return url + separator + "logical_decoding_work_mem=64kB"
}

// wasStreamed waits until the server says that it has streamed transactions of a
// slot in progress, n of them rolled back or not.
func wasStreamed(t *testing.T, conn *pgx.Conn, slot string, n int) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		var got int
		err := conn.QueryRow(t.Context(), "SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = $1", slot).Scan(&got)
		if err == nil && got < n {
			err = fmt.Errorf("%d transactions were streamed, want %d", got, n)
		}
		return err
	})
}

const thousandSeats = "INSERT INTO seats (note) SELECT repeat(md5(i::text), 4) FROM generate_series(1, 1000) i"

func TestAStreamedTransactionArrivesOnceAfterItsCommit(t *testing.T) {
	url := eager(pgtest.Database(t))
	conn, other := pgtest.Connect(t, url), pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{MaxSpoolBytes: 100_000, MaxBatchBytes: 50_000}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "BEGIN", thousandSeats, thousandSeats)
	wasStreamed(t, other, src.Slot(), 1)
	exec(t, other, "INSERT INTO seats (id) VALUES (0)")
	src.caughtUp()
	if got := len(rec.Events()); got != 1 {
		t.Errorf("%d events while the large transaction is in progress, want that of the small one", got)
	}
	// Gone with the connection, the transaction is streamed again.
	pgtest.Eventually(t, time.Minute, func() error {
		exec(t, other, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '"+src.Slot()+"'")
		return nil
	})
	exec(t, conn, thousandSeats, "COMMIT")
	src.caughtUp()
	src.stop()
	got := keys(&rec)
	if len(got) == 0 || got[0] != "0" {
		t.Fatalf("the first event is %.20q, want the small transaction's", got)
	}
	exec(t, other, "DELETE FROM seats WHERE id = 0")
	wantSequence(t, got[1:], 3000)
	batches := rec.Batches()[4:]
	for i, b := range batches {
		if b.First != (i == 0) || b.Last != (i == len(batches)-1) || b.Position.Commit != batches[0].Position.Commit {
			t.Errorf("part %d of %d at %s: first %t, last %t", i, len(batches), b.Position, b.First, b.Last)
		}
	}
}

// A savepoint that is rolled back in a streamed transaction takes its rows with
// it and no others.
func TestSavepointsOfAStreamedTransactionAreExact(t *testing.T) {
	url := eager(pgtest.Database(t))
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "BEGIN", thousandSeats,
		"SAVEPOINT a", thousandSeats, "SAVEPOINT b", thousandSeats, "ROLLBACK TO b", thousandSeats,
		"SAVEPOINT c", thousandSeats, "RELEASE c", "ROLLBACK TO a",
		"INSERT INTO seats (note) VALUES ('between')",
		"SAVEPOINT d", thousandSeats, "RELEASE d", "COMMIT")
	exec(t, conn, "BEGIN", thousandSeats, "ROLLBACK")
	exec(t, conn, "INSERT INTO seats (note) VALUES ('last')")
	src.caughtUp()
	wasStreamed(t, conn, src.Slot(), 1) // Postgres 18 leaves out what is rolled back already
	src.stop()
	wantTable(t, conn, keys(&rec))
	if got := len(rec.Events()); got != 2002 {
		t.Errorf("%d events, want 2002", got)
	}
}

// wantTable fails unless the keys are those of table seats in order.
func wantTable(t *testing.T, conn *pgx.Conn, got []string) {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT id::text FROM seats ORDER BY seats.id")
	if err != nil {
		t.Fatal(err)
	}
	want, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-table +events):\n%.2000s", diff)
	}
}

// Two slots, one streamed and one not, hear random large transactions with
// savepoints inside each other and tables that are altered: both the same, with
// the same positions.
func TestStreamingChangesNothingButTheTime(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)", "CREATE TABLE trips (id serial PRIMARY KEY, note text)",
		"ALTER TABLE trips REPLICA IDENTITY FULL")
	var plain, streamed listenertest.Recorder
	off := run(t, eager(url), &cdc.Options{Slot: "plain", Publication: "both", Streaming: cdc.StreamingOff}, record(t, &plain, nil))
	off.caughtUp()
	on := run(t, eager(url), &cdc.Options{Slot: "streamed", Publication: "both", MaxSpoolBytes: 1, MaxBatchBytes: 100_000}, record(t, &streamed, nil))
	on.caughtUp()

	seed := rand.Uint64()
	if given, err := strconv.ParseUint(os.Getenv("ROWCALL_SEED"), 10, 64); err == nil {
		seed = given
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 6 {
		exec(t, conn, "BEGIN")
		depth := 0
		for step := range 25 {
			table := []string{"seats", "trips"}[random.IntN(2)]
			switch random.IntN(12) {
			case 0, 1:
				depth++
				exec(t, conn, fmt.Sprintf("SAVEPOINT s%d", depth))
			case 2, 3:
				if depth > 0 {
					exec(t, conn, fmt.Sprintf("ROLLBACK TO s%d", depth))
				}
			case 4:
				if depth > 0 {
					exec(t, conn, fmt.Sprintf("RELEASE s%d", depth))
					depth--
				}
			case 5:
				exec(t, conn, fmt.Sprintf("ALTER TABLE %s ADD COLUMN c%d_%d int DEFAULT 7", table, random.IntN(1000), step))
			case 6:
				exec(t, conn, "UPDATE "+table+" SET note = note || 'x' WHERE id % 3 = 0")
			case 7:
				exec(t, conn, "DELETE FROM "+table+" WHERE id % 7 = 0")
			case 8:
				exec(t, conn, "UPDATE "+table+" SET id = -id WHERE id % 11 = 0")
			default:
				exec(t, conn, strings.Replace(thousandSeats, "seats", table, 1))
			}
		}
		exec(t, conn, []string{"COMMIT", "COMMIT", "ROLLBACK"}[random.IntN(3)])
	}
	off.caughtUp()
	on.caughtUp()
	off.stop()
	on.stop()
	if len(streamed.Events()) > 0 {
		wasStreamed(t, conn, "streamed", 1)
	}
	if diff := cmp.Diff(withPositions(plain.Events()), withPositions(streamed.Events())); diff != "" {
		t.Errorf("events (-plain +streamed):\n%.3000s", diff)
	}
}

func withPositions(events []listenertest.Event) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.Position.String() + " " + e.String()
	}
	return out
}

func TestPreparedTransactionsArriveWhenTheyCommit(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_prepared_transactions": "10"})
	url := eager(srv.URL("postgres"))
	conn := pgtest.Connect(t, url)
	if v := serverVersion(t, url); v < 150000 {
		t.Skipf("server version %d does not send prepared transactions; 15 does", v)
	}
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)")
	var rec listenertest.Recorder
	opts := &cdc.Options{TwoPhase: true}
	src := run(t, url, opts, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn,
		"BEGIN", "INSERT INTO seats VALUES (-1)", "PREPARE TRANSACTION 'small'",
		"BEGIN", thousandSeats, "SAVEPOINT a", thousandSeats, "ROLLBACK TO a", "PREPARE TRANSACTION 'large'",
		"BEGIN", "INSERT INTO seats VALUES (-2)", "PREPARE TRANSACTION 'never'",
		"INSERT INTO seats VALUES (-3)")
	src.caughtUp()
	if got := keys(&rec); len(got) != 1 || got[0] != "-3" {
		t.Errorf("events of %q while the others are prepared, want only -3", got)
	}
	src.stop()
	exec(t, conn, "COMMIT PREPARED 'large'", "ROLLBACK PREPARED 'never'")
	src = run(t, url, opts, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "COMMIT PREPARED 'small'", "INSERT INTO seats VALUES (-4)")
	src.caughtUp()
	pgtest.Eventually(t, time.Minute, func() error {
		if held := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn < pg_current_wal_lsn()"); held > 0 {
			return errors.New("the slot does not advance after all prepared transactions have ended")
		}
		return nil
	})
	src.stop()
	// What came behind the PREPAREs was not confirmed, so it comes again.
	got := make(map[string]int)
	var order []string
	for _, e := range rec.Events() {
		at := e.Position.String() + " " + e.Key
		if got[at]++; got[at] == 1 {
			order = append(order, e.Key)
		}
	}
	if len(order) != 1003 || order[0] != "-3" || order[1001] != "-1" || order[1002] != "-4" {
		t.Fatalf("%d different events, the first %q and the last %q; want 1003 from -3 to -1, -4", len(order), order[0], order[max(0, len(order)-2):])
	}
	wantTable(t, conn, append([]string{"-4", "-3", "-1"}, order[1:1001]...))
}

// hangs records until it comes to a key, and hangs there.
type hangs struct {
	listenertest.Recorder
	at string
}

func (h *hangs) OnBatch(ctx context.Context, b *listeners.Batch) error {
	for i := range b.Events {
		if h.at != "" && b.Events[i].Key().String() == h.at {
			<-ctx.Done()
			return ctx.Err()
		}
	}
	return h.Recorder.OnBatch(ctx, b)
}

// A prepared transaction that has committed is sent again until it is stored.
func TestAPreparedTransactionIsHeldUntilItIsStored(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_prepared_transactions": "10"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	if v := serverVersion(t, url); v < 150000 {
		t.Skipf("server version %d does not send prepared transactions; 15 does", v)
	}
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	opts := &cdc.Options{TwoPhase: true, StopTimeout: 300 * time.Millisecond}
	l := &hangs{at: "-1"}
	subscribe := func(s *cdc.Source) {
		if _, err := s.Subscribe("hangs", l, nil); err != nil {
			t.Fatal(err)
		}
	}
	src := run(t, url, opts, subscribe)
	src.caughtUp()
	exec(t, conn, "BEGIN", "INSERT INTO seats VALUES (-1)", "PREPARE TRANSACTION 'p'", "INSERT INTO seats VALUES (-3)")
	src.caughtUp()
	exec(t, conn, "COMMIT PREPARED 'p'", "SELECT pg_sleep(2.5)") // for some status updates
	src.cancel()
	_ = src.ended() // which says that the listener hung
	l.at = ""
	src = run(t, url, opts, subscribe)
	src.caughtUp()
	if got := keys(&l.Recorder); !slices.Contains(got, "-1") {
		t.Errorf("events of %q; the prepared transaction's is missing", got)
	}
}

// A slot keeps the property, whatever a later run wants.
func TestABacklogOfATwoPhaseSlotIsStreamed(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_prepared_transactions": "10"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	if v := serverVersion(t, url); v < 150000 {
		t.Skipf("server version %d does not send prepared transactions; 15 does", v)
	}
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, note text)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{TwoPhase: true}, record(t, &rec, nil))
	src.caughtUp()
	src.stop()
	exec(t, conn, "BEGIN", "INSERT INTO seats VALUES (-1)", "PREPARE TRANSACTION 'p'",
		"INSERT INTO seats SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i")
	src = run(t, url, &cdc.Options{CatchUpBytes: 100_000}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "COMMIT PREPARED 'p'")
	src.caughtUp()
	got := keys(&rec)
	if len(got) != 3001 || got[3000] != "-1" {
		t.Errorf("%d events, the last of %q; want 3001 and -1", len(got), got[len(got)-1])
	}
}
