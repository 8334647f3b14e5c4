package cdc_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A running source of a test.
type running struct {
	*cdc.Source
	t      testing.TB
	cancel context.CancelFunc
	result chan error
}

// run starts a source and stops it at the end of the test at the latest.
func run(t testing.TB, url string, opts *cdc.Options, subscribe func(*cdc.Source)) *running {
	t.Helper()
	if opts == nil {
		opts = &cdc.Options{}
	}
	if testing.Verbose() && opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	src, err := cdc.New(url, opts)
	if err != nil {
		t.Fatal(err)
	}
	subscribe(src)
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Source: src, t: t, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-r.result:
		case <-time.After(time.Minute):
			t.Error("Run did not return after its context ended")
		}
	})
	return r
}

// stop ends the run and fails the test if it ended badly.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := r.ended(); err != nil {
		r.t.Fatalf("Run returned %v, want nil after its context ended", err)
	}
}

// ended waits for Run's result.
func (r *running) ended() error {
	r.t.Helper()
	select {
	case err := <-r.result:
		r.result <- err
		return err
	case <-time.After(time.Minute):
		r.t.Fatal("Run does not return")
		return nil
	}
}

// caughtUp waits until everything committed so far has arrived.
func (r *running) caughtUp() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if err := r.CaughtUp(ctx); err != nil {
		r.t.Fatalf("CaughtUp: %v", err)
	}
}

// record subscribes a recorder under its own name.
func record(t testing.TB, rec *listenertest.Recorder, opts *listeners.SubscribeOptions) func(*cdc.Source) {
	return func(src *cdc.Source) {
		if _, err := src.Subscribe("recorder", rec, opts); err != nil {
			t.Fatal(err)
		}
	}
}

func exec(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// lines are the events in one readable line each.
func lines(events []listenertest.Event) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.String()
	}
	return out
}

func TestMain(m *testing.M) { pgtest.Main(m) }

func restart(t testing.TB, srv *pgserver.Server, mode pgserver.Mode) {
	t.Helper()
	if err := srv.Restart(t.Context(), mode); err != nil {
		t.Fatal(err)
	}
}
