package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// standby starts a standby of a server, and stops it at the test's end.
func standby(t *testing.T, primary *pgserver.Server, settings map[string]string) *pgserver.Server {
	t.Helper()
	s, err := pgserver.StartStandby(t.Context(), primary, &pgserver.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
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

// inStep waits until the standby has replayed what the primary has written.
func inStep(t *testing.T, primary, standby string) {
	t.Helper()
	var end string
	if err := pgtest.Connect(t, primary).QueryRow(t.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Connect(t, standby)
	pgtest.Eventually(t, time.Minute, func() error {
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
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("standby behind %t", behind), func(t *testing.T) {
			pgtest.RequireVersion(t, 15, "pg_backup_start")
			primary := pgtest.Own(t, nil)
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
	t.Parallel()
	pgtest.RequireVersion(t, 17, "failover slots")
	primary := pgtest.Own(t, nil)
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
	pgtest.Eventually(t, time.Minute, func() error {
		pgtest.Exec(t, url, "SELECT pg_log_standby_snapshot()")
		pgtest.Exec(t, follower.URL("postgres"), "SELECT pg_sync_replication_slots()")
		slots, err := cdc.Slots(t.Context(), follower.URL("postgres"))
		if err == nil && slices.ContainsFunc(slots, func(s cdc.SlotStatus) bool { return s.Name == slot && s.Synced && !s.Temporary }) {
			return nil
		}
		return fmt.Errorf("the standby's slots are %+v: %w", slots, err)
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
	t.Parallel()
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
	t.Parallel()
	pgtest.RequireVersion(t, 16, "decoding on a standby")
	primary := pgtest.Own(t, nil)
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
	pgtest.Eventually(t, time.Minute, func() error { // an idle primary logs nothing that a slot could begin at
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
	pgtest.Eventually(t, time.Minute, func() error {
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
