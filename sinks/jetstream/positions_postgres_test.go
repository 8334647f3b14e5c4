package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// Each run hears what was committed since the last one, once, and the slot waits
// for what is stored in the bucket.
func TestNameInABucketGoesOnAcrossRunsOnPostgres(t *testing.T) {
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE seats (id serial PRIMARY KEY)")
	server := natstest.Run(t)
	state := t.TempDir()
	var heard listenertest.Recorder
	rows := 0
	insert := func(n int) {
		t.Helper()
		rows += n
		pgtest.Exec(t, db, fmt.Sprintf("INSERT INTO seats SELECT FROM generate_series(1, %d)", n))
	}
	for round := range 4 {
		src, err := cdc.New(db, &cdc.Options{StateDir: state, Snapshot: cdc.SnapshotNever})
		if err != nil {
			t.Fatal(err)
		}
		nc := connect(t, server)
		sub, err := src.Subscribe("mails", &heard, &listeners.SubscribeOptions{
			Positions: newPositions(t, nc, &jetstream.PositionsOptions{Lease: time.Second}), SaveInterval: 10 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		ran := make(chan error, 1)
		go func() { ran <- src.Run(ctx) }()
		err = src.CaughtUp(ctx)
		if round != 2 { // in which nothing happens
			insert(3)
			err = errors.Join(err, src.CaughtUp(ctx))
		}
		if saved, saveErr := sub.Saved(); saved != sub.Handled() || saveErr != nil {
			t.Errorf("round %d: caught up, and Saved() = %s, %v; want %s", round, saved, saveErr, sub.Handled())
		}
		if round == 1 {
			nc.Close() // as a process does that dies: the name is not let go
		}
		cancel()
		if runErr := <-ran; err != nil || runErr != nil && round != 1 {
			t.Fatalf("round %d: %v, Run = %v", round, err, runErr)
		}
		insert(2) // while nobody listens
	}
	rows -= 2 // those after the last run
	for i, e := range heard.Events() {
		if want := fmt.Sprint(i + 1); e.Key != want {
			t.Fatalf("event %d is of row %s, want %s", i+1, e.Key, want)
		}
	}
	if n := len(heard.Events()); n != rows {
		t.Errorf("heard %d rows, want %d", n, rows)
	}
}
