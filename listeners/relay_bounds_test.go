package listeners_test

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
)

// A group may hold the end of what is handed over and the beginning of a
// transaction that waits behind a parked one.
func TestLaterPartsOfAParkedTransactionWaitInGroups(t *testing.T) {
	for name, first := range map[string][]*listeners.Batch{
		"one that is not parked comes first": {
			batch(3, created(seats, 9)),
			part(4, 1, true, false, created(seats, 1)),
		},
		"the rest of another transaction and more come first": {
			part(2, 2, false, true, created(seats, 8)),
			batch(3, created(seats, 9)),
			part(4, 1, true, false, created(seats, 1)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				c := newClerk()
				var told []uint64
				c.fails = func(_ context.Context, batches []*listeners.Batch) error {
					if len(batches) > 1 || batches[0].Position.Commit == 1 {
						return errOut // so that each comes singly
					}
					told = append(told, batches[0].Position.Commit)
					return nil
				}
				o := parks(listeners.RetryPolicy{})
				o.Group = &listeners.GroupPolicy{}
				sub := subscribe(t, f, "s", c, o, nil)
				c.gate = make(chan struct{})
				put(t, f, 1)
				c.gate <- struct{}{}
				wantParked(t, sub, "1:1#1!(s1)")
				f.Append(part(2, 1, true, len(first) == 2, created(seats, 7))) // what comes now waits behind it
				synctest.Wait()
				for _, b := range first {
					f.Append(b)
				}
				synctest.Wait()
				close(c.gate)
				synctest.Wait()
				f.Append(part(4, 2, false, true, created(seats, 2)))
				put(t, f, 5)
				wantParked(t, sub, "1:1#1!(s1), 2:4#0<1(s1), 3:4#0<2(s2)")
				want := []uint64{2, 3, 5}
				if len(first) == 3 {
					want = []uint64{2, 2, 3, 5}
				}
				if !slices.Equal(told, want) {
					t.Errorf("told %d, want %d", told, want)
				}
			})
		})
	}
}

// A worker that hangs must not make what its subscription does not want pile up.
func TestWhatWorkersDoNotWantTakesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		o := only("public.seats")
		o.Workers = 2
		sub := subscribe(t, f, "s", g, o, nil)
		put(t, f, 1)
		synctest.Wait()
		heap := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		const n = 30_001
		for c := range uint64(n) {
			// Also those that come in parts.
			f.Append(part(c+2, 1, true, c%3 != 0, created(trains, 1)))
			if c%3 == 0 {
				f.Append(part(c+2, 2, false, true, created(trains, 1)))
			}
			if c%1000 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if after := heap(); after > before+n*24 {
			t.Errorf("the heap grew by %d bytes for %d batches that nobody wants", after-before, n)
		}
		if l := sub.Lag(); l.Batches > 3 {
			t.Errorf("Lag() = %+v, want the one that is not handled and what stands for the others", l)
		}
		wantStored(t, sub, 0)
		g.pass <- struct{}{}
		synctest.Wait()
		if got, want := sub.Stored(), (listeners.Position{Epoch: 1, Commit: n + 1, Index: 2}); got != want {
			t.Errorf("Stored() = %s, want %s", got, want)
		}
	})
}

func TestParkedBatchWhoseRetryEndedTheGoroutineCanBeDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		l := newSick(1)
		fail := l.Err
		l.Err = func(b *listeners.Batch) error {
			if l.commits[99] {
				runtime.Goexit()
			}
			return fail(b)
		}
		sub := subscribe(t, f, "s", l, parks(listeners.RetryPolicy{}), nil)
		put(t, f, 1)
		wantParked(t, sub, "1:1#1!(s1)")
		l.commits[99] = true
		if err := sub.RetryParked(t.Context(), 1); err == nil {
			t.Error("RetryParked returned no error")
		}
		<-sub.Done()
		if err := sub.DiscardParked(1); err != nil {
			t.Errorf("DiscardParked = %v after the subscription ended, want nil", err)
		}
	})
}
