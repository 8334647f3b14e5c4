package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/sinks"
)

// A child is a rowcall process.
type child struct {
	cmd *exec.Cmd
	log safeBuffer
}

// safeBuffer can be read while a process still writes to it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startRun starts "rowcall run" as a process of its own: this binary, under
// another name.
func startRun(t *testing.T, args ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command("rowcall", append([]string{"run"}, args...)...)}
	c.cmd.Stderr, c.cmd.Env = &c.log, append(os.Environ(), "GORACE="+raceOptions())
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() }) // has ended unless the test failed
	return c
}

// kill is kill -9.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill: %v; it wrote:\n%s", err, c.log.String())
	}
	if err := c.cmd.Wait(); err == nil || c.cmd.ProcessState.Exited() {
		t.Fatalf("rowcall had ended before it was killed (%v); it wrote:\n%s", err, c.log.String())
	}
}

// finish waits for exit code 0.
func (c *child) finish(t *testing.T) {
	t.Helper()
	timer := time.AfterFunc(4*time.Minute, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("rowcall run %s = %v; it wrote:\n%s", strings.Join(c.cmd.Args[2:], " "), err, c.log.String())
	}
}

// passes waits until the slot is confirmed behind what is in the WAL now.
func (c *child) passes(t *testing.T, databaseURL string) {
	t.Helper()
	var mark string
	pgtest.Eventually(t, patience, func() error {
		ctx := t.Context()
		if mark == "" {
			at, err := query(ctx, databaseURL, "SELECT pg_current_wal_lsn()")
			mark = strings.TrimSpace(at)
			return cmp.Or(err, errors.New("not asked yet"))
		}
		out, err := query(ctx, databaseURL, fmt.Sprintf("SELECT confirmed_flush_lsn > '%s' FROM pg_replication_slots WHERE slot_name = 'rowcall_%s' AND confirmed_flush_lsn IS NOT NULL",
			mark, databaseOf(t, databaseURL)))
		if err == nil && strings.TrimSpace(out) != "t" {
			err = fmt.Errorf("the slot is not confirmed behind %s; rowcall wrote:\n%s", mark, c.log.String())
		}
		return err
	})
}

func databaseOf(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// verify fails the test unless the messages hold the history.
func (h *history) verify(t *testing.T, messages []sinks.Message) {
	t.Helper()
	ledger := h.ledger(t)
	t.Logf("%d messages, %d changes in the ledger", len(messages), len(ledger))
	if err := compare(messages, ledger); err != nil {
		t.Error(err)
	}
}

func TestKillNineLosesNothingDoublesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	databaseURL := pgtest.Database(t)
	h := startHistory(t, databaseURL)
	dir := t.TempDir()
	args := []string{"--database-url", databaseURL, "--tables", publishedTables, "--nats-port", "0", "--data-dir", dir}
	r := rand.New(rand.NewPCG(h.seed, 99))
	snapshots := 0
	for i := range 20 {
		c := startRun(t, args...)
		wait(t, 100*time.Millisecond+time.Duration(r.IntN(1400))*time.Millisecond)
		c.kill(t)
		log := c.log.String()
		if strings.Contains(log, "snapshot begins") && !strings.Contains(log, "created slot") {
			snapshots++
		}
		if i == 12 && !strings.Contains(log, "found slot") {
			// So that most of the kills hit the stream, on however slow a machine.
			startRun(t, append(args, "--until-caught-up")...).finish(t)
		}
	}
	h.end()
	startRun(t, append(args, "--until-caught-up")...).finish(t)
	t.Logf("%d of the kills were in the snapshot", snapshots)

	server := natstest.RunWith(t, &natsserver.Options{Dir: dir})
	h.verify(t, readStream(t, natstest.Connect(t, server), databaseOf(t, databaseURL)))
}

func TestPostgresRestartsLoseNothingDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	postgres := pgtest.Own(t, nil)
	pgtest.Exec(t, postgres.URL("postgres"), "CREATE DATABASE shop")
	h := startHistory(t, postgres.URL("shop"))
	server := natstest.Run(t)
	args := []string{"--database-url", postgres.URL("shop"), "--tables", publishedTables, "--nats-url", server.URL(), "--state-dir", t.TempDir()}
	c := startRun(t, args...)
	c.passes(t, postgres.URL("shop"))
	r := rand.New(rand.NewPCG(h.seed, 99))
	for _, mode := range []pgserver.Mode{pgserver.Fast, pgserver.Immediate, pgserver.Immediate, pgserver.Fast, pgserver.Immediate} {
		wait(t, time.Second+time.Duration(r.IntN(2000))*time.Millisecond)
		if err := postgres.Restart(t.Context(), mode); err != nil {
			t.Fatalf("%s restart: %v; rowcall wrote:\n%s", mode, err, c.log.String())
		}
	}
	c.passes(t, postgres.URL("shop"))
	h.end()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	c.finish(t)
	startRun(t, append(args, "--until-caught-up")...).finish(t)
	h.verify(t, readStream(t, natstest.Connect(t, server), "shop"))
}

func TestNATSOutageLosesNothingDoublesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	databaseURL := pgtest.Database(t)
	h := startHistory(t, databaseURL)
	opts := natsserver.Options{Dir: t.TempDir(), Port: freePort(t)}
	server := natstest.RunWith(t, &opts)
	args := []string{"--database-url", databaseURL, "--tables", publishedTables, "--nats-url", server.URL(), "--state-dir", t.TempDir()}
	c := startRun(t, args...)
	c.passes(t, databaseURL)
	server.Stop()
	wait(t, 20*time.Second)
	server = natstest.RunWith(t, &opts)
	c.passes(t, databaseURL)
	h.end()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	c.finish(t)
	startRun(t, append(args, "--until-caught-up")...).finish(t)
	h.verify(t, readStream(t, natstest.Connect(t, server), databaseOf(t, databaseURL)))
}
