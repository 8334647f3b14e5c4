package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
)

// TestRandomHistory lets several connections write at random, tables change
// under them, and sources, walsenders and the server end in the middle. In the
// end, what a listener has stored equals the tables, and nothing came twice, in
// another order, or in half.
//
// ROWCALL_SEED repeats the decisions of a run, though not its timing.
// ROWCALL_SOAK, a duration, goes on with fresh seeds for that long.
func TestRandomHistory(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano()) & 0xffffffff
	if text := os.Getenv("ROWCALL_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("ROWCALL_SEED: %v", err)
		}
	}
	soak := os.Getenv("ROWCALL_SOAK")
	if soak == "" {
		playHistory(t, seed, 8*time.Second)
		return
	}
	long, err := time.ParseDuration(soak)
	if err != nil {
		t.Fatalf("ROWCALL_SOAK: %v", err)
	}
	for end := time.Now().Add(long); time.Now().Before(end); seed++ {
		if !t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { playHistory(t, seed, 20*time.Second) }) {
			t.Fatalf("repeat it with ROWCALL_SEED=%d", seed)
		}
	}
}

// randomOptions draws the options of one source.
func randomOptions(r *rand.Rand) *cdc.Options {
	pick := func(choices ...int) int { return choices[r.IntN(len(choices))] }
	return &cdc.Options{
		MaxBatchBytes:   pick(0, 2_000, 50_000),
		MaxBytes:        int64(pick(0, 30_000, 300_000)),
		CatchUpBytes:    int64(pick(-1, 1, 100_000)),
		MaxSpoolBytes:   pick(0, 1),
		SnapshotWorkers: pick(1, 4),
		Streaming:       []cdc.StreamingMode{cdc.StreamingOn, cdc.StreamingOn, cdc.StreamingOff}[r.IntN(3)],
	}
}

// A history is one play.
type history struct {
	t         *testing.T
	r         *rand.Rand
	server    *pgserver.Server
	url       string
	stateDir  string
	twoPhase  bool
	ledger    ledger
	committed atomic.Int64
	sources   int
	restarts  int
	cuts      int
}

func playHistory(t *testing.T, seed uint64, long time.Duration) {
	t.Logf("ROWCALL_SEED=%d", seed)
	h := &history{t: t, r: rand.New(rand.NewPCG(seed, 0))}
	if h.r.IntN(2) == 0 {
		h.stateDir = t.TempDir()
	}
	h.server = pgtest.Own(t, map[string]string{
		"logical_decoding_work_mem": "64kB", "deadlock_timeout": "50ms", "lock_timeout": "2s", "wal_sender_timeout": "5s", "synchronous_commit": "off",
		"max_prepared_transactions": "10",
	})
	h.url = h.server.URL("postgres")
	h.twoPhase = h.r.IntN(3) == 0 && serverVersion(t, h.url) >= 150000
	exec(t, pgtest.Connect(t, h.url), historyTables...)

	var writers sync.WaitGroup
	ctx, stop := context.WithTimeout(t.Context(), long+3*time.Minute)
	defer func() { stop(); writers.Wait() }()
	unique := new(atomic.Int64)
	unique.Store(1000)
	for i := range 3 {
		w := &historyWriter{r: rand.New(rand.NewPCG(seed, uint64(i)+1)), unique: unique, alter: i == 0}
		writers.Go(func() { h.write(ctx, w) })
	}
	enough := func() bool { return h.committed.Load() >= 50 && h.sources >= 3 } // on a slow machine, too
	for began := time.Now(); (time.Since(began) < long || !enough()) && ctx.Err() == nil && !t.Failed() && h.ledger.failed() == nil; {
		h.source(ctx)
	}
	stop()
	writers.Wait()
	if err := h.ledger.failed(); err != nil {
		t.Fatalf("ROWCALL_SEED=%d: %v", seed, err)
	}
	h.finish(seed)
	t.Logf("%d transactions, %d events, %d refused as stored, %d parts, %d snapshots; %d sources, %d walsenders cut, %d restarts of the server",
		h.committed.Load(), h.ledger.events, h.ledger.twins, h.ledger.parts, h.ledger.resets, h.sources, h.cuts, h.restarts)
	if !enough() {
		t.Errorf("ROWCALL_SEED=%d: too little happened", seed)
	}
}

// write makes transactions until ctx ends. None stays prepared.
func (h *history) write(ctx context.Context, w *historyWriter) {
	defer h.resolve(context.WithoutCancel(ctx), w)
	for ctx.Err() == nil {
		if w.conn == nil || w.conn.IsClosed() {
			conn, err := pgx.Connect(ctx, h.url+"?application_name=writer&default_query_exec_mode=exec")
			if err != nil {
				continue // the server is down for a moment
			}
			w.conn = conn
		}
		done, err := w.transaction(ctx)
		switch {
		case done && err == nil:
			h.committed.Add(1)
		case err != nil && ctx.Err() == nil && !retry(err):
			h.t.Errorf("writer: %v", err)
			return
		}
	}
	if w.conn != nil {
		_ = w.conn.Close(context.WithoutCancel(ctx))
	}
}

// resolve ends the transaction that a writer has left, over another connection.
func (h *history) resolve(ctx context.Context, w *historyWriter) {
	if w.prepared == "" {
		return
	}
	pgtest.Eventually(h.t, time.Minute, func() (err error) {
		if w.conn, err = pgx.Connect(ctx, h.url); err != nil {
			return err
		}
		defer w.conn.Close(ctx)
		_, err = w.resolve(ctx)
		return err
	})
}

// source runs one source, with incidents, and ends it in one way or another.
func (h *history) source(ctx context.Context) {
	_, s, end := h.start()
	defer end()
	for range h.r.IntN(4) {
		if !h.wait(ctx, time.Duration(h.r.IntN(700))*time.Millisecond) {
			return
		}
		switch h.r.IntN(5) {
		case 0:
			h.restart(ctx)
		case 1, 2:
			h.cut(ctx)
		}
	}
	h.wait(ctx, time.Duration(h.r.IntN(300))*time.Millisecond)
	if h.r.IntN(2) == 0 {
		s.crash()
	}
}

// wait returns false when ctx ended first or something is wrong.
func (h *history) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return h.ledger.failed() == nil
}

func (h *history) restart(ctx context.Context) {
	mode := pgserver.Fast
	if h.r.IntN(2) == 0 {
		mode = pgserver.Immediate
	}
	h.restarts++
	if err := h.server.Restart(context.WithoutCancel(ctx), mode); err != nil {
		h.t.Errorf("restart (%s): %v", mode, err)
	}
}

// cut ends the connections of the source, and now and then all of them.
func (h *history) cut(ctx context.Context) {
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	h.cuts++
	victims := "backend_type = 'walsender'"
	if h.r.IntN(3) == 0 {
		victims = "application_name = 'rowcall'"
	}
	_, _ = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "+victims)
}

// start runs a source with a listener for the ledger. The function it returns
// ends it and looks at how it ended.
func (h *history) start() (*cdc.Source, *session, func()) {
	h.sources++
	opts := randomOptions(h.r)
	opts.StateDir, opts.TwoPhase = h.stateDir, h.twoPhase && h.r.IntN(4) > 0
	opts.SlotWait = time.Minute
	var log lockedBuffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	number := h.sources
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.t.Logf("source %d, %+v:\n%s", number, *opts, log.String())
		}
	})
	src, err := cdc.New(h.url, opts)
	if err != nil {
		h.t.Fatal(err)
	}
	s := &session{ledger: &h.ledger, late: h.r.IntN(2) == 0}
	if _, err := src.Subscribe("ledger", s, nil); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	var running sync.WaitGroup
	r := rand.New(rand.NewPCG(h.r.Uint64(), 0))
	if s.late {
		running.Go(func() { s.storeFor(ctx, r) })
	}
	running.Go(func() {
		err := src.Run(ctx)
		var slot *cdc.SlotError
		var decode *cdc.DecodeError
		began := false
		select {
		case <-src.Ready():
			began = true
		default: // the server was down, or went down, before it was ready
		}
		switch {
		case err == nil, errors.Is(err, errCrashed), h.ledger.failed() != nil:
		case began, errors.As(err, &slot), errors.As(err, &decode):
			h.t.Errorf("source %d: Run = %v", number, err)
		}
	})
	return src, s, func() { cancel(); running.Wait() }
}

// finish lets a last source read what is left and compares the tables.
func (h *history) finish(seed uint64) {
	src, _, end := h.start()
	defer end()
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Minute)
	defer cancel()
	select {
	case <-src.Ready():
	case <-ctx.Done(): // Run has ended, perhaps, and start has told why
	}
	if err := src.CaughtUp(ctx); err != nil {
		h.t.Fatalf("ROWCALL_SEED=%d: CaughtUp: %v; the ledger: %v", seed, err, h.ledger.failed())
	}
	conn := pgtest.Connect(h.t, h.url)
	for _, table := range []string{"a", "f", "log", "p", "tx"} {
		rows, err := conn.Query(h.t.Context(), "SELECT to_jsonb(t)::text FROM "+table+" t")
		if err != nil {
			h.t.Fatal(err)
		}
		docs, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			h.t.Fatal(err)
		}
		if err := h.ledger.diff("public."+table, docs); err != nil {
			h.t.Errorf("ROWCALL_SEED=%d: %v", seed, err)
		}
	}
	if err := h.ledger.verdict(); err != nil {
		h.t.Errorf("ROWCALL_SEED=%d: %v", seed, err)
	}
}
