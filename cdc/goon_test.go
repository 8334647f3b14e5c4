package cdc_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// attend holds the slot as a listener does that is there in every run, and from
// which a test may take a position.
func attend(t *testing.T, rec *listenertest.Recorder, sub **listeners.Subscription, opts *listeners.SubscribeOptions) func(*cdc.Source) {
	return func(src *cdc.Source) {
		var err error
		if *sub, err = src.Subscribe("recorder", rec, opts); err != nil {
			t.Fatal(err)
		}
	}
}

func course(rec *listenertest.Recorder) string {
	var out []string
	for _, b := range rec.Batches() {
		if n := len(out); n == 0 || out[n-1] != b.Kind.String() {
			out = append(out, b.Kind.String())
		}
	}
	return strings.Join(out, " ")
}

// The slot has moved over what others write, and over the last transaction's
// end: its position alone does not tell that nothing is missing.
func TestFromAPositionAcrossRestarts(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)", "CREATE TABLE other (id serial PRIMARY KEY)")
	opts := &cdc.Options{StateDir: t.TempDir(), Tables: []string{"public.seats"}}
	var last listeners.Position
	var all []string
	for round := range 5 {
		var rec listenertest.Recorder
		var sub *listeners.Subscription
		src := run(t, url, opts, attend(t, &rec, &sub, &listeners.SubscribeOptions{From: last}))
		src.caughtUp()
		if round != 2 { // in which nothing of interest happens
			exec(t, conn, "INSERT INTO seats SELECT FROM generate_series(1, 3)")
		}
		src.caughtUp()
		last = sub.Stored()
		exec(t, conn, "INSERT INTO other SELECT FROM generate_series(1, 1000)")
		written := count(t, conn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
		pgtest.Eventually(t, time.Minute, func() error { return slotPast(t, conn, src, "confirmed_flush_lsn", written) })
		src.stop()
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES") // while nobody runs
		all = append(all, keys(&rec)...)
		want := "changes"
		if round == 0 {
			want = "reset snapshot live changes"
		}
		if got := course(&rec); got != want {
			t.Errorf("round %d heard %s, want %s", round, got, want)
		}
	}
	wantSequence(t, all, 4*3+4)
}

func TestFromAPositionThatIsGone(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	opts := &cdc.Options{StateDir: t.TempDir()}
	positions := map[int]listeners.Position{}
	for round := range 3 {
		var rec listenertest.Recorder
		var sub *listeners.Subscription
		src := run(t, url, opts, attend(t, &rec, &sub, nil))
		src.caughtUp()
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
		src.caughtUp()
		positions[round] = sub.Stored()
		src.stop()
	}
	otherCluster, ahead := positions[2], positions[2]
	otherCluster.Epoch++
	ahead.Commit += 1 << 40
	for _, tc := range []struct {
		name string
		from listeners.Position
		want string
	}{ // in this order
		{"the last", positions[2], "changes"},
		{"an earlier one", positions[1], "reset snapshot live changes"},
		{"another cluster", otherCluster, "reset snapshot live changes"},
		{"of the future", ahead, "reset snapshot live changes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var with, without, held listenertest.Recorder
			var current, bare, hold *listeners.Subscription
			src := run(t, url, opts, func(src *cdc.Source) {
				// So that the run does not end with the one that fails.
				attend(t, &held, &hold, nil)(src)
				attend(t, &with, &current, &listeners.SubscribeOptions{From: tc.from, Current: true, Ephemeral: true})(src)
				attend(t, &without, &bare, &listeners.SubscribeOptions{From: tc.from, Ephemeral: true})(src)
			})
			if tc.want == "changes" {
				src.caughtUp()
			} else {
				<-bare.Done()
				var gone *listeners.HistoryError
				if err := bare.Err(); !errors.As(err, &gone) || gone.Asked != tc.from || gone.Oldest != positions[2] {
					t.Errorf("Err() = %v, want a HistoryError from %s with %s as the oldest", err, tc.from, positions[2])
				}
				bare.Close()
				<-current.Live()
			}
			exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
			src.caughtUp()
			if got := course(&with); got != tc.want || current.Err() != nil {
				t.Errorf("with Current it heard %s (%v), want %s", got, current.Err(), tc.want)
			}
			if n := len(keys(&with)); n != 1 {
				t.Errorf("with Current it heard %d changes, want the one after the run began", n)
			}
			positions[2] = hold.Stored()
			src.stop()
		})
	}
}

// Without a state it cannot be known what the slot has passed.
func TestFromAPositionNeedsAStateDir(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	var rec, again listenertest.Recorder
	var sub *listeners.Subscription
	src := run(t, url, nil, attend(t, &rec, &sub, nil))
	src.caughtUp()
	exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
	src.caughtUp()
	last := sub.Stored()
	src.stop()
	src = run(t, url, nil, attend(t, &again, &sub, &listeners.SubscribeOptions{From: last, Current: true}))
	<-sub.Live()
	exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
	src.caughtUp()
	src.stop()
	if got, want := course(&again), "reset snapshot live changes"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
	if got := keys(&again); len(got) != 1 || got[0] != "2" {
		t.Errorf("heard the changes %q after Live, want 2", got)
	}
}

func TestListenerThatWasAwayDuringARunGoesOn(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	var held, rec listenertest.Recorder
	var hold, sub *listeners.Subscription
	src := run(t, url, &cdc.Options{HistoryBytes: 1 << 20}, attend(t, &held, &hold, nil))
	src.caughtUp()
	last := hold.Stored()
	for range 5 {
		attend(t, &rec, &sub, &listeners.SubscribeOptions{From: last})(src.Source)
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES", "INSERT INTO seats DEFAULT VALUES")
		src.caughtUp()
		if err := sub.CloseWait(t.Context()); err != nil || sub.Err() != nil {
			t.Fatal(err, sub.Err())
		}
		last = sub.Stored()
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
		src.caughtUp()
	}
	attend(t, &rec, &sub, &listeners.SubscribeOptions{From: last})(src.Source)
	src.caughtUp()
	src.stop()
	wantSequence(t, keys(&rec), 15)
}

// After an orderly end, a name hears nothing again and misses nothing. The slot
// is never ahead of what is stored under it.
func TestNameGoesOnAcrossRuns(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	store := listeners.NewFilePositions(t.TempDir())
	opts := &cdc.Options{StateDir: t.TempDir()}
	var all []string
	var before listeners.Position // the last one saved
	for round := range 4 {
		var rec listenertest.Recorder
		var sub *listeners.Subscription
		src := run(t, url, opts, attend(t, &rec, &sub, &listeners.SubscribeOptions{Positions: store, SaveInterval: time.Hour}))
		if round == 0 {
			<-sub.Live()
		}
		// An hour between two saves: only the first and the last happen.
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
		pgtest.Eventually(t, time.Minute, func() error {
			if saved, err := sub.Saved(); err != nil || saved.Compare(before) <= 0 {
				return fmt.Errorf("nothing new is saved: %w", err)
			}
			return nil
		})
		for range 9 {
			exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
		}
		pgtest.Eventually(t, time.Minute, func() error {
			if got, want := len(keys(&rec)), 10+min(round, 1); got < want || sub.Lag().Batches > 0 {
				return fmt.Errorf("%d of %d rows have arrived", got, want)
			}
			return nil
		})
		saved, err := sub.Saved()
		if handled := sub.Handled(); err != nil || saved.Compare(handled) >= 0 {
			t.Errorf("round %d: Saved() = %s, %v, Handled() = %s; want it behind", round, saved, err, handled)
		}
		if confirmed := uint64(src.Stats().Confirmed); saved.Commit != 0 && confirmed > sub.Handled().Commit {
			t.Errorf("round %d: the slot may be confirmed up to %x, but only %s is saved", round, confirmed, saved)
		}
		src.stop()
		if before, err = sub.Saved(); before != sub.Handled() || err != nil {
			t.Errorf("round %d: Saved() = %s, %v at the end, Handled() = %s", round, before, err, sub.Handled())
		}
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
		all = append(all, keys(&rec)...)
	}
	wantSequence(t, all, 43)
}

// Somebody who leaves before anything has come has begun all the same.
func TestNameThatLeavesBeforeAnythingCameMissesNothing(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	store := listeners.NewFilePositions(t.TempDir())
	opts := &cdc.Options{StateDir: t.TempDir(), Snapshot: cdc.SnapshotNever, HistoryBytes: 1 << 20}
	named := &listeners.SubscribeOptions{Positions: store, Ephemeral: true}
	var held, rec listenertest.Recorder
	var hold, sub *listeners.Subscription
	src := run(t, url, opts, func(src *cdc.Source) {
		attend(t, &held, &hold, nil)(src)
		var err error
		if sub, err = src.Subscribe("named", new(listenertest.Recorder), named); err != nil {
			t.Fatal(err)
		}
	})
	pgtest.Eventually(t, time.Minute, func() error {
		if saved, err := sub.Saved(); saved.IsZero() || err != nil {
			return fmt.Errorf("saved %s, %w", saved, err)
		}
		return nil
	})
	if err := sub.CloseWait(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "INSERT INTO seats SELECT FROM generate_series(1, 3)")
	src.caughtUp()
	sub, err := src.Subscribe("named", &rec, named)
	if err != nil {
		t.Fatal(err)
	}
	src.caughtUp()
	if err := sub.CloseWait(t.Context()); err != nil || sub.Err() != nil {
		t.Fatal(err, sub.Err())
	}
	wantSequence(t, keys(&rec), 3)
	src.stop()
}

// The slot does not wait for a name that was closed. What it has passed
// meanwhile is said to be gone, not left out.
func TestNameThatLeftBeforeAnythingCameIsToldOfAGap(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	store := listeners.NewFilePositions(t.TempDir())
	opts := &cdc.Options{StateDir: t.TempDir(), Snapshot: cdc.SnapshotNever}
	named := &listeners.SubscribeOptions{Positions: store}
	var sub, hold *listeners.Subscription
	var rec listenertest.Recorder
	idle := func() {
		t.Helper()
		src := run(t, url, opts, attend(t, &rec, &sub, named))
		src.caughtUp()
		exec(t, conn, "CHECKPOINT", "SELECT pg_logical_emit_message(false, 'x', 'y')") // the slot moves over it
		src.caughtUp()
		src.stop()
	}
	idle()
	began, _ := sub.Saved()
	idle() // goes on, with nothing in between
	if again, _ := sub.Saved(); began.IsZero() || again != began || len(rec.Batches()) != 0 {
		t.Fatalf("saved %s, then %s, and heard %d batches; want one position and nothing", began, again, len(rec.Batches()))
	}
	exec(t, conn, "INSERT INTO seats DEFAULT VALUES") // while nobody runs
	src := run(t, url, opts, attend(t, new(listenertest.Recorder), &hold, nil))
	src.caughtUp()
	src.stop()
	src = run(t, url, opts, func(src *cdc.Source) {
		attend(t, new(listenertest.Recorder), &hold, nil)(src)
		attend(t, &rec, &sub, named)(src)
	})
	<-sub.Done()
	if gone, is := errors.AsType[*listeners.HistoryError](sub.Err()); !is || gone.Asked != began {
		t.Errorf("Err() = %v, want a HistoryError from %s", sub.Err(), began)
	}
	sub.Close()
	src.stop()
}
