package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func count(t testing.TB, conn *pgx.Conn, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// keys returns the keys of all events but reads, in order.
func keys(rec *listenertest.Recorder) []string {
	var out []string
	for _, e := range rec.Events() {
		if e.Op != listeners.Read {
			out = append(out, e.Key)
		}
	}
	return out
}

// wantSequence fails the test unless the keys are 1 to n in order.
func wantSequence(t testing.TB, got []string, n int) {
	t.Helper()
	for i := range max(n, len(got)) {
		if i >= len(got) || got[i] != fmt.Sprint(i+1) {
			t.Fatalf("%d events arrived, want 1 to %d in order; the first wrong one is number %d: %v", len(got), n, i+1, got[i:min(len(got), i+5)])
		}
	}
}

func TestRestartGoesOnWithoutGapOrTwin(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	var all []string
	for round := range 4 {
		var rec listenertest.Recorder
		src := run(t, url, nil, record(t, &rec, nil))
		for range 5 {
			exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
		}
		if round == 0 {
			<-src.Ready()
			src.caughtUp()
		}
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
		src.caughtUp()
		src.stop()
		for _, e := range rec.Events() { // the first round may read what it did not see created
			all = append(all, e.Key)
		}
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES") // while nobody listens
	}
	wantSequence(t, all, 27)
}

// A listener that has not handled a batch gets it again after a restart, and
// nothing that it has handled.
func TestNothingIsConfirmedBeforeItIsHandled(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	var good listenertest.Recorder
	src := run(t, url, nil, record(t, &good, nil))
	src.caughtUp()
	src.stop()

	broken := errors.New("the seat printer is out of paper")
	bad := listenertest.Recorder{Err: func(b *listeners.Batch) error {
		if len(b.Events) > 0 && b.Events[0].Key().String() == "3" {
			return broken
		}
		return nil
	}}
	var printer *listeners.Subscription
	src = run(t, url, nil, func(src *cdc.Source) {
		record(t, &good, nil)(src)
		var err error
		if printer, err = src.Subscribe("printer", &bad, nil); err != nil {
			t.Fatal(err)
		}
	})
	for range 6 {
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := good.WaitEvents(ctx, 6); err != nil {
		t.Fatalf("the other subscription: %v", err)
	}
	<-printer.Done()
	if !errors.Is(printer.Err(), broken) {
		t.Errorf("the subscription ended with %v, want the listener's error", printer.Err())
	}
	src.cancel()
	if err := src.ended(); !errors.Is(err, broken) {
		t.Errorf("Run = %v, want the error of the listener that failed", err)
	}
	wantSequence(t, keys(&good), 6)

	var again listenertest.Recorder
	src = run(t, url, nil, record(t, &again, nil))
	src.caughtUp()
	if got := strings.Join(keys(&again), " "); got != "3 4 5 6" {
		t.Errorf("after the restart arrived %q, want what was not handled: 3 4 5 6", got)
	}
}

func TestRunEndsWhenASnapshotCannotBeStored(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)", "INSERT INTO seats DEFAULT VALUES")
	broken := errors.New("no")
	src, err := cdc.New(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Run(t.Context()); err == nil {
		t.Error("Run without a subscription returned nil")
	}
	src, err = cdc.New(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	record(t, &listenertest.Recorder{}, nil)(src) // another one that works cannot finish the snapshot for it
	if _, err := src.Subscribe("printer", &listenertest.Recorder{Err: func(*listeners.Batch) error { return broken }}, nil); err != nil {
		t.Fatal(err)
	}
	err = src.Run(t.Context())
	var failed *listeners.ListenerError
	if !errors.Is(err, broken) || !errors.As(err, &failed) || failed.Subscription != "printer" {
		t.Errorf("Run = %v, want the listener's error with the subscription's name", err)
	}
	pgtest.Eventually(t, time.Minute, func() error { // the server drops it when it notices the connection's end
		if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 0 {
			return fmt.Errorf("%d slots are left of a snapshot that nobody took", n)
		}
		return nil
	})
}

// Connections are cut at random while writers go on: one process sees each
// event once, in order.
func TestReconnectsWithoutGapOrTwin(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{MaxBatchBytes: 20_000}, record(t, &rec, nil))
	src.caughtUp()
	const rounds = 12
	n := 0
	for range rounds {
		rows := 1 + rand.IntN(3000)
		exec(t, conn, fmt.Sprintf("INSERT INTO seats (note) SELECT md5(i::text) FROM generate_series(1, %d) i", rows))
		n += rows
		exec(t, conn, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active")
	}
	src.caughtUp()
	wantSequence(t, keys(&rec), n)
}

func TestServerRestartLosesNothing(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, nil)
	url := srv.URL("postgres")
	exec(t, pgtest.Connect(t, url), "CREATE TABLE seats (id serial PRIMARY KEY)")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	n := 0
	for _, mode := range []pgserver.Mode{pgserver.Fast, pgserver.Immediate, pgserver.Fast} {
		for range 20 {
			exec(t, pgtest.Connect(t, url), "INSERT INTO seats DEFAULT VALUES")
			n++
		}
		restart(t, srv, mode)
	}
	src.caughtUp()
	// A crash may skip numbers of the sequence: compare with the table.
	var want string
	if err := pgtest.Connect(t, url).QueryRow(t.Context(), "SELECT string_agg(id::text, ' ' ORDER BY id) FROM seats").Scan(&want); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(keys(&rec), " "); got != want {
		t.Errorf("arrived:\n%s\nwant all %d rows:\n%s", got, n, want)
	}
}

// A transaction that does not fit arrives in parts that add up to it.
func TestLargeTransactionArrivesInParts(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{MaxBatchBytes: 100_000, MaxBytes: 200_000}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "INSERT INTO seats (note) SELECT md5(i::text) FROM generate_series(1, 20000) i")
	src.caughtUp()
	wantSequence(t, keys(&rec), 20000)
	var parts []listenertest.Batch
	for _, b := range rec.Batches() {
		if b.Kind == listeners.Changes {
			parts = append(parts, b)
		}
	}
	if len(parts) < 10 {
		t.Fatalf("20,000 rows arrived in %d parts, want many", len(parts))
	}
	for i, b := range parts {
		if b.First != (i == 0) || b.Last != (i == len(parts)-1) || len(b.Events) == 0 || b.Tx != parts[0].Tx {
			t.Errorf("part %d of %d: first %t, last %t, %d events, transaction %+v", i, len(parts), b.First, b.Last, len(b.Events), b.Tx)
		}
	}
}

// A listener that hangs for longer than the server waits for a sign of life
// costs neither the connection nor an event.
func TestStalledListenerKeepsTheConnection(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"wal_sender_timeout": "5s"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)")
	release := make(chan struct{})
	var stalled atomic.Bool
	rec := listenertest.Recorder{Err: func(b *listeners.Batch) error {
		if b.Kind == listeners.Changes && stalled.CompareAndSwap(false, true) {
			<-release
		}
		return nil
	}}
	src := run(t, url, &cdc.Options{MaxBytes: 50_000, MaxBatchBytes: 10_000}, record(t, &rec, nil))
	src.caughtUp()
	const walsender = "SELECT coalesce(sum(active_pid), 0) FROM pg_replication_slots WHERE NOT temporary"
	before := 0
	pgtest.Eventually(t, time.Minute, func() error {
		if before = count(t, conn, walsender); before == 0 {
			return errors.New("the slot is not active")
		}
		return nil
	})
	for range 50 {
		exec(t, conn, "INSERT INTO seats (note) SELECT md5(i::text) FROM generate_series(1, 1000) i")
	}
	exec(t, conn, "SELECT pg_sleep(11)")
	close(release)
	src.caughtUp()
	if after := count(t, conn, walsender); after != before {
		t.Errorf("the walsender changed from PID %d to %d: the connection was lost", before, after)
	}
	wantSequence(t, keys(&rec), 50_000)
}

// WAL of other tables and databases is confirmed although no event comes.
func TestIdleSlotAdvances(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)", "CREATE TABLE busy (id serial PRIMARY KEY)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Tables: []string{"public.seats"}}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "INSERT INTO busy SELECT FROM generate_series(1, 10000)")
	written := count(t, conn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
	pgtest.Eventually(t, time.Minute, func() error {
		if got := count(t, conn, "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = $1", src.Slot()); got < written {
			return fmt.Errorf("the slot is at %d, the log at %d", got, written)
		}
		return nil
	})
	if n := len(rec.Events()); n != 0 {
		t.Errorf("%d events of a table that nobody asked for", n)
	}
}

func TestDroppedSlotIsRecognised(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	for name, sql := range map[string]string{
		"dropped":   "SELECT pg_drop_replication_slot($1)",
		"recreated": "SELECT pg_drop_replication_slot(s), pg_create_logical_replication_slot(s, 'pgoutput') FROM (VALUES ($1::name)) v(s)",
	} {
		t.Run(name, func(t *testing.T) {
			var rec listenertest.Recorder
			src := run(t, url, &cdc.Options{Slot: "slot_" + name}, record(t, &rec, nil))
			src.caughtUp()
			exec(t, conn, "BEGIN")
			exec(t, conn, "INSERT INTO seats DEFAULT VALUES", "COMMIT")
			src.caughtUp()
			drop := func() error {
				exec(t, conn, "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = 'slot_"+name+"' AND active")
				_, err := conn.Exec(t.Context(), sql, "slot_"+name)
				return err
			}
			pgtest.Eventually(t, time.Minute, drop)
			err := src.ended()
			// The reason depends on what the reader sees first: no slot, a start
			// that the server refuses, or a slot that is elsewhere.
			var slot *cdc.SlotError
			if !errors.As(err, &slot) || slot.Slot != "slot_"+name || !strings.Contains(err.Error(), "changes were lost") {
				t.Errorf("Run = %v, want a SlotError that says that changes were lost", err)
			}
		})
	}
}

// Several subscriptions ask for the current state at different times, while
// writers write: each one's folded events equal the table.
func TestCurrentJoinsWithoutGapOrTwin(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, price int)", "INSERT INTO seats SELECT i, 0 FROM generate_series(1, 500) i")
	var main listenertest.Recorder
	for round := range 2 { // with the shared snapshot, and with an existing slot
		early := new(fold)
		src := run(t, url, nil, func(src *cdc.Source) {
			record(t, &main, nil)(src)
			if _, err := src.Table("public.seats").Subscribe("early", early, &listeners.SubscribeOptions{Current: true, Ephemeral: true}); err != nil {
				t.Fatal(err)
			}
		})
		stop := make(chan struct{})
		var writers sync.WaitGroup
		for w := range 2 {
			writer := pgtest.Connect(t, url)
			writers.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					id := rand.IntN(600) + 1
					switch rand.IntN(4) {
					case 0:
						exec(t, writer, fmt.Sprintf("DELETE FROM seats WHERE id = %d", id))
					case 1:
						exec(t, writer, fmt.Sprintf("UPDATE seats SET price = price + 1 WHERE id %% 10 = %d AND id %% 2 = %d", id%10, w))
					default:
						exec(t, writer, fmt.Sprintf("INSERT INTO seats VALUES (%d, %d) ON CONFLICT (id) DO UPDATE SET price = excluded.price", id, i))
					}
				}
			})
		}
		folds := []*fold{early}
		for i := range 3 {
			late := new(fold)
			folds = append(folds, late)
			sub, err := src.Table("public.seats").Subscribe(fmt.Sprint("late ", i), late, &listeners.SubscribeOptions{Current: true})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-sub.Live():
			case <-sub.Done():
				t.Fatalf("late %d ended: %v", i, sub.Err())
			case <-time.After(time.Minute):
				t.Fatalf("late %d is not live", i)
			}
		}
		close(stop)
		writers.Wait()
		src.caughtUp()
		var want string
		if err := conn.QueryRow(t.Context(), "SELECT string_agg(id||'='||price, ' ' ORDER BY id) FROM seats").Scan(&want); err != nil {
			t.Fatal(err)
		}
		for i, f := range folds {
			if got := f.String(); got != want {
				t.Errorf("round %d, subscription %d: the folded events differ from the table:\n got %s\nwant %s", round, i, got, want)
			}
			if f.err != nil {
				t.Errorf("round %d, subscription %d: %v", round, i, f.err)
			}
		}
		src.stop()
	}
	if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 1 {
		t.Errorf("%d slots are left, want the one", n)
	}
}

// A listener that does not come back costs the run a clean end, and no event.
func TestHungListenerHoldsTheSlot(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	src, err := cdc.New(url, &cdc.Options{Snapshot: cdc.SnapshotNever, StopTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	if _, err := src.Subscribe("hung", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
		close(entered)
		<-release
		return nil
	}), nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- src.Run(ctx) }()
	<-src.Ready()
	exec(t, conn, "INSERT INTO seats VALUES (1)")
	<-entered
	before := src.Stats().Confirmed
	cancel()
	var hung *listeners.ListenerError
	if err := <-result; !errors.As(err, &hung) || hung.Subscription != "hung" {
		t.Errorf("Run = %v, want an error that names the subscription", err)
	}
	var after cdc.LSN
	if err := conn.QueryRow(t.Context(), "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", src.Slot()).Scan(&after); err != nil {
		t.Fatal(err)
	}
	if after > before {
		t.Errorf("slot confirmed %s, but the insert was never handled; before the stop it was %s", after, before)
	}
}
