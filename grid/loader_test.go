package grid_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

func newLoader[K comparable, V any](t *testing.T, r *grid.Region[K, V], load func(context.Context, K) (V, bool, error), opts *grid.LoaderOptions) *grid.Loader[K, V] {
	t.Helper()
	l, err := grid.NewLoader(r, load, opts)
	if err != nil {
		t.Fatalf("NewLoader() = %v, want no error", err)
	}
	return l
}

// loads checks what a Loader's Get returns.
func loads[K, V comparable](t *testing.T, l *grid.Loader[K, V], k K, want V, found bool) {
	t.Helper()
	if got, ok, err := l.Get(deadline(t), k); got != want || ok != found || err != nil {
		t.Errorf("Get(%v) = %v, %t, %v; want %v, %t, nil", k, got, ok, err, want, found)
	}
}

func TestALoadIsACreateWithItsCauseAndTag(t *testing.T) {
	r := open[string, int](t, newGrid(t), "r", nil)
	heard := new(tags)
	subscribe(t, r, heard, nil)
	calls := 0
	l := newLoader(t, r, func(_ context.Context, k string) (int, bool, error) { calls++; return len(k), true, nil }, nil)
	if v, ok, err := l.Get(grid.WithTag(deadline(t), "web"), "four"); v != 4 || !ok || err != nil {
		t.Errorf("Get(four) = %d, %t, %v; want 4, true, nil", v, ok, err)
	}
	loads(t, l, "four", 4, true)
	if v, ok := r.Get("four"); v != 4 || !ok || calls != 1 {
		t.Errorf("the region has %d, %t after %d calls of load; want 4, true after 1", v, ok, calls)
	}
	put(t, r, "four", 5)
	wait(t, "two events", func() bool { return len(heard.all()) == 2 })
	if got, want := heard.all(), []string{"load create web", "write update "}; !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}

func TestCallersWhoMissOneKeyShareALoad(t *testing.T) {
	for name, tc := range map[string]struct {
		found bool
		err   error
	}{
		"a value": {found: true}, "nothing": {}, "an error": {err: errors.New("store is down")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := open[int, int](t, newGrid(t), "r", nil)
				var calls atomic.Int32
				l := newLoader(t, r, func(context.Context, int) (int, bool, error) {
					calls.Add(1)
					time.Sleep(time.Second)
					return 7, tc.found, tc.err
				}, nil)
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						v, ok, err := l.Get(t.Context(), 1)
						if ok != tc.found || ok && v != 7 || !errors.Is(err, tc.err) {
							t.Errorf("Get() = %d, %t, %v; want found %t, error %v", v, ok, err, tc.found, tc.err)
						}
					})
				}
				wg.Wait()
				if n := calls.Load(); n != 1 {
					t.Errorf("load was called %d times, want 1", n)
				}
				if tc.found {
					return
				}
				// Neither an error nor, without NegativeTTL, an absence is remembered.
				_, _, _ = l.Get(t.Context(), 1)
				if n := calls.Load(); n != 2 {
					t.Errorf("load was called %d times after another Get, want 2", n)
				}
			})
		})
	}
}

func TestWhatWasNotFoundIsRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrid(t)
		r := open[int, int](t, g, "r", nil)
		var asked []int
		l := newLoader(t, r, func(_ context.Context, k int) (int, bool, error) { asked = append(asked, k); return 0, false, nil },
			&grid.LoaderOptions{NegativeTTL: time.Minute, MaxNegative: 2})
		look := func(what string, want int, keys ...int) {
			t.Helper()
			asked = nil
			for _, k := range keys {
				loads(t, l, k, 0, false)
			}
			if len(asked) != want {
				t.Errorf("%s: the store was asked for %v, want %d keys", what, asked, want)
			}
		}
		look("at first", 1, 1, 1)
		time.Sleep(59 * time.Second)
		look("within its time", 0, 1)
		time.Sleep(time.Second)
		look("after its time", 1, 1)
		look("with more than two", 3, 2, 3, 1)
		look("the latest two", 0, 3, 1)

		if _, existed, err := r.Delete(t.Context(), 1); existed || err != nil {
			t.Fatalf("Delete(1) = %t, %v", existed, err)
		}
		look("after a delete", 1, 1)
		do(t, g, func(tx *grid.Tx) error { _, err := grid.In(tx, r).Delete(1); return err })
		look("after a delete in a transaction", 1, 1)
		if _, err := r.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		look("after Clear", 1, 1)
		put(t, r, 1, 10)
		loads(t, l, 1, 10, true)
		if _, _, err := r.Delete(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		look("after a put and a delete", 1, 1)
	})
}

func TestAWriteWhileLoadRunsWins(t *testing.T) {
	write := map[string]struct {
		write func(context.Context, *grid.Grid, *grid.Region[int, string]) error
		want  string // by the one who waits
		after string // by who comes later, by a load of its own or not; "" for nobody
	}{
		"put": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[int, string]) error {
			_, err := r.Put(ctx, 1, "written")
			return err
		}, "written", "written"},
		"put all": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[int, string]) error {
			_, err := r.PutAll(ctx, func(yield func(int, string) bool) { yield(1, "written") })
			return err
		}, "written", "written"},
		"put and delete": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[int, string]) error {
			_, err := r.Put(ctx, 1, "written")
			_, _, err2 := r.Delete(ctx, 1)
			return errors.Join(err, err2)
		}, "loaded 2", "loaded 2"},
		"delete": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[int, string]) error {
			_, _, err := r.Delete(ctx, 1)
			return err
		}, "loaded 2", "loaded 2"},
		"delete and nobody asks again": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[int, string]) error {
			_, _, err := r.Delete(ctx, 1)
			return err
		}, "loaded 1", ""},
		"delete in a transaction": {func(ctx context.Context, g *grid.Grid, r *grid.Region[int, string]) error {
			return g.Do(ctx, func(tx *grid.Tx) error { _, err := grid.In(tx, r).Delete(1); return err })
		}, "loaded 2", "loaded 2"},
		"clear": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[int, string]) error {
			_, err := r.Clear(ctx)
			return err
		}, "loaded 2", "loaded 2"},
		"a write of another key": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[int, string]) error {
			_, err := r.Put(ctx, 2, "written")
			return err
		}, "loaded 1", "loaded 1"},
	}
	for name, tc := range write {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrid(t)
				r := open[int, string](t, g, "r", nil)
				calls := 0
				l := newLoader(t, r, func(context.Context, int) (string, bool, error) {
					if calls++; calls == 2 {
						return "loaded 2", true, nil
					}
					time.Sleep(time.Second)
					return "loaded 1", true, nil
				}, nil)
				var wg sync.WaitGroup
				wg.Go(func() { loads(t, l, 1, tc.want, true) })
				synctest.Wait()
				if err := tc.write(t.Context(), g, r); err != nil {
					t.Fatal(err)
				}
				if tc.after != "" {
					loads(t, l, 1, tc.after, true) // also while the first load runs
				}
				wg.Wait()
				if got, ok := r.Get(1); got != tc.after || ok != (tc.after != "") {
					t.Errorf("the region has %q, %t; want %q", got, ok, tc.after)
				}
			})
		})
	}
}

func TestACallersContextEndsItsOwnWaitOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[int, int](t, newGrid(t), "r", nil)
		var calls atomic.Int32
		l := newLoader(t, r, func(ctx context.Context, _ int) (int, bool, error) {
			n := calls.Add(1)
			select {
			case <-time.After(3 * time.Second):
				return int(n), true, nil
			case <-ctx.Done():
				return 0, false, ctx.Err()
			}
		}, nil)
		gone := errors.New("gone")
		get := func(patience time.Duration) error {
			ctx, cancel := context.WithTimeoutCause(t.Context(), patience, gone)
			defer cancel()
			v, ok, err := l.Get(ctx, 1)
			if err == nil && (v != 2 || !ok) {
				t.Errorf("Get() = %d, %t; want 2, true", v, ok)
			}
			return err
		}
		var wg sync.WaitGroup
		wg.Go(func() { // loads first
			if err := get(time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Get of who loads = %v, want load's %v", err, context.DeadlineExceeded)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if err := get(time.Minute); err != nil {
					t.Errorf("Get of who waits = %v, want nil", err)
				}
			})
		}
		wg.Go(func() {
			if err := get(500 * time.Millisecond); !errors.Is(err, gone) {
				t.Errorf("Get of the impatient = %v, want %v", err, gone)
			}
		})
		wg.Wait()
		if n := calls.Load(); n != 2 {
			t.Errorf("load was called %d times, want 2", n)
		}
	})
}

func TestAPanicOfLoadIsContainedAndGivenToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[int, int](t, newGrid(t), "r", nil)
		bad := true
		l := newLoader(t, r, func(context.Context, int) (int, bool, error) {
			time.Sleep(time.Second)
			if bad {
				panic("no store")
			}
			return 1, true, nil
		}, nil)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				var p *grid.LoadPanicError
				if _, ok, err := l.Get(t.Context(), 1); ok || !errors.As(err, &p) || p.Value != "no store" || len(p.Stack) == 0 {
					t.Errorf("Get() = %t, %v; want a LoadPanicError", ok, err)
				}
			})
		}
		wg.Wait()
		bad = false
		loads(t, l, 1, 1, true)
	})
}

func TestALoadThatEndsItsGoroutineEndsNobodyElsesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoader(t, open[int, int](t, newGrid(t), "r", nil), func(context.Context, int) (int, bool, error) {
			time.Sleep(time.Second)
			runtime.Goexit()
			return 1, true, nil
		}, nil)
		var wg sync.WaitGroup
		var failed atomic.Int32
		for range 3 {
			wg.Go(func() {
				if _, _, err := l.Get(t.Context(), 1); err != nil {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if n := failed.Load(); n != 2 {
			t.Errorf("%d calls returned an error, want the 2 whose goroutines are left", n)
		}
	})
}

func TestAListenerMayLoadIntoTheRegionItHears(t *testing.T) {
	r := open[int](t, newGrid(t), "r", &grid.RegionOptions[string]{FeedBytes: 1})
	l := newLoader(t, r, func(context.Context, int) (string, bool, error) { return "loaded", true, nil }, nil)
	done := make(chan error, 100)
	subscribe(t, r, listeners.Handlers[string]{OnCreate: func(ctx context.Context, c listeners.Change[string]) error {
		if c.Cause == listeners.CauseWrite {
			_, _, err := l.Get(ctx, 1)
			done <- err
		}
		return nil
	}}, nil)
	ctx := deadline(t)
	var wg sync.WaitGroup
	wg.Go(func() { _, _, _ = l.Get(ctx, 1) }) // the two may share a load
	for k := range 5 {
		put(t, r, 10+k, "written")
	}
	wg.Wait()
	for range 5 {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the listener's Get = %v, want nil", err)
			}
		case <-ctx.Done():
			t.Fatal("the listener waits for itself")
		}
	}
}

func TestALoadedEntryHasItsTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[int, int](t, newGrid(t), "r", nil)
		calls := 0
		l := newLoader(t, r, func(context.Context, int) (int, bool, error) { calls++; return calls, true, nil },
			&grid.LoaderOptions{TTL: time.Minute})
		loads(t, l, 1, 1, true)
		time.Sleep(time.Minute - 1)
		loads(t, l, 1, 1, true)
		time.Sleep(time.Nanosecond)
		loads(t, l, 1, 2, true)
	})
}

func TestLoaderErrors(t *testing.T) {
	g := newGrid(t)
	r := open[int, int](t, g, "r", nil)
	load := func(context.Context, int) (int, bool, error) { return 5, true, nil }
	for name, make := range map[string]func() error{
		"no function": func() error { _, err := grid.NewLoader(r, nil, nil); return err },
		"TTL":         func() error { _, err := grid.NewLoader(r, load, &grid.LoaderOptions{TTL: -1}); return err },
		"NegativeTTL": func() error { _, err := grid.NewLoader(r, load, &grid.LoaderOptions{NegativeTTL: -1}); return err },
		"MaxNegative": func() error { _, err := grid.NewLoader(r, load, &grid.LoaderOptions{MaxNegative: -1}); return err },
	} {
		if err := make(); err == nil {
			t.Errorf("NewLoader with a wrong %s = nil, want an error", name)
		}
	}
	m, err := grid.Mirror[int, int](g, "m", r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := grid.NewLoader(m, load, nil); !errors.Is(err, grid.ErrMirror) {
		t.Errorf("NewLoader(mirror) = %v, want %v", err, grid.ErrMirror)
	}
	var l *grid.Loader[int, int]
	l = newLoader(t, r, func(ctx context.Context, k int) (int, bool, error) { return l.Get(ctx, k) }, nil)
	if _, _, err := l.Get(deadline(t), 1); err == nil || deadline(t).Err() != nil {
		t.Errorf("Get of a load that asks for its own key = %v, want an error", err)
	}
	l = newLoader(t, r, load, nil)
	if _, err := grid.NewIndex(r, "value", func(_, v int) (int, bool) { return v, true }, &grid.IndexOptions{Unique: true}); err != nil {
		t.Fatal(err)
	}
	loads(t, l, 1, 5, true)
	var unique *grid.UniqueError
	if _, _, err := l.Get(deadline(t), 2); !errors.As(err, &unique) {
		t.Errorf("Get of a value that a unique index has = %v, want a UniqueError", err)
	}
	if err := r.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	loads(t, l, 1, 5, true)
	if _, _, err := l.Get(deadline(t), 3); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Get from a closed region = %v, want %v", err, grid.ErrClosed)
	}
}
