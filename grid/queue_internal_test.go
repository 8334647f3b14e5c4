package grid

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// Writers that wait while another holds the region form one group.
func TestAGroupOfWritesKeepsEachOnesBatchAndCondition(t *testing.T) {
	g := New("g", nil)
	r, err := Open[int, int](g, "r", nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.Put(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var heard []listeners.Position
	_, err = r.Subscribe("s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		if len(b.Events) != 1 || !b.First || !b.Last || b.Tx.ID != b.Position.Commit {
			t.Errorf("batch %+v, want one event of its own transaction", b)
		}
		heard = append(heard, b.Position)
		return nil
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	const each = 2 * maxGroup / 3 // more in all than fit into one group
	var wg sync.WaitGroup
	var inserted, replaced, deleted, put atomic.Int64
	r.mu.Lock()
	for range each {
		wg.Go(func() {
			var exists *ExistsError
			_, err := r.Insert(t.Context(), 1, 1)
			switch {
			case err == nil:
				inserted.Add(1)
			case !errors.As(err, &exists) || exists.Version.IsZero():
				t.Errorf("Insert = %v, want nil or an ExistsError with a version", err)
			}
		})
		wg.Go(func() {
			var stale *VersionError
			_, err := r.CompareAndPut(t.Context(), 0, first, 1)
			switch {
			case err == nil:
				replaced.Add(1)
			case !errors.As(err, &stale):
				t.Errorf("CompareAndPut = %v, want nil or a VersionError", err)
			}
		})
		wg.Go(func() {
			pos, err := r.Put(t.Context(), 2, 2)
			if err != nil || pos.Commit < 2 {
				t.Errorf("Put = %s, %v", pos, err)
			}
			put.Add(1)
		})
		wg.Go(func() {
			if _, existed, err := r.Delete(t.Context(), 2); err != nil {
				t.Errorf("Delete = %v", err)
			} else if existed {
				deleted.Add(1)
			}
		})
	}
	give := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for waiting := 0; waiting < 4*each; {
		select {
		case <-tick.C:
		case <-give:
			t.Fatalf("%d of %d writers wait in the queue", waiting, 4*each)
		}
		r.queue.mu.Lock()
		waiting = len(r.queue.waiting)
		r.queue.mu.Unlock()
	}
	r.mu.Unlock()
	wg.Wait()
	if !r.queue.grouped.Load() {
		t.Error("writers that waited together did not form a group")
	}
	if inserted.Load() != 1 || replaced.Load() != 1 {
		t.Errorf("%d of the Inserts and %d of the CompareAndPuts succeeded, want 1 and 1", inserted.Load(), replaced.Load())
	}
	changes := inserted.Load() + replaced.Load() + put.Load() + deleted.Load()
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if int64(len(heard)) != changes || r.Position().Commit != uint64(changes)+1 {
		t.Errorf("heard %d batches up to %s, want %d", len(heard), r.Position(), changes)
	}
	for i, pos := range heard {
		if want := (listeners.Position{Epoch: first.Epoch, Commit: uint64(i) + 2}); pos != want {
			t.Fatalf("batch %d is at %s, want %s", i, pos, want)
		}
	}
	n := 0
	for range r.All() {
		n++
	}
	if n != r.Len() {
		t.Errorf("Len() = %d, All() yields %d", r.Len(), n)
	}
}
