package listenertest_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A row holds texts; "" is NULL and "?" is unchanged.
type row []string

var seats = listeners.NewSchema("shop", "public", "seats", []listeners.Column{{Name: "id", Key: true}, {Name: "price"}})

func (r row) Schema() *listeners.Schema { return seats }

func (r row) State(i int) listeners.State {
	switch r[i] {
	case "?":
		return listeners.Unchanged
	case "":
		return listeners.Null
	}
	return listeners.Present
}

func (r row) Text(i int) []byte {
	if r.State(i) != listeners.Present {
		return nil
	}
	return []byte(r[i])
}

func (r row) AppendJSON(dst []byte, i int) []byte {
	if r.State(i) != listeners.Present {
		return append(dst, "null"...)
	}
	return append(dst, r[i]...)
}

func (r row) Scan(int, any) error { return errors.New("not used here") }

func seat(values ...string) listeners.Record { return listeners.NewRecord(row(values)) }

func at(commit uint64) listeners.Position { return listeners.Position{Epoch: 1, Commit: commit} }

func TestRecorderRemembersPlainValues(t *testing.T) {
	var rec listenertest.Recorder
	tx := listeners.Tx{ID: 7, Time: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	for _, b := range []*listeners.Batch{
		{Kind: listeners.Reset, Position: at(1), First: true, Last: true},
		{Tx: tx, Position: at(2), First: true, Events: []listeners.Event{
			{Op: listeners.Create, Cause: listeners.CauseLoad, Schema: seats, Position: at(2), After: seat("1", "10")},
			{Op: listeners.Update, Schema: seats, Before: seat("1", "10"), After: seat("2", "?")},
		}},
		{Tx: tx, Position: at(3), Last: true, Events: []listeners.Event{
			{Op: listeners.Delete, Schema: seats, OldKey: seat("2", "?")},
			{Op: listeners.Truncate, Schema: seats},
		}},
	} {
		if err := rec.OnBatch(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	want := []listenertest.Batch{
		{Kind: listeners.Reset, Position: at(1), First: true, Last: true},
		{Tx: tx, Position: at(2), First: true, Events: []listenertest.Event{
			{Op: listeners.Create, Cause: listeners.CauseLoad, Collection: "public.seats", Key: "1", Position: at(2), Before: "null", After: `{"id":1,"price":10}`},
			{Op: listeners.Update, Collection: "public.seats", Key: "2", OldKey: "1", Before: `{"id":1,"price":10}`, After: `{"id":2}`, Unchanged: []string{"price"}},
		}},
		{Tx: tx, Position: at(3), Last: true, Events: []listenertest.Event{
			{Op: listeners.Delete, Collection: "public.seats", Key: "2", Before: "null", After: "null"},
			{Op: listeners.Truncate, Collection: "public.seats", Before: "null", After: "null"},
		}},
	}
	if diff := cmp.Diff(want, rec.Batches()); diff != "" {
		t.Errorf("Batches (-want +got):\n%s", diff)
	}
	events := rec.Events()
	if diff := cmp.Diff(append(want[1].Events, want[2].Events...), events); diff != "" {
		t.Errorf("Events (-want +got):\n%s", diff)
	}
	if got, want := events[0].String(), `create public.seats/1: null -> {"id":1,"price":10}`; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	rec.Batches()[0].Position = at(9)
	if got := rec.Batches()[0].Position; got != at(1) {
		t.Errorf("a change of what Batches returned changed the recorder: %s", got)
	}
}

func TestRecorderErrIsAskedFirst(t *testing.T) {
	failed := errors.New("no")
	rec := listenertest.Recorder{Err: func(b *listeners.Batch) error {
		if b.Position == at(2) {
			return failed
		}
		return nil
	}}
	for commit, want := range map[uint64]error{1: nil, 2: failed, 3: nil} {
		if err := rec.OnBatch(t.Context(), &listeners.Batch{Position: at(commit)}); !errors.Is(err, want) {
			t.Errorf("OnBatch(%d) = %v, want %v", commit, err, want)
		}
	}
	if n := len(rec.Batches()); n != 2 {
		t.Errorf("%d batches are recorded, want the 2 without an error", n)
	}
}

func TestWaitReturnsAsSoonAsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec listenertest.Recorder
		var wg sync.WaitGroup
		wg.Go(func() {
			for commit := range uint64(5) {
				time.Sleep(time.Second)
				event := listeners.Event{Op: listeners.Create, Schema: seats, After: seat("1", "10")}
				_ = rec.OnBatch(t.Context(), &listeners.Batch{Position: at(commit + 1), Events: []listeners.Event{event, event}})
			}
		})
		start := time.Now()
		batches, err := rec.Wait(t.Context(), func(b []listenertest.Batch) bool { return len(b) >= 2 })
		if err != nil || len(batches) != 2 || time.Since(start) != 2*time.Second {
			t.Errorf("Wait = %d batches, %v after %s; want 2 after 2s", len(batches), err, time.Since(start))
		}
		events, err := rec.WaitEvents(t.Context(), 7)
		if err != nil || len(events) != 8 || time.Since(start) != 4*time.Second {
			t.Errorf("WaitEvents(7) = %d events, %v after %s; want 8 after 4s", len(events), err, time.Since(start))
		}
		if _, err := rec.WaitEvents(t.Context(), 0); err != nil {
			t.Errorf("WaitEvents(0) = %v", err)
		}
		wg.Wait()
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec listenertest.Recorder
		if err := rec.OnBatch(t.Context(), &listeners.Batch{Position: at(1)}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		batches, err := rec.Wait(ctx, func([]listenertest.Batch) bool { return false })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "after 1 batches") || len(batches) != 1 {
			t.Errorf("Wait = %d batches, %v; want the one there is and the context's end", len(batches), err)
		}
		if events, err := rec.WaitEvents(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || len(events) != 0 {
			t.Errorf("WaitEvents = %d events, %v; want none and the context's end", len(events), err)
		}
	})
}

// Many wait while one records.
func TestRecorderIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec listenertest.Recorder
		var wg sync.WaitGroup
		const n = 200
		for want := range n {
			wg.Go(func() {
				if _, err := rec.Wait(t.Context(), func(b []listenertest.Batch) bool { return len(b) > want }); err != nil {
					t.Error(err)
				}
			})
		}
		for commit := range uint64(n) {
			_ = rec.OnBatch(t.Context(), &listeners.Batch{Position: at(commit + 1)})
		}
		wg.Wait()
	})
}
