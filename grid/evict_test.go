package grid_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

func TestTheLeastRecentlyUsedEntryIsEvicted(t *testing.T) {
	for name, c := range map[string]struct {
		use  func(context.Context, *grid.Grid, *grid.Region[string, int]) error
		want string // what is evicted when d joins a, b and c
	}{
		"nothing was used": {func(context.Context, *grid.Grid, *grid.Region[string, int]) error { return nil }, "evict delete a 1 0"},
		"got": {func(_ context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			r.Get("a")
			return nil
		}, "evict delete b 2 0"},
		"got as an entry": {func(_ context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			r.Entry("a")
			return nil
		}, "evict delete b 2 0"},
		"got in a transaction": {func(ctx context.Context, g *grid.Grid, r *grid.Region[string, int]) error {
			return g.Do(ctx, func(tx *grid.Tx) error { grid.In(tx, r).Get("a"); return nil })
		}, "evict delete b 2 0"},
		"got at one moment, which keeps the order of the writes": {func(_ context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			for _, k := range []string{"c", "b", "a"} {
				r.Get(k)
			}
			return nil
		}, "evict delete a 1 0"},
		"got at two moments": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			r.Get("b")
			r.Get("c")
			if _, err := r.Put(ctx, "c", 3); err != nil {
				return err
			}
			r.Get("a")
			return nil
		}, "evict delete b 2 0"},
		"written again": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.Update(ctx, "a", func(v int) (int, error) { return v, nil })
			return err
		}, "evict delete b 2 0"},
		"looked at in ways that do not count": {func(_ context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			r.Peek("a")
			r.Snapshot().Get("a")
			for range r.From("a") {
				break
			}
			return nil
		}, "evict delete a 1 0"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrid(t)
			r := open[string](t, g, "r", &grid.RegionOptions[int]{MaxEntries: 3})
			l := newTwin()
			for i, k := range []string{"a", "b", "c"} {
				put(t, r, k, i+1)
			}
			if err := c.use(deadline(t), g, r); err != nil {
				t.Fatal(err)
			}
			s := subscribe(t, r, l, current)
			live(t, s)
			pos := put(t, r, "d", 4)
			if err := s.Wait(deadline(t), r.Position()); err != nil {
				t.Fatal(err)
			}
			l.check(t, r, "write create d 0 4", c.want)
			if now := r.Position(); now.Commit != pos.Commit+1 || r.Len() != 3 {
				t.Errorf("Position() = %s with %d entries; want the transaction after the put at %s, and 3", now, r.Len(), pos)
			}
		})
	}
}

func TestATransactionOfMoreThanFitsEvictsItsOwnFirst(t *testing.T) {
	g := newGrid(t)
	r := open[string](t, g, "r", &grid.RegionOptions[int]{MaxEntries: 2})
	l := newTwin()
	s := subscribe(t, r, l, nil)
	put(t, r, "old", 9)
	err := g.Do(deadline(t), func(tx *grid.Tx) error {
		in := grid.In(tx, r)
		for i, k := range []string{"d", "a", "c", "b"} {
			if err := in.Put(k, i+1); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(deadline(t), r.Position()); err != nil {
		t.Fatal(err)
	}
	l.check(t, r, "write create old 0 9",
		"write create d 0 1", "write create a 0 2", "write create c 0 3", "write create b 0 4",
		"evict delete old 9 0", "evict delete d 1 0", "evict delete a 2 0")
	if want := []int{1, 4, 3}; !slices.Equal(l.batches, want) {
		t.Errorf("batches of %v events, want %v: the eviction is one transaction, after that which caused it", l.batches, want)
	}
}

func TestWhatHasToLeaveAnywayIsNotEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[string](t, newGrid(t), "r", &grid.RegionOptions[int]{MaxEntries: 2, FeedBytes: 1})
		l := newTwin()
		subscribe(t, r, l, nil)
		put(t, r, "a", 1)
		synctest.Wait()
		if _, err := r.PutTTL(deadline(t), "b", 2, time.Second); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		release, first := make(chan struct{}), true
		subscribe(t, r, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			if first {
				first = false
				<-release
				_, err := r.Put(ctx, "c", 3)
				return err
			}
			return nil
		}), nil)
		put(t, r, "a", 4)
		time.Sleep(2 * time.Second) // the sweeper waits for room
		close(release)
		synctest.Wait()
		l.check(t, r, "write create a 0 1", "write create b 0 2", "write update a 1 4", "write create c 0 3", "expire delete b 2 0")
	})
}

func TestARegionNeverShowsMoreThanItMayHold(t *testing.T) {
	const limit, writers = 50, 8
	g := newGrid(t)
	r := open[string](t, g, "r", &grid.RegionOptions[int]{MaxEntries: limit, TTL: 5 * time.Millisecond, Idle: 3 * time.Millisecond})
	l := newTwin()
	s := subscribe(t, r, l, current)
	live(t, s)
	ctx := deadline(t)
	// However slow what follows is: of these at least some are evicted.
	if _, err := r.PutAll(ctx, func(yield func(string, int) bool) {
		for i := 0; i < 2*limit && yield(fmt.Sprint("at once ", i), i+1); i++ {
		}
	}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reading, writing sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if s := r.Snapshot(); s.Len() > limit || i%16 == 0 && len(maps.Collect(s.All())) != s.Len() {
					t.Errorf("a snapshot of %d entries, want %d at most", s.Len(), limit)
					return
				}
				r.Get(fmt.Sprint(i % 100))
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for i := range 400 {
				k := fmt.Sprint((i*7 + w*13) % 100)
				var err error
				switch i % 8 {
				case 0:
					err = g.Do(ctx, func(tx *grid.Tx) error {
						in := grid.In(tx, r)
						v, _ := in.Get(k)
						return in.Put(k+"x", v+1)
					})
				case 1:
					_, _, err = r.Delete(ctx, k)
				case 2:
					_, err = r.PutTTL(ctx, k, i+1, time.Millisecond)
				case 3:
					if i%80 == 3 {
						_, err = r.Clear(ctx)
					}
				default:
					_, err = r.Put(ctx, k, i+1)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	wait(t, "the last entry to expire", func() bool { return r.Len() == 0 })
	if err := s.Wait(ctx, r.Position()); err != nil {
		t.Fatal(err)
	}
	l.check(t, r)
	causes := make(map[string]int)
	for _, h := range l.heard {
		causes[h[:5]]++
	}
	if causes["evict"] == 0 || causes["expir"] == 0 {
		t.Errorf("heard %v: want evictions and expirations among them", causes)
	}
}
