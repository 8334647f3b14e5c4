package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// The primary is lost in the middle of a snapshot, and its successor lacks what
// was read already: positions must not go back.
func TestAForkDuringTheSnapshotIsNoticed(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"temporary": "", "kept": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			pgtest.RequireVersion(t, 15, "a base backup by SQL")
			primary := pgtest.Own(t, nil)
			follower := standby(t, primary, nil)
			url := primary.URL("postgres")
			conn := pgtest.Connect(t, url)
			makeTables(t, conn, 300, "a", "b")
			exec(t, conn, "CREATE PUBLICATION rowcall_postgres FOR TABLE a, b")
			inStep(t, url, follower.URL("postgres"))
			if err := follower.Halt(t.Context(), pgserver.Fast); err != nil {
				t.Fatal(err)
			}
			exec(t, conn, "CREATE TABLE other AS SELECT repeat('x', 500) FROM generate_series(1, 20000)", "INSERT INTO a VALUES (5000, 1)")
			both := fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?target_session_attrs=read-write&sslmode=disable",
				primary.Port(), follower.Port())
			hook, reached, release := at("public.b")
			rec := listenertest.Recorder{Err: func(b *listeners.Batch) error { return hook(t.Context(), b) }}
			src := run(t, both, &cdc.Options{MaxBatchBytes: 5000, Tables: []string{"a", "b"}, StateDir: dir}, record(t, &rec, nil))
			<-reached
			if err := primary.Halt(t.Context(), pgserver.Immediate); err != nil {
				t.Fatal(err)
			}
			if err := follower.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			promote(t, primary, follower)
			close(release)
			slot, ok := errors.AsType[*cdc.SlotError](src.ended())
			if !ok || !slot.Lost {
				t.Errorf("Run = %v, want a SlotError that says that changes were lost", slot)
			}
			wantAscending(t, &rec)
		})
	}
}

// A snapshot that goes on needs no more slots than there are while others wait
// for one.
func TestAResumedSnapshotLeavesASlotForOthers(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_replication_slots": "2"})
	url, dir := srv.URL("postgres"), t.TempDir()
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 300, "a", "b")
	l := interruptedSnapshot(t, url, dir)
	var caches [8]storedRows
	src := run(t, url, &cdc.Options{StateDir: dir}, func(s *cdc.Source) {
		l.subscribe(t, nil)(s)
		for i := range caches {
			if _, err := s.Subscribe(fmt.Sprint("cache", i), &caches[i], &listeners.SubscribeOptions{Current: true}); err != nil {
				t.Fatal(err)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := src.CaughtUp(ctx); err != nil {
		t.Fatalf("CaughtUp: %v; slots %v", err, slotNames(t, conn))
	}
}

// interruptedSnapshot leaves table a stored and b not.
func interruptedSnapshot(t *testing.T, url, dir string) *storedRows {
	t.Helper()
	l := new(storedRows)
	var reached chan struct{}
	l.before, reached, _ = at("public.b")
	src := run(t, url, &cdc.Options{StateDir: dir, StopTimeout: 100 * time.Millisecond, MaxBatchBytes: 5000}, l.subscribe(t, nil))
	<-reached
	waitDone(t, dir, src, "a")
	src.cancel()
	_ = src.ended() // which says that the listener hung
	l.before = nil
	return l
}

func TestASnapshotWhosePublicationIsGoneBeginsAgain(t *testing.T) {
	url, dir := pgtest.Database(t), t.TempDir()
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 300, "a", "b")
	l := interruptedSnapshot(t, url, dir)
	var name string
	if err := conn.QueryRow(t.Context(), "SELECT pubname FROM pg_publication").Scan(&name); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "DROP PUBLICATION "+name, "INSERT INTO a VALUES (5000, 1)")
	src := run(t, url, &cdc.Options{StateDir: dir}, l.subscribe(t, nil))
	src.caughtUp()
	l.check(t, conn, "a", "b")
}

// The last table is noted as well: what fails after it does not read it again.
func TestAStoredTableIsNotReadAgainWhenTheEndFails(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_replication_slots": "2"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 300, "a")
	var l storedRows
	var reached, release chan struct{}
	l.before, reached, release = at("public.a")
	src := run(t, url, &cdc.Options{StateDir: t.TempDir()}, l.subscribe(t, nil))
	<-reached
	exec(t, conn, "SELECT pg_create_physical_replication_slot('x')") // there is none left for the copy
	close(release)
	pgtest.Eventually(t, time.Minute, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.lives == 0 {
			return errors.New("the snapshot is not stored")
		}
		return nil
	})
	exec(t, conn, "SELECT pg_sleep(1)", "SELECT pg_drop_replication_slot('x')")
	src.caughtUp()
	l.check(t, conn, "a")
	if l.reads["public.a"] != 300 || len(l.resets) != 1 {
		t.Errorf("%d rows read and %d resets, want 300 and 1", l.reads["public.a"], len(l.resets))
	}
}

// A state that cannot be stored keeps the slot from moving, not the events.
func TestCatchUpGoesOnWithoutItsState(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.Database(t), t.TempDir()+"/state"
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 10, "a")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{StateDir: dir}, record(t, &rec, nil))
	src.caughtUp()
	src.stop()
	for range 20 {
		exec(t, conn, "INSERT INTO a SELECT i, i FROM generate_series((SELECT max(id) + 1 FROM a), (SELECT max(id) + 2000 FROM a)) i")
	}
	broken := false
	backlog := listenertest.Recorder{Err: func(*listeners.Batch) error {
		if !broken {
			broken = true
			return errors.Join(os.Rename(dir, dir+".gone"), os.WriteFile(dir, nil, 0o600))
		}
		return nil
	}}
	run(t, url, &cdc.Options{StateDir: dir, CatchUpBytes: 4096}, record(t, &backlog, nil))
	pgtest.Eventually(t, time.Minute, func() error {
		if n := len(backlog.Events()); n < 40_000 {
			return fmt.Errorf("%d events of 40,000", n)
		}
		return nil
	})
	exec(t, conn, "INSERT INTO a VALUES (-1, 1)")
	pgtest.Eventually(t, time.Minute, func() error {
		if n := len(backlog.Events()); n != 40_001 {
			return fmt.Errorf("%d events, want 40,001", n)
		}
		return nil
	})
}

// Who stops before a table is stored, and may not come back, leaves no slot that
// would keep the server's log.
func TestAStopBeforeATableIsStoredLeavesNoSlot(t *testing.T) {
	url, dir := pgtest.Database(t), t.TempDir()
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 300, "a")
	var l storedRows
	var reached chan struct{}
	l.before, reached, _ = at("public.a")
	src := run(t, url, &cdc.Options{StateDir: dir, StopTimeout: 100 * time.Millisecond}, l.subscribe(t, nil))
	<-reached
	src.cancel()
	_ = src.ended() // which says that the listener hung
	if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 0 {
		t.Errorf("%d slots are left", n)
	}
	l.before = nil
	src = run(t, url, &cdc.Options{StateDir: dir}, l.subscribe(t, nil))
	src.caughtUp()
	l.check(t, conn, "a")
}

// What changed while there was no publication is nowhere. Postgres before 18
// says so with an error, later ones with a warning that is easily missed.
func TestAPublicationThatWasGoneIsNoticed(t *testing.T) {
	t.Parallel()
	for name, catchUp := range map[string]int64{"streaming": -1, "catching up": 1} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			conn := pgtest.Connect(t, url)
			makeTables(t, conn, 10, "a")
			exec(t, conn, "CREATE PUBLICATION seats FOR TABLE a")
			var rec listenertest.Recorder
			opts := &cdc.Options{Publication: "seats", CatchUpBytes: catchUp}
			src := run(t, url, opts, record(t, &rec, nil))
			src.caughtUp()
			src.stop()
			exec(t, conn, "DROP PUBLICATION seats", "INSERT INTO a VALUES (11, 1)", "CREATE PUBLICATION seats FOR TABLE a", "INSERT INTO a VALUES (12, 1)")
			src = run(t, url, opts, record(t, &rec, nil))
			if slot, ok := errors.AsType[*cdc.SlotError](src.ended()); !ok || !slot.Lost {
				t.Errorf("Run = %v, want a SlotError that says that changes were lost", slot)
			}
		})
	}
}
