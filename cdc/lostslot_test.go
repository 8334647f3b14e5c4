package cdc_test

import (
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
	t.Parallel()
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
	t.Parallel()
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
				pgtest.Eventually(t, time.Minute, func() error {
					exec(t, conn, "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = '"+slot+"' AND active")
					_, err := conn.Exec(t.Context(), sql, slot)
					return err
				})
				exec(t, conn, "DELETE FROM seats WHERE id = 10", "UPDATE seats SET price = 3 WHERE id = 5")
				pgtest.Eventually(t, time.Minute, func() error {
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
	t.Parallel()
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
	pgtest.Eventually(t, time.Minute, func() error {
		overrun(t, url)
		if got := slotOf(t, url, running.Slot()); got.WALStatus != "lost" {
			return fmt.Errorf("the slot is %+v", got)
		}
		return nil
	})
	free.Do(func() { close(release) })
	pgtest.Eventually(t, time.Minute, func() error {
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
			pgtest.Eventually(t, time.Minute, func() error {
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
	pgtest.Eventually(t, time.Minute, func() error {
		if len(rec.Batches()) == 0 {
			return errors.New("no reset yet")
		}
		return nil
	})
	pgtest.Eventually(t, time.Minute, func() error {
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
		if b.Kind == listeners.Reset {
			got = 0
		}
		got += len(b.Events)
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
	t.Parallel()
	old := pgtest.Own(t, nil).URL("postgres")
	opts := cdc.Options{StateDir: t.TempDir()}
	pgtest.Exec(t, old, seats, "INSERT INTO seats VALUES (1)")
	first := once(t, old, opts)
	young := pgtest.Own(t, nil).URL("postgres")
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
