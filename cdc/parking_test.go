package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

func TestParkedBatchHoldsTheSlot(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)")
	var sick atomic.Bool
	var sub *listeners.Subscription
	l := listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		if b.Kind == listeners.Changes && sick.Load() {
			return errors.New("the printer is out of paper")
		}
		return nil
	})
	src := run(t, url, &cdc.Options{StateDir: t.TempDir()}, func(src *cdc.Source) {
		var err error
		sub, err = src.Subscribe("printer", l, &listeners.SubscribeOptions{Retry: &listeners.RetryPolicy{Attempts: 1, Park: true}})
		if err != nil {
			t.Fatal(err)
		}
	})
	src.caughtUp()
	sick.Store(true)
	exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
	parked := count(t, conn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
	pgtest.Eventually(t, time.Minute, func() error {
		if n := len(sub.Parked()); n != 1 {
			return fmt.Errorf("%d batches are parked, want 1", n)
		}
		return nil
	})
	sick.Store(false)
	exec(t, conn, "INSERT INTO seats DEFAULT VALUES")
	want := sub.Parked()[0].Batch.Position
	for range 20 { // each a round trip of the server, which hears of positions meanwhile
		exec(t, conn, "SELECT pg_sleep(0.1)")
		if got := count(t, conn, "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = $1", src.Slot()); got > int(want.Commit) {
			t.Fatalf("the slot is confirmed up to %d, the parked batch is at %d", got, want.Commit)
		}
	}
	if err := sub.RetryParked(t.Context(), sub.Parked()[0].ID); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, time.Minute, func() error { return slotPast(t, conn, src, "confirmed_flush_lsn", parked) })
}
