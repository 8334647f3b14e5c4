package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

func addWriter(t *testing.T, g *grid.Grid, name string, fn func(context.Context, *grid.Pending) error) (remove func()) {
	t.Helper()
	remove, err := g.AddWriter(name, fn)
	if err != nil {
		t.Fatalf("AddWriter(%q) = %v, want no error", name, err)
	}
	return remove
}

// pending says what a transaction is about to do to a region.
func pending(p *grid.Pending, r *grid.Region[string, int]) string {
	c := grid.Changing(p, r)
	var said []string
	if c.Cleared() {
		said = append(said, "clear")
	}
	for k, to := range c.All() {
		said = append(said, fmt.Sprintf("%s %s %d>%d", to.Op, k, to.Before, to.After))
	}
	return strings.Join(said, ",")
}

// A write is a way to write that writers are asked for.
type write struct {
	name, asked string // of region a, and if it has it of b behind a bar
	write       func(context.Context) error
}

// writes are to be done in their order, or each alone by a vetoed caller, on
// a region that has x.
func writes(g *grid.Grid, a, b *grid.Region[string, int]) []write {
	return []write{
		{"put", "create p 0>1", func(ctx context.Context) error { _, err := a.Put(ctx, "p", 1); return err }},
		{"put ttl", "create t 0>1", func(ctx context.Context) error { _, err := a.PutTTL(ctx, "t", 1, time.Hour); return err }},
		{"insert", "create i 0>1", func(ctx context.Context) error { _, err := a.Insert(ctx, "i", 1); return err }},
		{"compare and put", "update x 9>10", func(ctx context.Context) error {
			e, _ := a.Entry("x")
			_, err := a.CompareAndPut(ctx, "x", e.Version, 10)
			return err
		}},
		{"put all", "create m 0>1,create n 0>2", func(ctx context.Context) error {
			_, err := a.PutAll(ctx, maps.All(map[string]int{"n": 2, "m": 1}))
			return err
		}},
		{"do", "create d 0>1|create d 0>2", func(ctx context.Context) error {
			return g.Do(ctx, func(tx *grid.Tx) error {
				return errors.Join(grid.In(tx, a).Put("d", 1), grid.In(tx, b).Put("d", 2))
			})
		}},
		{"update", "update x %d>7", func(ctx context.Context) error {
			_, err := a.Update(ctx, "x", func(int) (int, error) { return 7, nil })
			return err
		}},
		{"delete", "delete x %d>0", func(ctx context.Context) error { _, _, err := a.Delete(ctx, "x"); return err }},
		{"clear", "clear", func(ctx context.Context) error { _, err := a.Clear(ctx); return err }},
	}
}

func TestAWriterIsAskedOnceForEachWrite(t *testing.T) {
	g := newGrid(t)
	a, b := open[string, int](t, g, "a", nil), open[string, int](t, g, "b", nil)
	put(t, a, "x", 9)
	var asked []string
	addWriter(t, g, "w", func(_ context.Context, p *grid.Pending) error {
		said := pending(p, a)
		if of := pending(p, b); of != "" {
			said += "|" + of
		}
		asked = append(asked, said+" "+p.Tag())
		return nil
	})
	var want []string
	before := map[string]int{"update": 10, "delete": 7}
	for _, w := range writes(g, a, b) {
		if err := w.write(grid.WithTag(deadline(t), w.name)); err != nil {
			t.Fatalf("%s = %v, want nil", w.name, err)
		}
		if v, ok := before[w.name]; ok {
			w.asked = fmt.Sprintf(w.asked, v)
		}
		want = append(want, w.asked+" "+w.name)
	}
	if _, _, err := a.Delete(deadline(t), "absent"); err != nil { // changes nothing
		t.Fatal(err)
	}
	if !slices.Equal(asked, want) {
		t.Errorf("the writer was asked for\n%q, want\n%q", asked, want)
	}
	if v, ok := b.Get("d"); a.Len() != 0 || v != 2 || !ok {
		t.Errorf("the regions have %d entries and %d, %t; want none after Clear, and 2", a.Len(), v, ok)
	}
}

func TestAVetoStoresNothing(t *testing.T) {
	g := newGrid(t)
	a, b := open[string, int](t, g, "a", nil), open[string, int](t, g, "b", nil)
	put(t, a, "x", 9)
	veto, later := errors.New("not today"), 0
	remove := addWriter(t, g, "first", func(context.Context, *grid.Pending) error { return veto })
	removeLater := addWriter(t, g, "later", func(context.Context, *grid.Pending) error { later++; return nil })
	at, atB := a.Position(), b.Position()
	for _, w := range writes(g, a, b) {
		if err := w.write(deadline(t)); !errors.Is(err, veto) || !strings.Contains(err.Error(), `writer "first"`) {
			t.Errorf("%s = %v, want the veto and the writer's name", w.name, err)
		}
	}
	if a.Position() != at || b.Position() != atB || later != 0 {
		t.Errorf("the regions went from %s, %s to %s, %s, and a later writer was asked %d times; want nothing", at, atB, a.Position(), b.Position(), later)
	}
	remove()
	remove()
	put(t, a, "p", 1)
	if removeLater(); later != 1 {
		t.Errorf("the writer that is left was asked %d times, want 1", later)
	}
	put(t, a, "p", 2)
	if later != 1 {
		t.Errorf("a writer that was removed was asked")
	}
}

func TestWritersChangeTheValueOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrid(t)
		a, b := open[string, int](t, g, "a", &grid.RegionOptions[int]{TTL: time.Hour}), open[string, int](t, g, "b", nil)
		byValue, err := grid.NewIndex(a, "value", func(_ string, v int) (int, bool) { return v, true }, nil)
		if err != nil {
			t.Fatal(err)
		}
		var kept grid.PendingRegion[string, int]
		change := func(by func(int) int) func(context.Context, *grid.Pending) error {
			return func(_ context.Context, p *grid.Pending) error {
				kept = grid.Changing(p, a)
				if err := kept.Set("absent", 1); err == nil {
					t.Error("Set of a key that is not written = nil, want an error")
				}
				for k, to := range kept.All() {
					if err := kept.Set(k, by(to.After)); (err != nil) != (to.Op == listeners.Delete) {
						t.Errorf("Set(%q) in a %s = %v", k, to.Op, err)
					}
				}
				return nil
			}
		}
		addWriter(t, g, "double", change(func(v int) int { return 2 * v }))
		addWriter(t, g, "and one", change(func(v int) int { return v + 1 }))
		put(t, a, "k", 5)
		put(t, b, "k", 5)
		if v, _ := a.Get("k"); v != 11 {
			t.Errorf("Get(k) = %d, want 11", v)
		}
		if e, ok := byValue.First(11); !ok || e.Key != "k" {
			t.Errorf("the index has %v, %t at 11; want k", e, ok)
		}
		if v, _ := b.Get("k"); v != 5 {
			t.Errorf("the other region has %d, want 5", v)
		}
		if err := kept.Set("k", 1); !errors.Is(err, grid.ErrTxOver) {
			t.Errorf("Set after the call = %v, want %v", err, grid.ErrTxOver)
		}
		for k, ttl := range map[string]time.Duration{"minute": time.Minute, "forever": grid.Forever} {
			if _, err := a.PutTTL(t.Context(), k, 1, ttl); err != nil {
				t.Fatal(err)
			}
		}
		stay := func(want ...string) {
			t.Helper()
			var got []string
			for k := range a.All() {
				got = append(got, k)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the region has %q, want %q", got, want)
			}
		}
		stay("forever", "k", "minute")
		time.Sleep(time.Minute)
		stay("forever", "k")
		time.Sleep(time.Hour)
		stay("forever")
		if _, existed, err := a.Delete(t.Context(), "forever"); !existed || err != nil {
			t.Errorf("Delete() = %t, %v", existed, err)
		}
	})
}

func TestAWriterIsAskedAgainIfTheBaseChanges(t *testing.T) {
	for _, name := range []string{"put", "compare and put", "update", "clear", "do"} {
		t.Run(name, func(t *testing.T) {
			g := newGrid(t)
			a, b := open[string, int](t, g, "a", nil), open[string, int](t, g, "b", nil)
			put(t, a, "x", 9)
			l := newLoader(t, a, func(context.Context, string) (int, bool, error) { return 3, true, nil }, nil)
			asked := 0
			// A load asks no writer, so it is a way to write from within one.
			addWriter(t, g, "w", func(ctx context.Context, _ *grid.Pending) error {
				if asked++; asked > 1 {
					return nil
				}
				_, _, err1 := l.Get(ctx, "p")
				_, _, err2 := l.Get(ctx, "d")
				return errors.Join(err1, err2, errors.New("a veto on what is no more"))
			})
			ws := writes(g, a, b)
			w := ws[slices.IndexFunc(ws, func(w write) bool { return w.name == name })]
			// These two are about x, which does not change.
			alone := name == "compare and put" || name == "update"
			if err := w.write(deadline(t)); (err != nil) != alone {
				t.Errorf("%s = %v, want an error %t", name, err, alone)
			}
			if want := map[bool]int{true: 1, false: 2}[alone]; asked != want {
				t.Errorf("the writer was asked %d times, want %d", asked, want)
			}
		})
	}
}

func TestWritesWithWritersAreAsIfOneAfterTheOther(t *testing.T) {
	g := newGrid(t)
	a := open[string, int](t, g, "a", nil)
	var asked atomic.Int64
	addWriter(t, g, "w", func(context.Context, *grid.Pending) error { asked.Add(1); return nil })
	put(t, a, "x", 0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := a.Update(deadline(t), "x", func(v int) (int, error) { return v + 1, nil }); err != nil {
					t.Errorf("Update() = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
	if v, _ := a.Get("x"); v != 200 || asked.Load() < 201 {
		t.Errorf("x is %d after %d questions, want 200 after 201 at least", v, asked.Load())
	}
}

func TestConditionsAndErrorsWithWriters(t *testing.T) {
	g := newGrid(t)
	a := open[string, int](t, g, "a", nil)
	asked := 0
	addWriter(t, g, "w", func(context.Context, *grid.Pending) error { asked++; return nil })
	at := put(t, a, "x", 1)
	if e, _ := a.Entry("x"); e.Version != at {
		t.Errorf("Put() = %s, want the version %s", at, e.Version)
	}
	var exists *grid.ExistsError
	if _, err := a.Insert(deadline(t), "x", 2); !errors.As(err, &exists) {
		t.Errorf("Insert() = %v, want an ExistsError", err)
	}
	var version *grid.VersionError
	if _, err := a.CompareAndPut(deadline(t), "x", listeners.Position{}, 2); !errors.As(err, &version) {
		t.Errorf("CompareAndPut() = %v, want a VersionError", err)
	}
	if _, err := a.Update(deadline(t), "y", func(v int) (int, error) { return v, nil }); !errors.Is(err, grid.ErrNotFound) {
		t.Errorf("Update() = %v, want %v", err, grid.ErrNotFound)
	}
	if asked != 1 {
		t.Errorf("the writer was asked %d times, want 1", asked)
	}
	if _, err := g.AddWriter("none", nil); err == nil {
		t.Error("AddWriter(nil) = nil, want an error")
	}
	if err := g.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Put(deadline(t), "x", 2); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Put into a closed region = %v, want %v", err, grid.ErrClosed)
	}
	if _, err := g.AddWriter("late", func(context.Context, *grid.Pending) error { return nil }); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("AddWriter of a closed grid = %v, want %v", err, grid.ErrClosed)
	}
}
