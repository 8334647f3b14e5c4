package cdc_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

const (
	childURL  = "ROWCALL_TEST_CHILD_DATABASE_URL"
	childDir  = "ROWCALL_TEST_CHILD_DIR"
	childMode = "ROWCALL_TEST_CHILD_MODE"
)

// An effects listener writes each change into a table of the same database,
// whose changes nobody hears.
type effects struct {
	conn   *pgx.Conn
	atomic bool // with the position, in one transaction
}

func (e *effects) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if b.Kind != listeners.Changes {
		return nil
	}
	tx, err := e.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for i := range b.Events {
		if _, err := tx.Exec(ctx, "INSERT INTO effects SELECT $1::text::int", b.Events[i].Key().String()); err != nil {
			return err
		}
	}
	if e.atomic {
		if _, err := tx.Exec(ctx, "UPDATE progress SET at = $1", b.Position.String()); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// TestChildOfTheKillTest is a process that the test below starts and kills. By
// itself it does nothing.
func TestChildOfTheKillTest(t *testing.T) {
	url := os.Getenv(childURL)
	if url == "" {
		return
	}
	conn := pgtest.Connect(t, url)
	l := &effects{conn: conn, atomic: os.Getenv(childMode) == "atomic"}
	opts := &listeners.SubscribeOptions{}
	if l.atomic {
		var at string
		if err := conn.QueryRow(t.Context(), "SELECT at FROM progress").Scan(&at); err != nil {
			t.Fatal(err)
		}
		if at != "" {
			var err error
			if opts.From, err = listeners.ParsePosition(at); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		opts.Positions = listeners.NewFilePositions(filepath.Join(os.Getenv(childDir), "positions"))
	}
	src, err := cdc.New(url, &cdc.Options{
		StateDir: os.Getenv(childDir), Tables: []string{"public.seats"}, Snapshot: cdc.SnapshotNever, MaxBatchBytes: 2000,
	})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := src.Subscribe("effects", l, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(io.Discard, os.Stdin); err == nil && src.CaughtUp(ctx) == nil {
			cancel()
		}
	})
	defer wg.Wait()
	if err := errors.Join(src.Run(ctx), sub.Err()); err != nil {
		t.Fatal(err)
	}
}

// Processes die at any moment. Who stores its position together with its
// effects has each effect once; who leaves it to a store has it at least once,
// and after an orderly end once.
func TestEffectsSurviveKills(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"atomic", "named"} {
		t.Run(mode, func(t *testing.T) {
			url := pgtest.Database(t)
			conn := pgtest.Connect(t, url)
			for _, sql := range []string{
				"CREATE TABLE seats (id serial PRIMARY KEY, note text)", "CREATE TABLE effects (id int)",
				"CREATE TABLE progress (at text)", "INSERT INTO progress VALUES ('')",
			} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			dir := t.TempDir()
			random := rand.New(rand.NewPCG(1, 9))
			slot := func() error {
				if count(t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND NOT temporary") == 0 {
					return errors.New("there is no slot yet")
				}
				return nil
			}
			ctx, stop := context.WithCancel(t.Context())
			var writer sync.WaitGroup
			defer func() { stop(); writer.Wait() }()
			const rounds = 5
			killed := 0
			for round := range rounds {
				last := round == rounds-1
				cmd := osexec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildOfTheKillTest$")
				cmd.Env = append(os.Environ(), childURL+"="+url, childDir+"="+dir, childMode+"="+mode, "GORACE="+cmp.Or(os.Getenv("GORACE"), "atexit_sleep_ms=10")) // instead of a second
				out, err := os.Create(filepath.Join(dir, fmt.Sprint("child", round)))
				if err != nil {
					t.Fatal(err)
				}
				defer out.Close()
				said := func() string {
					text, _ := os.ReadFile(out.Name())
					return string(text)
				}
				cmd.Stdout, cmd.Stderr = out, out
				stdin, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				pgtest.Eventually(t, time.Minute, slot)
				if round == 0 {
					writer.Go(func() { writeSeats(ctx, t, url) })
				}
				before := count(t, conn, "SELECT count(*) FROM effects")
				pgtest.Eventually(t, time.Minute, func() error {
					if count(t, conn, "SELECT count(*) FROM effects") <= before {
						return fmt.Errorf("nothing has happened; the child said %s", said())
					}
					return nil
				})
				if last {
					stop()
					writer.Wait()
					if err := stdin.Close(); err != nil { // tells it to catch up and end
						t.Fatal(err)
					}
					if err := cmd.Wait(); err != nil {
						t.Fatalf("the last child: %v\n%s", err, said())
					}
					break
				}
				<-time.After(time.Duration(random.IntN(700)) * time.Millisecond)
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait() // killed
				killed++
			}
			missing := count(t, conn, "SELECT count(*) FROM seats s WHERE NOT EXISTS (SELECT FROM effects e WHERE e.id = s.id)")
			again := count(t, conn, "SELECT count(*) - count(DISTINCT id) FROM effects")
			seats := count(t, conn, "SELECT count(*) FROM seats")
			t.Logf("%d rows, %d kills, %d effects twice", seats, killed, again)
			if missing != 0 || seats == 0 {
				t.Errorf("%d of %d rows have no effect", missing, seats)
			}
			if mode == "atomic" && again != 0 {
				t.Errorf("%d effects are there twice", again)
			}
		})
	}
}

// writeSeats commits transactions, some of them in several batches, until ctx ends.
func writeSeats(ctx context.Context, t *testing.T, url string) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for i := 1; ctx.Err() == nil; i++ {
		n := 1
		if i%5 == 0 {
			n = 60
		}
		_, err := conn.Exec(ctx, "INSERT INTO seats (note) SELECT repeat('x', 100) FROM generate_series(1, $1::int)", n)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		timer := time.NewTimer(4 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
