package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

// makeTables creates tables (id, price) of n rows.
func makeTables(t testing.TB, conn *pgx.Conn, n int, names ...string) {
	t.Helper()
	for _, name := range names {
		exec(t, conn,
			"CREATE TABLE "+name+" (id int PRIMARY KEY, price int)",
			fmt.Sprintf("INSERT INTO %s SELECT i, i FROM generate_series(1, %d) i", name, n))
	}
}

// at returns a hook that blocks once, before the first row of a table, until
// release is closed, and closes reached then.
func at(collection string) (hook func(context.Context, *listeners.Batch) error, reached, release chan struct{}) {
	reached, release = make(chan struct{}), make(chan struct{})
	var once sync.Once
	return func(ctx context.Context, b *listeners.Batch) error {
		var err error
		if b.Kind == listeners.Snapshot && len(b.Events) > 0 && b.Events[0].Schema.Collection() == collection {
			once.Do(func() {
				close(reached)
				select {
				case <-release:
				case <-ctx.Done():
					err = context.Cause(ctx)
				}
			})
		}
		return err
	}, reached, release
}

// waitDone waits until the state says that tables are stored.
func waitDone(t testing.TB, dir string, src *running, tables ...string) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		s := readState(t, dir, src.Source)
		if s.Snapshot == nil || len(s.Snapshot.Done) != len(tables) {
			return fmt.Errorf("the state is %+v, want %v done", s.Snapshot, tables)
		}
		for _, name := range tables {
			if s.Snapshot.Done["public."+name] == 0 {
				return fmt.Errorf("the state is %+v, want %s done", s.Snapshot, name)
			}
		}
		return nil
	})
}

func slotNames(t testing.TB, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func wantComplete(t testing.TB, dir string, src *running, conn *pgx.Conn) {
	t.Helper()
	if got := slotNames(t, conn); !slices.Equal(got, []string{src.Slot()}) {
		t.Errorf("the slots are %v, want the source's alone", got)
	}
	if s := readState(t, dir, src.Source); s.Snapshot != nil {
		t.Errorf("the state still has a snapshot: %+v", s.Snapshot)
	}
}

func TestSnapshotGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 500, "a", "b", "c", "d")
	dir := t.TempDir()
	opts := func() *cdc.Options { return &cdc.Options{StateDir: dir, MaxBatchBytes: 10_000} }
	var l storedRows
	var reached chan struct{}
	l.before, reached, _ = at("public.c")
	crashing := opts()
	crashing.StopTimeout = 200 * time.Millisecond
	src := run(t, url, crashing, l.subscribe(t, nil))
	<-reached
	waitDone(t, dir, src, "a", "b")
	src.cancel()
	_ = src.ended() // the listener may or may not return in time
	if got := slotNames(t, conn); !slices.Equal(got, []string{src.Slot() + "_snapshot"}) {
		t.Fatalf("the slots are %v, want the snapshot's alone", got)
	}
	exec(t, conn,
		"INSERT INTO a VALUES (1001, 1)", "UPDATE a SET price = -1 WHERE id = 2", "DELETE FROM a WHERE id = 3",
		"BEGIN", "UPDATE b SET price = price + 1", "UPDATE c SET price = -5 WHERE id = 5", "COMMIT",
		"DELETE FROM c WHERE id < 5", "INSERT INTO d VALUES (1002, 2)")

	l.before = nil
	var late storedRows // a cache that wants everything
	src = run(t, url, opts(), func(s *cdc.Source) {
		l.subscribe(t, nil)(s)
		if _, err := s.Subscribe("late", &late, &listeners.SubscribeOptions{Current: true}); err != nil {
			t.Fatal(err)
		}
	})
	exec(t, conn, "INSERT INTO a VALUES (1003, 3)", "UPDATE d SET price = 0 WHERE id = 1")
	<-src.Ready()
	src.caughtUp()
	l.check(t, conn, "a", "b", "c", "d")
	if diff := cmp.Diff([][]string{nil, {"public.c", "public.d"}}, l.resets); diff != "" {
		t.Errorf("resets (-want +got):\n%s", diff)
	}
	if l.reads["public.a"] != 500 || l.reads["public.b"] != 500 || l.lives != 1 {
		t.Errorf("reads of a and b: %d and %d, %d times live; want each row read once, and once live", l.reads["public.a"], l.reads["public.b"], l.lives)
	}
	late.check(t, conn, "a", "b", "c", "d")
	if len(late.resets) == 0 || late.resets[0] != nil {
		t.Errorf("the resets of the late one are %v, want all collections first", late.resets)
	}
	wantComplete(t, dir, src, conn)
	src.stop()

	src = run(t, url, opts(), l.subscribe(t, nil))
	exec(t, conn, "DELETE FROM b WHERE id = 7", "UPDATE c SET price = 1 WHERE id = 9")
	src.caughtUp()
	l.check(t, conn, "a", "b", "c", "d")
}

// Lost connections are like a crash, but the subscriptions go on.
func TestSnapshotGoesOnAfterLostConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 500, "a", "b")
	makeTables(t, conn, 5000, "c", "d")
	dir := t.TempDir()
	hook, reached, release := at("public.c")
	l, cached := storedRows{before: hook}, storedRows{}
	src := run(t, url, &cdc.Options{StateDir: dir, MaxBytes: 20_000, MaxBatchBytes: 5_000}, func(s *cdc.Source) {
		l.subscribe(t, nil)(s)
		if _, err := s.Subscribe("cached", &cached, &listeners.SubscribeOptions{Current: true}); err != nil {
			t.Fatal(err)
		}
	})
	<-reached
	waitDone(t, dir, src, "a", "b")
	exec(t, conn,
		"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowcall'",
		"INSERT INTO a VALUES (1001, 1)", "DELETE FROM b WHERE id = 3", "UPDATE c SET price = 0 WHERE id = 4999")
	close(release)
	src.caughtUp()
	l.check(t, conn, "a", "b", "c", "d")
	cached.check(t, conn, "a", "b", "c", "d")
	if diff := cmp.Diff([][]string{nil, {"public.c", "public.d"}}, l.resets); diff != "" {
		t.Errorf("resets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(l.resets, cached.resets); diff != "" {
		t.Errorf("resets of the other one, which shares the snapshot (-want +got):\n%s", diff)
	}
	if l.reads["public.a"] != 500 || l.reads["public.b"] != 500 {
		t.Errorf("reads of a and b: %d and %d; want each row read once", l.reads["public.a"], l.reads["public.b"])
	}
	wantComplete(t, dir, src, conn)
}

// What is left of a snapshot does not take the slots that its end needs.
func TestSnapshotGoesOnWithTwoSlots(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_replication_slots": "2"})
	url, dir := srv.URL("postgres"), t.TempDir()
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 300, "a", "b")
	var l storedRows
	var reached chan struct{}
	l.before, reached, _ = at("public.b")
	src := run(t, url, &cdc.Options{StateDir: dir, StopTimeout: 100 * time.Millisecond, MaxBatchBytes: 5000}, l.subscribe(t, nil))
	<-reached
	waitDone(t, dir, src, "a")
	src.cancel()
	_ = src.ended()
	l.before = nil
	exec(t, conn, "DELETE FROM a WHERE id = 3")
	src = run(t, url, &cdc.Options{StateDir: dir}, l.subscribe(t, nil))
	src.caughtUp()
	l.check(t, conn, "a", "b")
	wantComplete(t, dir, src, conn)
	if diff := cmp.Diff([][]string{nil, {"public.b"}}, l.resets); diff != "" {
		t.Errorf("resets (-want +got):\n%s", diff)
	}
}

// A crash may come at each step; the next run finds what is of use.
func TestLeftoversOfASnapshotAreRecognised(t *testing.T) {
	t.Parallel()
	// interrupt leaves a snapshot with table a done.
	interrupt := func(t *testing.T) (url, dir string, conn *pgx.Conn, l *storedRows, slot, keeper string) {
		t.Helper()
		url, dir, l = pgtest.Database(t), t.TempDir(), new(storedRows)
		conn = pgtest.Connect(t, url)
		makeTables(t, conn, 300, "a", "b")
		var reached chan struct{}
		l.before, reached, _ = at("public.b")
		src := run(t, url, &cdc.Options{StateDir: dir, StopTimeout: 100 * time.Millisecond, MaxBatchBytes: 5000}, l.subscribe(t, nil))
		<-reached
		waitDone(t, dir, src, "a")
		src.cancel()
		_ = src.ended()
		l.before = nil
		exec(t, conn, "UPDATE a SET price = 0 WHERE id = 7")
		return url, dir, conn, l, src.Slot(), slotNames(t, conn)[0]
	}
	finish := func(t *testing.T, url, dir string, conn *pgx.Conn, l *storedRows, opts *cdc.Options) *running {
		t.Helper()
		opts.StateDir = dir
		src := run(t, url, opts, l.subscribe(t, nil))
		src.caughtUp()
		wantComplete(t, dir, src, conn)
		return src
	}
	fromZero := func(t *testing.T, l *storedRows) {
		t.Helper()
		if n := len(l.resets); n != 2 || l.resets[1] != nil {
			t.Errorf("resets: %v, want two of all collections", l.resets)
		}
	}
	t.Run("no state", func(t *testing.T) {
		url, dir, conn, l, slot, _ := interrupt(t)
		if err := os.Remove(dir + "/" + slot + ".state.json"); err != nil {
			t.Fatal(err)
		}
		finish(t, url, dir, conn, l, &cdc.Options{})
		l.check(t, conn, "a", "b")
		fromZero(t, l)
	})
	t.Run("no slot", func(t *testing.T) {
		url, dir, conn, l, _, keeper := interrupt(t)
		exec(t, conn, "SELECT pg_drop_replication_slot('"+keeper+"')")
		finish(t, url, dir, conn, l, &cdc.Options{})
		l.check(t, conn, "a", "b")
		fromZero(t, l)
	})
	t.Run("slot recreated", func(t *testing.T) {
		url, dir, conn, l, _, keeper := interrupt(t)
		exec(t, conn, "SELECT pg_drop_replication_slot('"+keeper+"')",
			"SELECT pg_create_logical_replication_slot('"+keeper+"', 'pgoutput')")
		finish(t, url, dir, conn, l, &cdc.Options{})
		l.check(t, conn, "a", "b")
		fromZero(t, l)
	})
	t.Run("another publication", func(t *testing.T) {
		url, dir, conn, l, _, _ := interrupt(t)
		finish(t, url, dir, conn, l, &cdc.Options{Publication: "other"})
		l.check(t, conn, "a", "b")
		fromZero(t, l)
	})
	t.Run("fewer tables", func(t *testing.T) {
		url, dir, conn, l, _, _ := interrupt(t)
		finish(t, url, dir, conn, l, &cdc.Options{Tables: []string{"b"}})
		l.check(t, conn, "b")
		fromZero(t, l)
	})
	t.Run("a table recreated", func(t *testing.T) {
		url, dir, conn, l, _, _ := interrupt(t)
		exec(t, conn, "DROP TABLE a")
		makeTables(t, conn, 5, "a")
		finish(t, url, dir, conn, l, &cdc.Options{})
		l.check(t, conn, "a", "b")
		fromZero(t, l)
	})
	t.Run("copied and not dropped", func(t *testing.T) {
		url, dir, conn, l, slot, keeper := interrupt(t)
		exec(t, conn, "SELECT pg_copy_logical_replication_slot('"+keeper+"', '"+slot+"')")
		finish(t, url, dir, conn, l, &cdc.Options{})
		l.check(t, conn, "a")
		if len(l.resets) != 1 {
			t.Errorf("resets: %v, want none in a run with a slot", l.resets)
		}
	})
	t.Run("a slot of somebody else", func(t *testing.T) {
		url, dir := pgtest.Database(t), t.TempDir()
		conn := pgtest.Connect(t, url)
		makeTables(t, conn, 5, "a")
		exec(t, conn, "SELECT pg_create_logical_replication_slot('rows_snapshot', 'test_decoding')")
		src := run(t, url, &cdc.Options{Slot: "rows", StateDir: dir}, new(storedRows).subscribe(t, nil))
		var slot *cdc.SlotError
		if err := src.ended(); !errors.As(err, &slot) || slot.Slot != "rows_snapshot" {
			t.Errorf("Run = %v, want a SlotError that names rows_snapshot", err)
		}
	})
}

// Runs end and connections break at random moments of one snapshot, while
// writers go on.
func TestSnapshotSurvivesRandomCrashes(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("ROWCALL_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	tables := []string{"a", "b", "c", "d", "e", "f"}
	makeTables(t, conn, 1500, tables...)
	dir := t.TempDir()
	l := storedRows{before: func(ctx context.Context, b *listeners.Batch) error {
		if b.Kind != listeners.Snapshot {
			return nil
		}
		timer := time.NewTimer(3 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		own, dice := pgtest.Connect(t, url), rand.New(rand.NewPCG(seed, uint64(w+2)))
		writers.Go(func() { write(t, own, dice, tables, stop) })
	}
	crashes, resumed := 0, 0
	for complete := false; !complete; crashes++ {
		src := run(t, url, &cdc.Options{
			StateDir: dir, MaxBatchBytes: 6_000, MaxBytes: 30_000, SnapshotWorkers: 1 + random.IntN(4),
		}, l.subscribe(t, nil))
		// Later and later, so that there is an end on however slow a machine.
		timer := time.NewTimer(time.Duration(250+random.IntN(500)+10*crashes*crashes) * time.Millisecond)
		select {
		case <-timer.C:
		case err := <-src.result:
			t.Fatalf("Run = %v", err)
		}
		if random.IntN(3) == 0 {
			exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"+
				" WHERE datname = current_database() AND application_name = 'rowcall' AND random() < 0.7")
		}
		src.stop()
		s := readState(t, dir, src.Source)
		if s.Snapshot != nil && len(s.Snapshot.Done) > 0 {
			resumed++
		}
		complete = slices.Contains(slotNames(t, conn), src.Slot())
		if crashes > 40 {
			t.Fatal("the snapshot does not end")
		}
	}
	close(stop)
	writers.Wait()
	src := run(t, url, &cdc.Options{StateDir: dir}, l.subscribe(t, nil))
	src.caughtUp()
	l.check(t, conn, tables...)
	wantComplete(t, dir, src, conn)
	t.Logf("%d runs, %d of them left something to go on with; resets: %v", crashes, resumed, l.resets)
}

// write changes tables at random until stop is closed.
func write(t testing.TB, conn *pgx.Conn, dice *rand.Rand, tables []string, stop <-chan struct{}) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		table, id := tables[dice.IntN(len(tables))], dice.IntN(2500)
		var sql string
		switch dice.IntN(5) {
		case 0:
			sql = "DELETE FROM %s WHERE id = %d"
		case 1, 2:
			sql = "UPDATE %s SET price = price + 1 WHERE id = %d"
		case 3:
			sql = "INSERT INTO %s VALUES (%d, 0) ON CONFLICT DO NOTHING"
		default:
			sql = "UPDATE %s SET price = -price WHERE id BETWEEN %[2]d AND %[2]d + 20"
		}
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(sql, table, id)); err != nil {
			t.Errorf("%s: %v", sql, err)
			return
		}
		if dice.IntN(200) == 0 {
			if _, err := conn.Exec(t.Context(), "VACUUM "+table); err != nil {
				t.Errorf("vacuum: %v", err)
				return
			}
		}
	}
}
