package cdc_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
)

// Rows move, vanish and appear while workers read the pages that they are on.
func TestSnapshotAndWritersFoldToTheTable(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			url := pgtest.Database(t)
			conn := pgtest.Connect(t, url)
			tables := []string{"a", "b"}
			makeTables(t, conn, 5000, tables...)
			stop := make(chan struct{})
			var writers sync.WaitGroup
			for w := range 2 {
				own, dice := pgtest.Connect(t, url), rand.New(rand.NewPCG(seed, uint64(w)))
				writers.Go(func() { write(t, own, dice, tables, stop) })
			}
			var l storedRows
			src := run(t, url, &cdc.Options{SnapshotWorkers: workers, MaxBatchBytes: 20_000, MaxBytes: 100_000}, l.subscribe(t, nil))
			src.caughtUp()
			close(stop)
			writers.Wait()
			src.caughtUp()
			l.check(t, conn, tables...)
			if len(l.resets) != 1 || l.reads["public.a"] == 0 {
				t.Errorf("%d resets, %d rows of a read; want one snapshot with rows", len(l.resets), l.reads["public.a"])
			}
		})
	}
}

// A table that is rewritten or truncated between the snapshot and its turn
// would look empty to the snapshot. Who wants that waits until the rows are
// read, and the workers that share the reading do not wait for each other.
func TestATableThatIsReadIsNotRewritten(t *testing.T) {
	for name, dir := range map[string]string{"temporary": "", "kept": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			conn, other := pgtest.Connect(t, url), pgtest.Connect(t, url)
			makeTables(t, conn, 5000, "a", "b")
			hook, reached, release := at("public.a")
			l := storedRows{before: hook}
			src := run(t, url, &cdc.Options{MaxBatchBytes: 5_000, MaxBytes: 20_000, StateDir: dir, SnapshotWorkers: 4}, func(src *cdc.Source) {
				src.SetChunkPages(2)
				l.subscribe(t, nil)(src)
			})
			<-reached
			altered := make(chan error, 1)
			go func() {
				_, err := other.Exec(t.Context(), "ALTER TABLE b ALTER COLUMN price TYPE bigint; UPDATE b SET price = 7 WHERE id = 1")
				altered <- err
			}()
			pgtest.Eventually(t, time.Minute, func() error {
				if count(t, conn, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'b'::regclass") == 0 {
					return errors.New("nobody waits to alter the table")
				}
				return nil
			})
			close(release)
			if err := <-altered; err != nil {
				t.Fatal(err)
			}
			src.caughtUp()
			l.check(t, conn, "a", "b")
			if len(l.resets) != 1 || l.reads["public.b"] != 5000 {
				t.Errorf("%d resets, %d rows of b read; want 1 and 5000", len(l.resets), l.reads["public.b"])
			}
		})
	}
}

// A commit that waits for a synchronous standby is in the log and not visible
// yet. It arrives once: read, or as a change.
func TestSnapshotDuringACommitThatWaitsForAStandby(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"temporary": "", "kept": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			srv := pgtest.Own(t, nil)
			url := srv.URL("postgres")
			conn := pgtest.Connect(t, url)
			exec(t, conn, "SET synchronous_commit = local")
			makeTables(t, conn, 100, "a")
			// The source's connections must not wait themselves.
			exec(t, conn, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
			waiting := func(n int) {
				t.Helper()
				pgtest.Eventually(t, time.Minute, func() error {
					if got := count(t, conn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"); got != n {
						return fmt.Errorf("%d commits wait for a standby, want %d", got, n)
					}
					return nil
				})
			}
			pgtest.Eventually(t, time.Minute, func() error {
				if count(t, conn, "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'") == 0 {
					return fmt.Errorf("the setting is not in force")
				}
				return nil
			})
			var writers sync.WaitGroup
			insert := func(id int) {
				own := pgtest.Connect(t, url)
				writers.Go(func() {
					if _, err := own.Exec(t.Context(), fmt.Sprintf("INSERT INTO a VALUES (%d, %[1]d)", id)); err != nil {
						t.Errorf("insert %d: %v", id, err)
					}
				})
			}
			insert(1001)
			waiting(1)
			var l storedRows
			u := url + "?options=-csynchronous_commit%3Dlocal"
			src := run(t, u, &cdc.Options{StateDir: dir}, l.subscribe(t, nil))
			pgtest.Eventually(t, time.Minute, func() error { // the new slot waits for the commit
				if count(t, conn, "SELECT count(*) FROM pg_replication_slots") == 0 {
					return fmt.Errorf("no slot yet")
				}
				return nil
			})
			insert(1002)
			waiting(2)
			exec(t, conn, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
			writers.Wait()
			src.caughtUp()
			l.check(t, conn, "a")
			if got := len(l.tables["public.a"]); got != 102 {
				t.Errorf("%d rows, want 102", got)
			}
		})
	}
}
