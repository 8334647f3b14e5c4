package cdc_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A killed process cannot drop what it made. A slot that was not looked at may
// have missed a change to a table, and the next run could not see that.
func TestKillBeforeANewSlotIsLookedAtLeavesNoSlot(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, seats)
	opts := &cdc.Options{Snapshot: cdc.SnapshotNever, StateDir: t.TempDir()}
	killed := errors.New("killed")
	var found []string
	var rec listenertest.Recorder
	src := run(t, url, opts, func(s *cdc.Source) {
		record(t, &rec, nil)(s)
		s.OnConnect(func(ctx context.Context) error {
			if found = slotNames(t, conn); len(found) == 0 {
				return nil
			}
			_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type IN ('walsender', 'client backend')`)
			return errors.Join(killed, err)
		})
	})
	if err := src.ended(); !errors.Is(err, killed) {
		t.Fatalf("Run = %v, want that it was killed", err)
	}
	if len(found) == 0 || slices.Contains(found, src.Slot()) {
		t.Errorf("killed when there were the slots %v, want none that would be taken for %s", found, src.Slot())
	}
	if got := slotNames(t, conn); len(got) != 0 {
		t.Errorf("the slots %v are left", got)
	}
	rec = listenertest.Recorder{}
	src = run(t, url, opts, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "INSERT INTO seats VALUES (1)")
	src.caughtUp()
	if got := keys(&rec); !slices.Equal(got, []string{"1"}) {
		t.Errorf("events of %v, want of 1", got)
	}
	if got := slotNames(t, conn); !slices.Equal(got, []string{src.Slot()}) {
		t.Errorf("the slots are %v, want the source's alone", got)
	}
}

// The slot is the promise that nothing after it is missed, whether the process
// lived to note it or not.
func TestKillBeforeANewSlotIsNotedLosesNothing(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.Database(t), t.TempDir()
	conn := pgtest.Connect(t, url)
	exec(t, conn, seats)
	log := &lineWatcher{}
	opts := &cdc.Options{Snapshot: cdc.SnapshotNever, StateDir: dir, Logger: slog.New(log)}
	var unheard, rec listenertest.Recorder
	var before []byte
	src := run(t, url, opts, func(s *cdc.Source) {
		record(t, &unheard, nil)(s)
		log.on = func(message string) {
			if message == "created slot" {
				var err error
				if before, err = os.ReadFile(stateFile(dir, s)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	src.caughtUp()
	src.stop()
	if before == nil {
		t.Fatal("no slot was created")
	}
	log.on = func(string) {}
	if err := os.WriteFile(stateFile(dir, src.Source), before, 0o600); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "INSERT INTO seats VALUES (1)")
	src = run(t, url, opts, record(t, &rec, nil))
	exec(t, conn, "INSERT INTO seats VALUES (2)")
	src.caughtUp()
	if diff := cmp.Diff([]string{"1", "2"}, keys(&rec)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// A run that wants no snapshot leaves no slot of one that was begun before.
func TestSnapshotThatIsNotWantedAnyMoreLeavesNoSlot(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.Database(t), t.TempDir()
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 300, "a", "b")
	interruptedSnapshot(t, url, dir)
	if got := slotNames(t, conn); len(got) != 1 {
		t.Fatalf("the slots are %v, want the snapshot's", got)
	}
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{StateDir: dir, Snapshot: cdc.SnapshotNever}, record(t, &rec, nil))
	src.caughtUp()
	wantComplete(t, dir, src, conn)
}

// A lineWatcher hears of each line of a log.
type lineWatcher struct{ on func(message string) }

func (w *lineWatcher) Enabled(context.Context, slog.Level) bool { return true }
func (w *lineWatcher) Handle(_ context.Context, r slog.Record) error {
	w.on(r.Message)
	return nil
}
func (w *lineWatcher) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w *lineWatcher) WithGroup(string) slog.Handler      { return w }
