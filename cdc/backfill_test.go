package cdc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

const waitLong = time.Minute

func backfill(t testing.TB, src *running, tables []string, where string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	return src.Backfill(ctx, tables, where)
}

// reads returns the keys that were read, in order.
func reads(rec *listenertest.Recorder) string {
	var out []string
	for _, e := range rec.Events() {
		if e.Op == listeners.Read {
			out = append(out, e.Collection+"/"+e.Key)
		}
	}
	return strings.Join(out, " ")
}

// A refold is a fold that lets rows be read again: each must then be as the
// changes before have left it.
type refold struct {
	fold
	read int
	sums []int // of the prices that each backfill has read
	sum  int
}

func (f *refold) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if b.Kind != listeners.Snapshot || f.rows == nil {
		return f.fold.OnBatch(ctx, b)
	}
	if b.First {
		f.sum = 0
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Position.Compare(f.last) <= 0 {
			f.err = fmt.Errorf("%s %s at %s comes after %s", e.Op, e.Key(), e.Position, f.last)
		}
		f.last = e.Position
		c, err := listeners.NewChange[price](e)
		if err != nil {
			return err
		}
		if was, ok := f.rows[c.After.ID]; !ok || was != c.After.Price {
			f.err = fmt.Errorf("row %d was read as %d, the changes say %d (%t)", c.After.ID, c.After.Price, was, ok)
		}
		f.read++
		f.sum += c.After.Price
	}
	if b.Last {
		f.sums = append(f.sums, f.sum)
	}
	return nil
}

// Writers move prices between rows, so that every consistent state has the same
// sum, while rows are read again and again.
func TestBackfillWhileWritersCommit(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, price int)", "INSERT INTO seats SELECT i, 10 FROM generate_series(1, 500) i")
	all := new(refold)
	src := run(t, url, &cdc.Options{MaxBatchBytes: 10_000}, func(src *cdc.Source) {
		first := listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
			if b.Kind == listeners.Snapshot && all.sums == nil { // the initial one
				if b.Last {
					all.sums = []int{}
				}
				return all.fold.OnBatch(ctx, b)
			}
			return all.OnBatch(ctx, b)
		})
		if _, err := src.Subscribe("fold", first, nil); err != nil {
			t.Fatal(err)
		}
	})
	src.caughtUp()
	stop := make(chan struct{})
	var writers sync.WaitGroup
	var commits atomic.Int64
	for w := range 2 {
		writer := pgtest.Connect(t, url)
		writers.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				sql := fmt.Sprintf("BEGIN; UPDATE seats SET price = price - 1 WHERE id = %d; UPDATE seats SET price = price + 1 WHERE id = %d; COMMIT",
					1+i*7%250*2, 2+i*11%250*2)
				if w == 1 {
					sql = fmt.Sprintf("BEGIN; INSERT INTO seats VALUES (%d, 0); DELETE FROM seats WHERE id = %d; COMMIT", 1000+i, 1000+i-3)
				}
				if _, err := writer.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
					t.Errorf("%s: %v", sql, err)
					return
				}
				commits.Add(1)
			}
		})
	}
	for range 5 {
		if err := backfill(t, src, []string{"public.seats"}, ""); err != nil {
			t.Errorf("Backfill: %v", err)
		}
	}
	close(stop)
	writers.Wait()
	src.caughtUp()
	src.stop()
	if all.err != nil {
		t.Error(all.err)
	}
	if len(all.sums) != 5 || all.read < 2500 {
		t.Errorf("%d backfills with %d rows arrived, want 5 with at least 500 each", len(all.sums), all.read)
	}
	for i, sum := range all.sums {
		if sum != 5000 {
			t.Errorf("backfill %d has prices of %d in all, want 5000 at any one moment", i, sum)
		}
	}
	var want string
	if err := conn.QueryRow(t.Context(), "SELECT string_agg(id || '=' || price, ' ' ORDER BY id) FROM seats").Scan(&want); err != nil {
		t.Fatal(err)
	}
	if got := all.String(); got != want {
		t.Errorf("the events add up to\n%s\nwant the table:\n%s", got, want)
	}
	if commits.Load() < 50 {
		t.Errorf("only %d transactions ran meanwhile", commits.Load())
	}
}

func TestBackfillOfSomeRowsAndTables(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, class text)", "CREATE TABLE trips (id int PRIMARY KEY)", "CREATE TABLE late (id int PRIMARY KEY, class text)",
		"INSERT INTO seats SELECT i, CASE i % 2 WHEN 0 THEN 'first' ELSE 'o''ther' END FROM generate_series(1, 6) i", "INSERT INTO trips VALUES (1)",
		"INSERT INTO late VALUES (1, 'x')", "CREATE PUBLICATION p FOR TABLE seats, trips")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Publication: "p", Snapshot: cdc.SnapshotNever}, record(t, &rec, nil))
	src.caughtUp()
	if err := backfill(t, src, []string{"seats"}, "(class = 'first' OR lower(class) LIKE 'O''%') AND id BETWEEN 2 AND 4"); err != nil {
		t.Fatal(err)
	}
	if err := backfill(t, src, []string{"trips", "public.seats"}, "id = 1"); err != nil {
		t.Fatal(err)
	}
	const before = "public.seats/2 public.seats/4 public.seats/1 public.trips/1"
	if got := reads(&rec); got != before {
		t.Fatalf("were read: %s; want %s", got, before)
	}
	for _, b := range rec.Batches() {
		if b.Kind != listeners.Snapshot {
			t.Errorf("a batch of kind %s came with a backfill", b.Kind)
		}
	}
	var setup *cdc.SetupError
	if err := backfill(t, src, []string{"late"}, ""); !errors.As(err, &setup) || !strings.Contains(err.Error(), "does not cover public.late") {
		t.Errorf("Backfill of a table that is not published = %v, want a SetupError", err)
	}
	if _, err := cdc.AddTables(t.Context(), url, "p", []string{"late"}); err != nil {
		t.Fatal(err)
	}
	if err := backfill(t, src, []string{"late"}, ""); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "UPDATE late SET class = 'y'")
	src.caughtUp()
	if got, want := reads(&rec), before+" public.late/1"; got != want {
		t.Errorf("were read: %s; want %s", got, want)
	}
	if events := rec.Events(); events[len(events)-1].Op != listeners.Update {
		t.Errorf("the last event is %s, want the update", events[len(events)-1])
	}
}

func TestBackfillRefusesBeforeItAsks(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, class text)")
	var slot *cdc.SlotError
	if _, err := cdc.RequestBackfill(t.Context(), url, &cdc.Backfill{Tables: []string{"seats"}}); !errors.As(err, &slot) || !errors.Is(err, cdc.ErrNoSlot) {
		t.Errorf("RequestBackfill without a slot = %v, want a SlotError with ErrNoSlot", err)
	}
	src := run(t, url, nil, record(t, new(listenertest.Recorder), nil))
	src.caughtUp()
	for name, tc := range map[string]struct {
		tables []string
		where  string
		want   string
	}{
		"no table":           {want: "no table was given"},
		"unknown table":      {tables: []string{"seat"}, want: "no table matches public.seat; did you mean public.seats?"},
		"unknown column":     {tables: []string{"seats"}, where: "price > 1", want: `column "price" does not exist`},
		"not a condition":    {tables: []string{"seats"}, where: "id + 1", want: "must be type boolean"},
		"subquery":           {tables: []string{"seats"}, where: "id IN (SELECT 1)", want: "SELECT is not allowed"},
		"function":           {tables: []string{"seats"}, where: "pg_sleep(1) IS NULL", want: "pg_sleep(…) is not allowed"},
		"closes and opens":   {tables: []string{"seats"}, where: "true) OR (true", want: "closes that was not opened"},
		"one more statement": {tables: []string{"seats"}, where: "true; DROP TABLE seats", want: `cannot take "; DROP TABLE seats"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cdc.RequestBackfill(t.Context(), url, &cdc.Backfill{Tables: tc.tables, Where: tc.where})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("RequestBackfill(%v, %q) = %v, want an error with %q", tc.tables, tc.where, err, tc.want)
			}
		})
	}
}

// Requests that no source can do do not stop it: they may come from anybody.
func TestBadBackfillRequestsAreGivenUp(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)", "INSERT INTO seats VALUES (0), (1), (2)")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	emit := func(content string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), "SELECT pg_logical_emit_message(false, $1::text, $2::text)", "rowcall.backfill."+src.Slot(), content); err != nil {
			t.Fatal(err)
		}
	}
	emit("not JSON")
	emit(`{"id": "a", "tables": []}`)
	emit(`{"id": "B'", "tables": ["public.seats"]}`)
	emit(`{"id": "a", "tables": ["public.gone"]}`)
	emit(`{"id": "a", "tables": ["public.seats"], "where": "true; DROP TABLE seats"}`)
	emit(`{"id": "a", "tables": ["public.seats"], "where": "id = pg_sleep(1)"}`)
	emit(`{"id": "a", "tables": ["public.seats"], "where": "none"}`)
	emit(`{"id": "a", "tables": ["public.seats"], "where": "6 / id > 1"}`) // fails at the first row
	emit(`{"id": "a", "tables": ["public.gone", "public.seats"], "where": "id = 2"}`)
	exec(t, conn, "INSERT INTO seats VALUES (3)")
	src.caughtUp()
	events := rec.Events()
	got := lines(events[3:]) // the rows are read before the change, or later
	slices.Sort(got)
	if want := `create public.seats/3: null -> {"id":3}, read public.seats/2: null -> {"id":2}`; strings.Join(got, ", ") != want {
		t.Errorf("after the initial rows arrived %v, want %s", got, want)
	}
	if err := backfill(t, src, []string{"seats"}, "6 / id > 1"); err == nil || !strings.Contains(err.Error(), "division by zero") {
		t.Errorf("Backfill = %v, want why the rows could not be read", err)
	}
}

// A transaction that stays open holds back the backfill, and not the stream.
func TestBackfillWaitsForOpenTransactions(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)", "CREATE TABLE trips (id int PRIMARY KEY)", "INSERT INTO trips VALUES (1)")
	var rec listenertest.Recorder
	var log bytes.Buffer
	src := run(t, url, &cdc.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, record(t, &rec, nil))
	src.caughtUp()
	open := pgtest.Connect(t, url)
	exec(t, open, "BEGIN", "INSERT INTO trips VALUES (2)")
	r, err := cdc.RequestBackfill(t.Context(), url, &cdc.Backfill{Tables: []string{"trips"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		exec(t, conn, fmt.Sprintf("INSERT INTO seats VALUES (%d)", i))
		pgtest.Eventually(t, waitLong, func() error {
			if got := len(keys(&rec)); got != i+1 {
				return fmt.Errorf("%d changes arrived, want %d", got, i+1)
			}
			return nil
		})
	}
	if got := reads(&rec); got != "public.trips/1" {
		t.Errorf("were read while the transaction was open: %s; want what the initial snapshot had", got)
	}
	if confirmed := src.Stats().Confirmed; confirmed >= r.LSN {
		t.Errorf("%s is confirmed, which is past the request's %s", confirmed, r.LSN)
	}
	exec(t, open, "COMMIT")
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	var states []cdc.BackfillState
	if err := cdc.WaitBackfill(ctx, url, r, func(s cdc.BackfillState) { states = append(states, s) }); err != nil {
		t.Fatal(err)
	}
	if len(states) == 0 || states[len(states)-1] != cdc.BackfillDone {
		t.Errorf("the states were %v, want done at last", states)
	}
	src.caughtUp()
	if got, want := reads(&rec), "public.trips/1 public.trips/1 public.trips/2"; got != want {
		t.Errorf("were read: %s; want %s", got, want)
	}
	src.stop()
	if want := fmt.Sprintf("such as that of PID %d", open.PgConn().PID()); !strings.Contains(log.String(), want) {
		t.Errorf("the log does not say %q:\n%s", want, log.String())
	}
}

// A source that ends in the middle of a backfill, or before it, does it when it
// comes back.
func TestBackfillIsRepeatedAfterACrash(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)", "INSERT INTO seats SELECT generate_series(1, 2000)")
	opts := func() *cdc.Options { return &cdc.Options{MaxBatchBytes: 10_000, MaxBytes: 20_000} }
	var first listenertest.Recorder
	src := run(t, url, opts(), record(t, &first, nil))
	src.caughtUp()
	src.stop()

	r, err := cdc.RequestBackfill(t.Context(), url, &cdc.Backfill{Tables: []string{"seats"}, Where: "id > 500"})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the power is gone")
	parts := 0
	dying := listenertest.Recorder{Err: func(b *listeners.Batch) error {
		if b.Kind == listeners.Snapshot {
			if parts++; parts == 4 {
				return broken
			}
		}
		return nil
	}}
	src = run(t, url, opts(), record(t, &dying, nil))
	if err := src.ended(); !errors.Is(err, broken) {
		t.Fatalf("Run = %v, want the listener's error", err)
	}
	exec(t, conn, "INSERT INTO seats VALUES (3000)")

	var again listenertest.Recorder
	src = run(t, url, opts(), record(t, &again, nil))
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	if err := cdc.WaitBackfill(ctx, url, r, nil); err != nil {
		t.Fatal(err)
	}
	src.caughtUp()
	if n := strings.Count(reads(&again), "seats/"); n != 1501 {
		t.Errorf("%d rows were read after the crash, want 1501", n)
	}
	src.stop()
	var after listenertest.Recorder
	src = run(t, url, opts(), record(t, &after, nil))
	src.caughtUp()
	if got := reads(&after); got != "" {
		t.Errorf("a backfill that was done came again: %.80s", got)
	}
}

// Connections are cut during backfills; each is done once more at most, and the
// rows are those of one moment.
func TestBackfillSurvivesLostConnections(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, price int)", "INSERT INTO seats SELECT i, i FROM generate_series(1, 3000) i")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{MaxBatchBytes: 10_000}, record(t, &rec, nil))
	src.caughtUp()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	cutter := pgtest.Connect(t, url)
	wg.Go(func() { cut(t, cutter, stop) })
	for i := range 2 {
		if err := backfill(t, src, []string{"seats"}, fmt.Sprintf("id <= %d", 1000*(i+1))); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	src.caughtUp()
	last := listeners.Position{}
	for _, b := range rec.Batches() {
		if b.Position.Compare(last) < 0 {
			t.Fatalf("%s batch at %s comes after %s", b.Kind, b.Position, last)
		}
		last = b.Position
	}
	if n := strings.Count(reads(&rec), "seats/"); n < 6000 {
		t.Errorf("%d rows were read in all, want at least 6000", n)
	}
}

// cut ends the walsender some times.
func cut(t testing.TB, conn *pgx.Conn, stop <-chan struct{}) {
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for range 6 {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active AND NOT temporary")
		if err != nil {
			t.Error(err)
		}
	}
}

func TestBackfillRequestIsJSON(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)", "CREATE PUBLICATION rowcall_x FOR TABLE seats",
		"SELECT pg_create_logical_replication_slot('rowcall_x', 'pgoutput')")
	r, err := cdc.RequestBackfill(t.Context(), url, &cdc.Backfill{Tables: []string{"seats"}, Where: "id < 3", Slot: "rowcall_x"})
	if err != nil {
		t.Fatal(err)
	}
	var content []byte
	err = conn.QueryRow(t.Context(), `SELECT substr(data, 2 + 8 + length('rowcall.backfill.rowcall_x') + 1 + 4 + 1)
		FROM pg_logical_slot_peek_binary_changes('rowcall_x', NULL, NULL, 'proto_version', '1', 'publication_names', 'rowcall_x', 'messages', 'true')
		WHERE get_byte(data, 0) = ascii('M')`).Scan(&content)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ID, Where string
		Tables    []string
	}
	if err := json.Unmarshal(content, &got); err != nil || got.ID != r.ID || got.Where != "id < 3" || len(got.Tables) != 1 || got.Tables[0] != "public.seats" {
		t.Errorf("the request is %s (%v), want id %s and what was asked for", content, err, r.ID)
	}
}

// The session that holds the snapshot ends before the rows are read: another
// snapshot is made.
func TestBackfillOutlivesItsSnapshot(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)", "CREATE TABLE trips (id int PRIMARY KEY)", "INSERT INTO trips VALUES (1), (2)")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	src.stop()
	if _, err := cdc.RequestBackfill(t.Context(), url, &cdc.Backfill{Tables: []string{"trips"}}); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "INSERT INTO seats SELECT generate_series(1, 5000)")
	release := make(chan struct{})
	again := listenertest.Recorder{Err: func(*listeners.Batch) error { <-release; return nil }}
	src = run(t, url, &cdc.Options{MaxBatchBytes: 10_000, MaxBytes: 20_000}, record(t, &again, nil))
	pgtest.Eventually(t, waitLong, func() error {
		if n := count(t, conn, `SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots
			WHERE database = current_database() AND temporary AND confirmed_flush_lsn IS NOT NULL`); n != 1 {
			return errors.New("no temporary slot yet")
		}
		return nil
	})
	close(release)
	src.caughtUp()
	events := again.Events()
	if got, want := reads(&again), "public.trips/1 public.trips/2"; got != want || len(events) != 5002 {
		t.Fatalf("%d events arrived, with %s read; want 5000 changes and %s", len(events), got, want)
	}
	if last := events[len(events)-1]; last.Op != listeners.Read {
		t.Errorf("the last event is %s, want the rows behind what was committed before them", last)
	}
}

// An operator that somebody put into schema public is not what a condition
// means: it would run with the privileges of the source.
func TestBackfillUsesNoOperatorsOfOthers(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)",
		"CREATE FUNCTION evil(int, numeric) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evil ran'; END $$",
		"CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = numeric, FUNCTION = evil)",
		"INSERT INTO seats VALUES (1), (2)")
	if _, err := conn.Exec(t.Context(), "SELECT FROM seats WHERE id = 1.0"); err == nil || !strings.Contains(err.Error(), "evil ran") {
		t.Fatalf("an ordinary session gives %v, want it to run the operator", err)
	}
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Snapshot: cdc.SnapshotNever}, record(t, &rec, nil))
	src.caughtUp()
	if err := backfill(t, src, []string{"seats"}, "id = 1.0"); err != nil {
		t.Fatal(err)
	}
	if got := reads(&rec); got != "public.seats/1" {
		t.Errorf("were read: %s; want public.seats/1", got)
	}
}
