package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// once runs a source until it has caught up, and returns what it delivered.
func once(t *testing.T, url string, opts cdc.Options) *listenertest.Recorder {
	t.Helper()
	rec := new(listenertest.Recorder)
	src := run(t, url, &opts, record(t, rec, nil))
	src.caughtUp()
	src.stop()
	return rec
}

// refused runs a source that has to end with a SlotError, and returns it.
func refused(t *testing.T, url string, opts cdc.Options) *cdc.SlotError {
	t.Helper()
	rec := new(listenertest.Recorder)
	err := run(t, url, &opts, record(t, rec, nil)).ended()
	slot, ok := errors.AsType[*cdc.SlotError](err)
	if !ok {
		t.Fatalf("Run = %v, want a SlotError", err)
	}
	if n := len(rec.Batches()); n != 0 {
		t.Errorf("%d batches were delivered before the refusal, want none", n)
	}
	return slot
}

// kinds are the kinds of the batches, each once where it repeats.
func kinds(rec *listenertest.Recorder) string {
	var out []string
	for _, b := range rec.Batches() {
		out = append(out, b.Kind.String())
	}
	return strings.Join(slices.Compact(out), " ")
}

// wantAscending fails the test unless the positions of batches never go back.
func wantAscending(t *testing.T, recs ...*listenertest.Recorder) {
	t.Helper()
	var last listeners.Position
	for _, rec := range recs {
		for _, b := range rec.Batches() {
			if b.Position.Compare(last) < 0 {
				t.Errorf("position %s (%s) comes after %s", b.Position, b.Kind, last)
			}
			last = b.Position
		}
	}
}

// What happens to a slot while its source does not run is noticed with a state
// directory, and either refused or answered with a snapshot.
func TestSlotThatChangedBetweenRunsIsNotResumed(t *testing.T) {
	for name, tc := range map[string]struct{ sql, want string }{
		"dropped":       {"SELECT pg_drop_replication_slot('%[1]s')", "it does not exist any more"},
		"recreated":     {"SELECT pg_drop_replication_slot('%[1]s'); SELECT pg_create_logical_replication_slot('%[1]s', 'pgoutput')", "it was recreated, or somebody else read it"},
		"read by other": {"SELECT count(*) FROM pg_logical_slot_get_binary_changes('%[1]s', NULL, NULL, 'proto_version', '1', 'publication_names', '%[1]s')", "somebody else read it"},
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			pgtest.Exec(t, url, seats, "INSERT INTO seats VALUES (1), (2)")
			opts := cdc.Options{StateDir: t.TempDir(), Slot: "s_" + strings.ReplaceAll(name, " ", "_")}
			first := once(t, url, opts)
			pgtest.Exec(t, url, "INSERT INTO seats VALUES (3)", "DELETE FROM seats WHERE id = 1")
			second := once(t, url, opts) // resumes as ever
			if got := kinds(second); got != "changes" {
				t.Fatalf("the second run delivered %q, want changes only", got)
			}
			pgtest.Exec(t, url, "INSERT INTO seats VALUES (4)", fmt.Sprintf(tc.sql, opts.Slot))
			for range 2 { // it stays so
				lost := refused(t, url, opts)
				if !lost.Lost || !strings.Contains(lost.Error(), tc.want) || !strings.Contains(lost.Error(), "changes were lost") ||
					!strings.Contains(lost.Remedy, opts.StateDir) {
					t.Errorf("Run = %v, Lost %t; want that %s, with the state file in the remedy", lost, lost.Lost, tc.want)
				}
			}
			opts.LostSlot = cdc.LostSlotResnapshot
			third := once(t, url, opts)
			if got := lines(third.Events()); kinds(third) != "reset snapshot live" || len(got) != 3 {
				t.Errorf("under resnapshot arrived %s: %v; want a reset, the three rows, and live", kinds(third), got)
			}
			pgtest.Exec(t, url, "INSERT INTO seats VALUES (5)")
			opts.LostSlot = cdc.LostSlotFail
			fourth := once(t, url, opts)
			if got := keys(fourth); kinds(fourth) != "changes" || len(got) != 1 || got[0] != "5" {
				t.Errorf("after it arrived %s: %v, want the change of 5", kinds(fourth), got)
			}
			wantAscending(t, first, second, third, fourth)
		})
	}
}

func TestSlotThatChangesInMidRunBeginsAgain(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, seats)
	for name, sql := range map[string]string{
		"dropped":   "SELECT pg_drop_replication_slot($1)",
		"recreated": "SELECT pg_drop_replication_slot(s), pg_create_logical_replication_slot(s, 'pgoutput') FROM (VALUES ($1::name)) v(s)",
	} {
		for _, dir := range []string{"", t.TempDir()} {
			t.Run(fmt.Sprintf("%s with state %t", name, dir != ""), func(t *testing.T) {
				exec(t, conn, "TRUNCATE seats", "INSERT INTO seats SELECT i, 1 FROM generate_series(1, 10) i")
				slot := fmt.Sprintf("mid_%s_%t", name, dir != "")
				f := new(fold)
				var rec listenertest.Recorder
				var log logBook
				src := run(t, url, &cdc.Options{
					Slot: slot, StateDir: dir, LostSlot: cdc.LostSlotResnapshot, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				}, func(src *cdc.Source) {
					record(t, &rec, nil)(src)
					if _, err := src.Subscribe("fold", f, nil); err != nil {
						t.Fatal(err)
					}
				})
				src.caughtUp()
				exec(t, conn, "UPDATE seats SET price = 2 WHERE id < 3")
				src.caughtUp()
				pgtest.Eventually(t, 10*time.Second, func() error {
					exec(t, conn, "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = '"+slot+"' AND active")
					_, err := conn.Exec(t.Context(), sql, slot)
					return err
				})
				exec(t, conn, "DELETE FROM seats WHERE id = 10", "UPDATE seats SET price = 3 WHERE id = 5")
				pgtest.Eventually(t, 20*time.Second, func() error {
					if !strings.HasSuffix(kinds(&rec), "live") || !strings.Contains(kinds(&rec), "changes reset") {
						return fmt.Errorf("arrived %s\n%s", kinds(&rec), &log)
					}
					return nil
				})
				exec(t, conn, "INSERT INTO seats VALUES (11, 4)")
				src.caughtUp()
				var want string
				if err := conn.QueryRow(t.Context(), "SELECT string_agg(id||'='||price, ' ' ORDER BY id) FROM seats").Scan(&want); err != nil {
					t.Fatal(err)
				}
				if got := f.String(); got != want || f.err != nil {
					t.Errorf("the folded events differ from the table: %v\n got %s\nwant %s", f.err, got, want)
				}
				if !strings.Contains(log.String(), `level=WARN msg="the slot is lost; what it kept is gone"`) {
					t.Errorf("no warning of the loss in the log:\n%s", &log)
				}
				wantAscending(t, &rec)
				src.stop()
			})
		}
	}
}

// overrun writes more WAL than max_slot_wal_keep_size, and lets the server
// notice.
func overrun(t *testing.T, url string) {
	t.Helper()
	for range 3 {
		pgtest.Exec(t, url, "INSERT INTO seats SELECT coalesce(max(id), 0) + 1, 1 FROM seats", "SELECT pg_switch_wal()")
	}
	pgtest.Exec(t, url, "CHECKPOINT")
}

func TestInvalidatedSlotIsNotResumed(t *testing.T) {
	srv := pgtest.Own(t, map[string]string{"max_slot_wal_keep_size": "1MB"})
	url := srv.URL("postgres")
	pgtest.Exec(t, url, seats)
	opts := cdc.Options{StateDir: t.TempDir()}
	first := once(t, url, opts)
	overrun(t, url)

	src, err := cdc.New(url, &opts)
	if err != nil {
		t.Fatal(err)
	}
	record(t, new(listenertest.Recorder), nil)(src)
	if setup, ok := errors.AsType[*cdc.SetupError](src.Run(t.Context())); !ok || !strings.Contains(setup.Error(), "is lost") {
		t.Errorf("Run with a lost slot = %v, want a SetupError that says so", setup)
	}
	opts.LostSlot = cdc.LostSlotResnapshot
	second := once(t, url, opts)
	if got := kinds(second); got != "reset snapshot live" || len(second.Events()) != 3 {
		t.Errorf("arrived %s with %d events, want a snapshot of 3 rows", got, len(second.Events()))
	}

	// In mid-run, while a listener hangs.
	release := make(chan struct{})
	var free sync.Once
	defer free.Do(func() { close(release) })
	third := listenertest.Recorder{Err: func(b *listeners.Batch) error {
		if b.Kind == listeners.Changes {
			<-release
		}
		return nil
	}}
	running := run(t, url, &opts, record(t, &third, nil))
	<-running.Ready()
	pgtest.Eventually(t, 30*time.Second, func() error {
		overrun(t, url)
		if got := slotOf(t, url, running.Slot()); got.WALStatus != "lost" {
			return fmt.Errorf("the slot is %+v", got)
		}
		return nil
	})
	free.Do(func() { close(release) })
	pgtest.Eventually(t, 20*time.Second, func() error {
		if got := kinds(&third); !strings.HasSuffix(got, "reset snapshot live") {
			return fmt.Errorf("arrived %s", got)
		}
		return nil
	})
	running.caughtUp()
	wantAscending(t, first, second, &third)
	running.stop()
}

// The stop policy saves the server's disk, and says what that cost.
func TestStopPolicyDropsTheSlotAndSaysSo(t *testing.T) {
	for _, policy := range []cdc.LostSlotPolicy{cdc.LostSlotFail, cdc.LostSlotResnapshot} {
		t.Run(string(policy), func(t *testing.T) {
			url := pgtest.Database(t)
			conn := pgtest.Connect(t, url)
			exec(t, conn, seats, "INSERT INTO seats VALUES (1), (2)")
			opts := cdc.Options{
				StateDir: t.TempDir(), LostSlot: policy, MaxBytes: 10_000, MaxBatchBytes: 1000,
				MaxRetainedWAL: 5 << 20, RetainedWALPolicy: cdc.RetainedWALStop,
			}
			entered, release := make(chan struct{}), make(chan struct{})
			var hang, free sync.Once
			defer free.Do(func() { close(release) })
			rec := listenertest.Recorder{Err: func(b *listeners.Batch) error {
				if b.Kind == listeners.Changes {
					hang.Do(func() { close(entered) })
					<-release
				}
				return nil
			}}
			src := run(t, url, &opts, func(src *cdc.Source) {
				src.Hurry(50 * time.Millisecond)
				record(t, &rec, nil)(src)
			})
			src.caughtUp()
			exec(t, conn, "INSERT INTO seats VALUES (3)")
			<-entered
			exec(t, conn, "INSERT INTO seats SELECT i, i FROM generate_series(4, 50000) i", "DELETE FROM seats WHERE id > 10")
			pgtest.Eventually(t, 20*time.Second, func() error {
				if policy == cdc.LostSlotFail {
					if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n != 0 {
						return fmt.Errorf("%d slots", n)
					}
					return nil
				}
				if n := count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND slot_name LIKE '%snap%'"); n == 0 {
					return errors.New("no new snapshot's slot")
				}
				return nil
			})
			free.Do(func() { close(release) })
			if policy == cdc.LostSlotResnapshot {
				src.caughtUp()
				if got := kinds(&rec); !strings.HasSuffix(got, "changes reset snapshot live") {
					t.Errorf("arrived %s, want a snapshot at the end", got)
				}
				wantAscending(t, &rec)
				src.stop()
				return
			}
			lost, ok := errors.AsType[*cdc.SlotError](src.ended())
			if !ok || !lost.Lost || !strings.Contains(lost.Error(), "more than the 5.0 MiB of MaxRetainedWAL") {
				t.Errorf("Run = %v, want a SlotError about the limit", lost)
			}
			if got := kinds(&rec); got != "reset snapshot live changes reset" {
				t.Errorf("arrived %s, want a reset at the end", got)
			}
			state, err := os.ReadFile(filepath.Join(opts.StateDir, src.Slot()+".state.json"))
			if err != nil || !strings.Contains(string(state), `"lost":{"reason":"it kept `) || !strings.Contains(string(state), `"time":"20`) {
				t.Errorf("the state is %s, %v; want the loss in it", state, err)
			}
			opts.RetainedWALPolicy = cdc.RetainedWALWarn
			again := once(t, url, opts)
			if got := kinds(again); got != "reset snapshot live" || len(again.Events()) != 10 {
				t.Errorf("the next run delivered %s with %d rows, want a snapshot of 10", got, len(again.Events()))
			}
			wantAscending(t, &rec, again)
			if got := once(t, url, opts); len(got.Batches()) != 0 {
				t.Errorf("the run after it delivered %s, want nothing", kinds(got))
			}
		})
	}
}

// A snapshot that is stored too slowly is given up, and made later.
func TestPausedSnapshotBeginsAgain(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, seats, "INSERT INTO seats SELECT i, i FROM generate_series(1, 1000) i", "CREATE TABLE junk (t text)")
	release := make(chan struct{})
	var free sync.Once
	defer free.Do(func() { close(release) })
	rec := listenertest.Recorder{Err: func(b *listeners.Batch) error {
		if b.Kind == listeners.Snapshot {
			<-release
		}
		return nil
	}}
	var log logBook
	src := run(t, url, &cdc.Options{
		MaxRetainedWAL: 4 << 20, RetainedWALPolicy: cdc.RetainedWALPauseSnapshot, Tables: []string{"seats"},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}, func(src *cdc.Source) {
		src.Hurry(50 * time.Millisecond)
		record(t, &rec, nil)(src)
	})
	pgtest.Eventually(t, 10*time.Second, func() error {
		if len(rec.Batches()) == 0 {
			return errors.New("no reset yet")
		}
		return nil
	})
	pgtest.Eventually(t, 20*time.Second, func() error {
		exec(t, conn, "INSERT INTO junk SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
		if !strings.Contains(log.String(), "the snapshot was given up and begins again later") {
			return fmt.Errorf("the log has no word of it:\n%s", &log)
		}
		return nil
	})
	free.Do(func() { close(release) })
	src.caughtUp()
	got := 0
	for _, b := range rec.Batches() {
		switch b.Kind {
		case listeners.Reset:
			got = 0
		case listeners.Snapshot:
			got += len(b.Events)
		}
	}
	if n := strings.Count(kinds(&rec), "reset"); got != 1000 || n < 2 {
		t.Errorf("%d rows after the last of %d resets, want 1000 after at least two", got, n)
	}
	if s := src.Stats(); s.Watched.IsZero() || s.RetainedWAL == 0 {
		t.Errorf("Stats() = %+v, want what the watch has seen", s)
	}
	status, err := src.SlotStatus(t.Context())
	if err != nil || status.Name != src.Slot() || !status.Active {
		t.Errorf("SlotStatus() = %+v, %v; want the slot, in use", status, err)
	}
	src.stop()
}

func TestStatsTellTheAgeOfTheLastEvent(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, seats)
	src := run(t, url, nil, record(t, new(listenertest.Recorder), nil))
	src.caughtUp()
	if got := src.Stats().LastEvent; !got.IsZero() {
		t.Errorf("Stats().LastEvent = %s before the first", got)
	}
	before := time.Now()
	pgtest.Exec(t, url, "INSERT INTO seats VALUES (1)")
	src.caughtUp()
	if got := src.Stats().LastEvent; got.Before(before.Add(-time.Minute)) || got.After(time.Now().Add(time.Minute)) {
		t.Errorf("Stats().LastEvent = %s, want about %s", got, before)
	}
	src.stop()
}

// Positions of another cluster are of another epoch, and never smaller.
func TestAnotherClusterIsNotResumed(t *testing.T) {
	old, young := pgtest.Own(t, nil).URL("postgres"), ""
	opts := cdc.Options{StateDir: t.TempDir()}
	pgtest.Exec(t, old, seats, "INSERT INTO seats VALUES (1)")
	first := once(t, old, opts)
	young = pgtest.Own(t, nil).URL("postgres")
	pgtest.Exec(t, young, seats, "INSERT INTO seats VALUES (2), (3)")
	if lost := refused(t, young, opts); !lost.Lost || !strings.Contains(lost.Error(), "the server is another cluster now") {
		t.Errorf("Run = %v, want that it is another cluster", lost)
	}
	opts.LostSlot = cdc.LostSlotResnapshot
	second := once(t, young, opts)
	if got := kinds(second); got != "reset snapshot live" || len(second.Events()) != 2 {
		t.Errorf("arrived %s with %d rows, want a snapshot of 2", got, len(second.Events()))
	}
	wantAscending(t, first, second)
	if lost := refused(t, old, opts); lost.Lost || !strings.Contains(lost.Error(), "positions would go back") {
		t.Errorf("Run with the older cluster = %v, want a refusal", lost)
	}
	if got := once(t, young, opts); len(got.Batches()) != 0 {
		t.Errorf("afterwards the right cluster delivered %s, want nothing", kinds(got))
	}
}

// standby starts a standby of a server, and stops it at the test's end.
func standby(t *testing.T, primary *pgserver.Server, settings map[string]string) *pgserver.Server {
	t.Helper()
	s, err := pgserver.StartStandby(t.Context(), primary, &pgserver.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if t.Failed() {
			t.Logf("the end of the standby's log:\n%s", s.LogTail(20))
		}
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop the standby: %v", err)
		}
	})
	return s
}

func needVersion(t *testing.T, s *pgserver.Server, version int, why string) {
	t.Helper()
	if s.Version() < version {
		t.Skipf("needs Postgres %d, has %d: %s", version, s.Version(), why)
	}
}

// inStep waits until the standby has replayed what the primary has written.
func inStep(t *testing.T, primary, standby string) {
	t.Helper()
	var end string
	if err := pgtest.Connect(t, primary).QueryRow(t.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Connect(t, standby)
	pgtest.Eventually(t, 20*time.Second, func() error {
		if count(t, conn, "SELECT count(*) WHERE pg_last_wal_replay_lsn() >= $1::text::pg_lsn", end) == 0 {
			return errors.New("the standby is behind " + end)
		}
		return nil
	})
}

// promote ends a primary and makes its standby the new one.
func promote(t *testing.T, primary, standby *pgserver.Server) {
	t.Helper()
	if err := primary.Halt(t.Context(), pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, standby.URL("postgres"), "SELECT pg_promote()")
}

// A history that left the old one after everything that was read is gone on
// with as far as the slot is concerned; one that left it before is another.
func TestForkedTimelineIsNotResumed(t *testing.T) {
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("standby behind %t", behind), func(t *testing.T) {
			primary := pgtest.Own(t, nil)
			needVersion(t, primary, 15, "pg_backup_start")
			follower := standby(t, primary, nil)
			url := primary.URL("postgres")
			opts := cdc.Options{StateDir: t.TempDir()}
			pgtest.Exec(t, url, seats)
			first := once(t, url, opts)
			inStep(t, url, follower.URL("postgres"))
			if behind {
				if err := follower.Halt(t.Context(), pgserver.Fast); err != nil {
					t.Fatal(err)
				}
			}
			pgtest.Exec(t, url, "INSERT INTO seats VALUES (1)")
			second := once(t, url, opts)
			if behind {
				if err := primary.Halt(t.Context(), pgserver.Immediate); err != nil {
					t.Fatal(err)
				}
				if err := follower.Resume(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				inStep(t, url, follower.URL("postgres"))
			}
			promote(t, primary, follower)
			url = follower.URL("postgres")
			pgtest.Exec(t, url, "INSERT INTO seats VALUES (7)")

			lost := refused(t, url, opts)
			want := "it does not exist any more" // its slot was the primary's alone
			if behind {
				want = "the server's timeline 2 left timeline 1 at "
			}
			if !lost.Lost || !strings.Contains(lost.Error(), want) {
				t.Errorf("Run = %v, want %s", lost, want)
			}
			opts.LostSlot = cdc.LostSlotResnapshot
			third := once(t, url, opts)
			rows := 2
			if behind {
				rows = 1
			}
			if got := kinds(third); got != "reset snapshot live" || len(third.Events()) != rows {
				t.Errorf("arrived %s with %d rows, want a snapshot of %d", got, len(third.Events()), rows)
			}
			wantAscending(t, first, second, third)
			if was, is := second.Batches()[0].Position.Epoch, third.Batches()[0].Position.Epoch; (is != was) != behind {
				t.Errorf("the epoch was %d and is %d; want another one only after a fork", was, is)
			}
			pgtest.Exec(t, url, "INSERT INTO seats VALUES (8)")
			fourth := once(t, url, opts)
			if got := keys(fourth); len(got) != 1 || got[0] != "8" {
				t.Errorf("the next run delivered %v, want 8", got)
			}
			wantAscending(t, third, fourth)
		})
	}
}

// With a failover slot the source goes on at the promoted standby: no gap, no
// twin, no snapshot.
func TestFailoverSlotIsResumedOnThePromotedStandby(t *testing.T) {
	primary := pgtest.Own(t, nil)
	needVersion(t, primary, 17, "failover slots")
	follower := standby(t, primary, nil)
	url := primary.URL("postgres")
	pgtest.Exec(t, url, seats, "INSERT INTO seats VALUES (0)", "ALTER SYSTEM SET synchronized_standby_slots = 'standby'", "SELECT pg_reload_conf()")
	opts := cdc.Options{StateDir: t.TempDir(), Failover: true}
	var rec listenertest.Recorder
	src := run(t, url, &opts, record(t, &rec, nil))
	src.caughtUp()
	slot := src.Slot()
	if got := slotOf(t, url, slot); !got.Failover {
		t.Errorf("Slots() has %+v, want a failover slot", got)
	}
	exec(t, pgtest.Connect(t, url), "INSERT INTO seats SELECT i FROM generate_series(1, 100) i")
	src.caughtUp()
	pgtest.Eventually(t, 30*time.Second, func() error {
		pgtest.Exec(t, url, "SELECT pg_log_standby_snapshot()")
		pgtest.Exec(t, follower.URL("postgres"), "SELECT pg_sync_replication_slots()")
		slots, err := cdc.Slots(t.Context(), follower.URL("postgres"))
		if err == nil && slices.ContainsFunc(slots, func(s cdc.SlotStatus) bool { return s.Name == slot && s.Synced && !s.Temporary }) {
			return nil
		}
		return fmt.Errorf("the standby's slots are %+v, %v", slots, err)
	})
	exec(t, pgtest.Connect(t, url), "INSERT INTO seats SELECT i FROM generate_series(101, 150) i")
	src.caughtUp()
	src.stop()
	promote(t, primary, follower)
	url = follower.URL("postgres")
	pgtest.Exec(t, url, "ALTER SYSTEM SET synchronized_standby_slots = ''", "SELECT pg_reload_conf()",
		"INSERT INTO seats SELECT i FROM generate_series(151, 200) i")
	var log logBook
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	again := once(t, url, opts)
	if !strings.Contains(log.String(), "the server was promoted; its history has everything that was read") {
		t.Errorf("no word of the promotion in the log:\n%s", &log)
	}
	// What was not confirmed on the standby's copy comes again, in its place.
	last := rec.Batches()[len(rec.Batches())-1].Position
	got := keys(&rec)
	for _, e := range again.Events() {
		if e.Position.Compare(last) > 0 {
			got = append(got, e.Key)
		}
	}
	if strings.Contains(kinds(again), "snapshot") {
		t.Errorf("arrived %s, want changes only", kinds(again))
	}
	wantSequence(t, got, 200)
}

func TestFailoverNeedsAServerThatCan(t *testing.T) {
	srv := pgtest.Own(t, nil)
	if srv.Version() >= 17 {
		t.Skipf("needs a server before 17, has %d", srv.Version())
	}
	got := atLeast(cdc.Fatal, check(t, srv.URL("postgres"), &cdc.Options{Failover: true}))
	if !slices.ContainsFunc(got, func(f cdc.Finding) bool {
		return f.Check == "failover" && strings.HasPrefix(f.Remedy, "upgrade to 17")
	}) {
		t.Errorf("Check(Failover) = %v, want that the server is too old", got)
	}
}

// A standby is read like a primary: its snapshot and its changes add up to the
// table while the primary is written to.
func TestStandbyIsReadLikeAPrimary(t *testing.T) {
	primary := pgtest.Own(t, nil)
	needVersion(t, primary, 16, "decoding on a standby")
	follower := standby(t, primary, nil)
	there, here := primary.URL("postgres"), follower.URL("postgres")
	conn := pgtest.Connect(t, there)
	exec(t, conn, seats, "INSERT INTO seats SELECT i, 0 FROM generate_series(1, 2000) i")
	inStep(t, there, here)
	got := atLeast(cdc.Fatal, check(t, here, nil))
	if len(got) != 1 || got[0].Check != "publication" || !strings.HasPrefix(got[0].Remedy, "on the primary: CREATE PUBLICATION") {
		t.Fatalf("Check(standby without a publication) = %v, want the statement for the primary", got)
	}
	exec(t, conn, strings.TrimPrefix(got[0].Remedy, "on the primary: "))
	inStep(t, there, here)
	if got := atLeast(cdc.Warning, check(t, here, nil)); got != nil {
		t.Errorf("Check(standby) = %v, want no warning", got)
	}

	var log logBook
	f := new(fold)
	opts := cdc.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), StateDir: t.TempDir()}
	subscribe := func(src *cdc.Source) {
		if _, err := src.Subscribe("fold", f, nil); err != nil {
			t.Fatal(err)
		}
	}
	src := run(t, here, &opts, subscribe)
	<-src.Ready()
	pgtest.Eventually(t, 20*time.Second, func() error { // an idle primary logs nothing that a slot could begin at
		if !strings.Contains(log.String(), "pg_log_standby_snapshot") {
			return fmt.Errorf("no remedy in the log:\n%s", &log)
		}
		return nil
	})
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 3 {
		writer := pgtest.Connect(t, there)
		writers.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				exec(t, writer, fmt.Sprintf("UPDATE seats SET price = price + 1 WHERE id %% 97 = %d", i%97))
			}
		})
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		pgtest.Exec(t, there, "SELECT pg_log_standby_snapshot()")
		if src.Stats().Transactions < 20 {
			return fmt.Errorf("Stats() = %+v\n%s", src.Stats(), &log)
		}
		return nil
	})
	close(stop)
	writers.Wait()
	inStep(t, there, here)
	src.caughtUp()
	var want string
	if err := conn.QueryRow(t.Context(), "SELECT string_agg(id||'='||price, ' ' ORDER BY id) FROM seats").Scan(&want); err != nil {
		t.Fatal(err)
	}
	if got := f.String(); got != want || f.err != nil {
		t.Errorf("the folded events differ from the table: %v\n got %s\nwant %s", f.err, got[:min(300, len(got))], want[:min(300, len(want))])
	}
	src.stop()

	// It stays readable when it becomes the primary.
	promote(t, primary, follower)
	pgtest.Exec(t, here, "INSERT INTO seats VALUES (5000, 1)")
	var rec listenertest.Recorder
	src = run(t, here, &opts, record(t, &rec, nil))
	src.caughtUp()
	if got := keys(&rec); len(got) != 1 || got[0] != "5000" {
		t.Errorf("after the promotion arrived %v, want 5000", got)
	}
	src.stop()
}
