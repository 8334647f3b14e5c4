package grid_test

import (
	"context"
	"errors"
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

// A twin is what a listener makes of a region's events, and their list.
type twin struct {
	mu      sync.Mutex
	state   map[string]int
	at      listeners.Position
	heard   []string // without the snapshot
	reads   int
	faults  []string
	batches []int // events in each batch of changes
}

func newTwin() *twin { return &twin{state: make(map[string]int)} }

func (l *twin) OnBatch(_ context.Context, b *listeners.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Position.Compare(l.at) < 0 || b.Kind == listeners.Changes && b.Position == l.at {
		l.faults = append(l.faults, fmt.Sprintf("position %s after %s", b.Position, l.at))
	}
	l.at = b.Position
	if b.Kind == listeners.Reset {
		clear(l.state)
	}
	if b.Kind == listeners.Changes {
		l.batches = append(l.batches, len(b.Events))
	}
	for i := range b.Events {
		if err := l.apply(&b.Events[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *twin) apply(e *listeners.Event) error {
	c, err := listeners.NewChange[int](e)
	if err != nil {
		return err
	}
	held, there := l.state[c.Key]
	switch e.Op {
	case listeners.Truncate:
		clear(l.state)
		l.heard = append(l.heard, "clear")
		return nil
	case listeners.Read:
		l.reads++
		l.state[c.Key] = c.After
		return nil
	case listeners.Delete:
		delete(l.state, c.Key)
	default:
		l.state[c.Key] = c.After
	}
	if there != (e.Op != listeners.Create) || c.Before != held {
		l.faults = append(l.faults, fmt.Sprintf("%s of %s from %d at %s, where there was %d", e.Op, c.Key, c.Before, e.Position, held))
	}
	l.heard = append(l.heard, fmt.Sprintf("%s %s %s %d %d", e.Cause, e.Op, c.Key, c.Before, c.After))
	return nil
}

// check reports what differs from what was expected to be heard, or from the
// region's snapshot, when the listener has caught up.
func (l *twin) check(t *testing.T, r *grid.Region[string, int], want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if want != nil && !slices.Equal(l.heard, want) {
		t.Errorf("heard %q,\nwant  %q", l.heard, want)
	}
	s := r.Snapshot()
	if held := maps.Collect(s.All()); !maps.Equal(l.state, held) || l.at != s.Position() || s.Len() != len(held) {
		t.Errorf("rebuilt %v at %s, the snapshot is %v of %d at %s", l.state, l.at, held, s.Len(), s.Position())
	}
	for _, fault := range l.faults {
		t.Error(fault)
	}
}

func wantValue(t *testing.T, r *grid.Region[string, int], k string, want int) {
	t.Helper()
	if v, ok := r.Get(k); v != want || ok != (want != 0) {
		t.Errorf("Get(%q) = %d, %t; want %d", k, v, ok, want)
	}
}

func TestAnEntryExpiresWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[string](t, newGrid(t), "r", &grid.RegionOptions[int]{TTL: time.Second})
		l := newTwin()
		subscribe(t, r, l, nil)
		put(t, r, "a", 1)
		time.Sleep(time.Second - 1)
		wantValue(t, r, "a", 1)
		time.Sleep(time.Nanosecond)
		wantValue(t, r, "a", 0)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		l.check(t, r, "write create a 0 1", "expire delete a 1 0")
		if n := r.Len(); n != 0 {
			t.Errorf("Len() = %d after the delete, want 0", n)
		}
		// The sweeper has ended, and another one begins.
		put(t, r, "b", 2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		l.check(t, r, "write create a 0 1", "expire delete a 1 0", "write create b 0 2", "expire delete b 2 0")
	})
}

func TestEveryWriteBeginsTheTimeAnew(t *testing.T) {
	for name, write := range map[string]func(context.Context, *grid.Grid, *grid.Region[string, int]) error{
		"put": func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.Put(ctx, "a", 2)
			return err
		},
		"update": func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.Update(ctx, "a", func(int) (int, error) { return 2, nil })
			return err
		},
		"compare and put": func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			e, _ := r.Entry("a")
			_, err := r.CompareAndPut(ctx, "a", e.Version, 2)
			return err
		},
		"put all": func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.PutAll(ctx, maps.All(map[string]int{"a": 2}))
			return err
		},
		"transaction": func(ctx context.Context, g *grid.Grid, r *grid.Region[string, int]) error {
			return g.Do(ctx, func(tx *grid.Tx) error { return grid.In(tx, r).Put("a", 2) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrid(t)
				r := open[string](t, g, "r", &grid.RegionOptions[int]{TTL: time.Second})
				l := newTwin()
				subscribe(t, r, l, nil)
				put(t, r, "a", 1)
				time.Sleep(600 * time.Millisecond)
				if err := write(deadline(t), g, r); err != nil {
					t.Fatal(err)
				}
				time.Sleep(900 * time.Millisecond)
				wantValue(t, r, "a", 2)
				time.Sleep(200 * time.Millisecond)
				wantValue(t, r, "a", 0)
				synctest.Wait()
				l.check(t, r, "write create a 0 1", "write update a 1 2", "expire delete a 2 0")
			})
		})
	}
}

func TestAnEntryMayHaveADurationOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrid(t)
		regions := make(map[string]*grid.Region[string, int])
		for name, opts := range map[string]*grid.RegionOptions[int]{"limited": {TTL: 10 * time.Second}, "unlimited": nil} {
			r := open[string](t, g, name, opts)
			regions[name] = r
			ctx := deadline(t)
			for k, ttl := range map[string]time.Duration{"short": time.Second, "long": time.Minute, "for ever": grid.Forever} {
				if _, err := r.PutTTL(ctx, k, 1, ttl); err != nil {
					t.Fatalf("PutTTL(%q, %s) = %v", k, ttl, err)
				}
			}
			err := g.Do(ctx, func(tx *grid.Tx) error { return grid.In(tx, r).PutTTL("tx", 1, time.Second) })
			if err != nil {
				t.Fatalf("PutTTL in a transaction = %v", err)
			}
			// A later write takes its own.
			for k, ttl := range map[string]time.Duration{"shorter": time.Second, "rewritten": 0} {
				if _, err := r.PutTTL(ctx, k, 1, 5*time.Second); err != nil {
					t.Fatal(err)
				}
				if ttl == 0 {
					put(t, r, k, 1)
				} else if _, err := r.PutTTL(ctx, k, 1, ttl); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range []struct {
			wait               time.Duration
			limited, unlimited []string
		}{
			{900 * time.Millisecond, []string{"for ever", "long", "rewritten", "short", "shorter", "tx"}, []string{"for ever", "long", "rewritten", "short", "shorter", "tx"}},
			{time.Second, []string{"for ever", "long", "rewritten"}, []string{"for ever", "long", "rewritten"}},
			{10 * time.Second, []string{"for ever", "long"}, []string{"for ever", "long", "rewritten"}},
			{time.Minute, []string{"for ever"}, []string{"for ever", "rewritten"}},
		} {
			time.Sleep(c.wait)
			synctest.Wait()
			for name, want := range map[string][]string{"limited": c.limited, "unlimited": c.unlimited} {
				r := regions[name]
				if got := slices.Sorted(maps.Keys(maps.Collect(r.All()))); !slices.Equal(got, want) || r.Len() != len(want) {
					t.Errorf("%s, %s later: %q of %d, want %q", name, c.wait, got, r.Len(), want)
				}
			}
		}
	})
}

func TestADurationMustBePositive(t *testing.T) {
	g := newGrid(t)
	r := open[string, int](t, g, "r", nil)
	if _, err := r.PutTTL(deadline(t), "a", 1, 0); err == nil {
		t.Error("PutTTL(0) = nil, want an error")
	}
	if err := g.Do(deadline(t), func(tx *grid.Tx) error { return grid.In(tx, r).PutTTL("a", 1, -1) }); err == nil {
		t.Error("PutTTL(-1) in a transaction = nil, want an error")
	}
	if r.Len() != 0 {
		t.Errorf("Len() = %d, want 0", r.Len())
	}
	_, err := grid.Open[string](g, "bad", &grid.RegionOptions[int]{TTL: -1, Idle: -1, MaxEntries: -1})
	var all interface{ Unwrap() []error }
	if !errors.As(err, &all) || len(all.Unwrap()) != 3 {
		t.Errorf("Open() with three impossible options = %v, want three faults", err)
	}
}

func TestAnIdleEntryExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrid(t)
		r := open[string](t, g, "r", &grid.RegionOptions[int]{Idle: time.Second})
		l := newTwin()
		subscribe(t, r, l, nil)
		keys := []string{"unused", "peeked", "listed", "got", "entry", "tx"}
		for i, k := range keys {
			put(t, r, k, i+1)
		}
		for range 5 {
			time.Sleep(300 * time.Millisecond)
			r.Peek("peeked")
			for range r.All() {
			}
			r.Get("got")
			r.Entry("entry")
			if err := g.Do(deadline(t), func(tx *grid.Tx) error { grid.In(tx, r).Get("tx"); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got, want := slices.Collect(maps.Keys(maps.Collect(r.All()))), 3; len(got) != want {
			t.Errorf("after 1.5 s there are %q, want got, entry and tx", got)
		}
		time.Sleep(1002 * time.Millisecond)
		synctest.Wait()
		l.check(t, r,
			"write create unused 0 1", "write create peeked 0 2", "write create listed 0 3",
			"write create got 0 4", "write create entry 0 5", "write create tx 0 6",
			"expire delete unused 1 0", "expire delete peeked 2 0", "expire delete listed 3 0",
			"expire delete got 4 0", "expire delete entry 5 0", "expire delete tx 6 0")
	})
}
