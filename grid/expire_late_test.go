package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// late opens a region of which a listener holds back the sweeper: its feed is
// full while the first callback runs. What the listener is given to do, it does
// within that callback, after the entries' time is up.
func late(t *testing.T, g *grid.Grid, keys []string, do func(context.Context, *grid.Region[string, int])) (*grid.Region[string, int], *twin) {
	t.Helper()
	r := open[string](t, g, "r", &grid.RegionOptions[int]{TTL: time.Second, FeedBytes: 1})
	l := newTwin()
	subscribe(t, r, l, nil)
	for i, k := range keys {
		put(t, r, k, i+1)
		synctest.Wait() // so that there is room again
	}
	release := make(chan struct{})
	first := true
	subscribe(t, r, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
		if first {
			first = false
			<-release
			do(ctx, r)
		}
		return nil
	}), nil)
	if _, err := r.PutTTL(deadline(t), "trigger", 99, grid.Forever); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
	if n := r.Len(); n != len(keys)+1 {
		t.Fatalf("Len() = %d while the sweeper waits for room, want %d", n, len(keys)+1)
	}
	close(release)
	synctest.Wait()
	return r, l
}

func TestAnEntryWhoseTimeIsUpIsNotReadThoughItsDeleteIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrid(t)
		var index *grid.Index[string, int, int]
		done := false
		r, l := late(t, g, []string{"a", "b"}, func(ctx context.Context, r *grid.Region[string, int]) {
			var err error
			if index, err = grid.NewIndex(r, "value", func(_ string, v int) (int, bool) { return v, true }, nil); err != nil {
				t.Error(err)
			}
			before := r.Position()
			wantValue(t, r, "a", 0)
			if v, ok := r.Peek("a"); ok {
				t.Errorf("Peek(a) = %d", v)
			}
			if e, ok := r.Entry("a"); ok {
				t.Errorf("Entry(a) = %v", e)
			}
			if e, ok := index.First(1); ok {
				t.Errorf("First(1) of the index = %v", e)
			}
			for name, all := range map[string]func(func(string, int) bool){
				"All": r.All(), "From": r.From("a"), "Range": r.Range("a", "z"), "index": index.From(0), "index range": index.Range(0, 100),
			} {
				if got := maps.Collect(all); !maps.Equal(got, map[string]int{"trigger": 99}) {
					t.Errorf("%s yields %v, want the trigger alone", name, got)
				}
			}
			if s := r.Snapshot(); s.Position() != before || !maps.Equal(maps.Collect(s.All()), map[string]int{"a": 1, "b": 2, "trigger": 99}) {
				t.Errorf("the snapshot is %v at %s, want all three at %s", maps.Collect(s.All()), s.Position(), before)
			}
			err = g.Do(ctx, func(tx *grid.Tx) error {
				in := grid.In(tx, r)
				if v, ok := in.Get("a"); ok {
					t.Errorf("Get(a) in a transaction = %d", v)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			done = true
		})
		if !done {
			t.Fatal("the listener was not called")
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		l.check(t, r, "write create a 0 1", "write create b 0 2", "write create trigger 0 99", "expire delete a 1 0", "expire delete b 2 0")
	})
}

func TestAQueryLeavesOutEntriesWhoseTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := false
		joined := []*twin{newTwin(), newTwin()}
		late(t, newGrid(t), []string{"a", "b"}, func(_ context.Context, r *grid.Region[string, int]) {
			done = true
			odd, err := grid.NewIndex(r, "odd", func(_ string, v int) (bool, bool) { return v%2 == 1, true }, nil)
			if err != nil {
				t.Error(err)
				return
			}
			byIndex, err := odd.Query("odd by index", true, nil)
			if err != nil {
				t.Error(err)
				return
			}
			byFunc, err := grid.NewQuery(r, "odd by function", func(_ string, v int) bool { return v%2 == 1 }, nil)
			if err != nil {
				t.Error(err)
				return
			}
			for i, q := range []*grid.Query[string, int]{byIndex, byFunc} {
				if got := maps.Collect(q.All()); !maps.Equal(got, map[string]int{"trigger": 99}) || q.Len() != 1 {
					t.Errorf("All() of %s = %v, Len() = %d; want the trigger alone", q.Name(), got, q.Len())
				}
				if v, ok := q.Get("a"); ok {
					t.Errorf("Get(a) of %s = %d", q.Name(), v)
				}
				live(t, subscribe(t, q, joined[i], current))
			}
		})
		if !done {
			t.Fatal("the listener was not called")
		}
		for _, l := range joined {
			if l.reads != 1 || len(l.heard) > 0 {
				t.Errorf("a joiner read %d entries and heard %q, want the trigger alone", l.reads, l.heard)
			}
		}
	})
}

func TestReadingAQueryIsNoUseOfAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[string](t, newGrid(t), "r", &grid.RegionOptions[int]{Idle: time.Second})
		q, err := grid.NewQuery(r, "all", func(string, int) bool { return true }, nil)
		if err != nil {
			t.Fatal(err)
		}
		put(t, r, "a", 1)
		time.Sleep(900 * time.Millisecond)
		if v, ok := q.Get("a"); v != 1 || !ok || q.Len() != 1 {
			t.Errorf("Get(a) = %d, %t, Len() = %d; want 1, true, 1", v, ok, q.Len())
		}
		time.Sleep(200 * time.Millisecond)
		if v, ok := q.Get("a"); ok {
			t.Errorf("Get(a) = %d after the idle time, want nothing", v)
		}
	})
}

func TestAWriteComesAfterTheEndOfWhatWasThere(t *testing.T) {
	began := []string{"write create a 0 1", "write create b 0 2", "write create trigger 0 99"}
	swept := []string{"expire delete b 2 0"}
	for name, c := range map[string]struct {
		write func(context.Context, *grid.Grid, *grid.Region[string, int]) error
		want  []string
	}{
		"put": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.PutTTL(ctx, "a", 5, grid.Forever)
			return err
		}, []string{"expire delete a 1 0", "write create a 0 5"}},
		"insert": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.Insert(ctx, "a", 5)
			return err
		}, []string{"expire delete a 1 0", "write create a 0 5"}},
		"compare with absent": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.CompareAndPut(ctx, "a", listeners.Position{}, 5)
			return err
		}, []string{"expire delete a 1 0", "write create a 0 5"}},
		"update": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			if _, err := r.Update(ctx, "a", func(v int) (int, error) { return v + 1, nil }); !errors.Is(err, grid.ErrNotFound) {
				return fmt.Errorf("Update() = %w, want ErrNotFound", err)
			}
			return nil
		}, []string{"expire delete a 1 0"}},
		"delete": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			if pos, existed, err := r.Delete(ctx, "a"); existed || err != nil {
				return fmt.Errorf("Delete() = %s, %t, %w; want it to be absent", pos, existed, err)
			}
			return nil
		}, []string{"expire delete a 1 0"}},
		"put all": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.PutAll(ctx, maps.All(map[string]int{"a": 5}))
			return err
		}, []string{"expire delete a 1 0", "write create a 0 5"}},
		"transaction": {func(ctx context.Context, g *grid.Grid, r *grid.Region[string, int]) error {
			return g.Do(ctx, func(tx *grid.Tx) error { return grid.In(tx, r).Insert("a", 5) })
		}, []string{"expire delete a 1 0", "write create a 0 5"}},
		"clear": {func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.Clear(ctx)
			return err
		}, []string{"clear"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrid(t)
				r, l := late(t, g, []string{"a", "b"}, func(ctx context.Context, r *grid.Region[string, int]) {
					if err := c.write(ctx, g, r); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				want := slices.Concat(began, c.want)
				if name != "clear" {
					want = append(want, swept...)
				}
				l.check(t, r, want...)
			})
		})
	}
}

func TestAUniqueValueIsFreeWhenItsHoldersTimeIsUp(t *testing.T) {
	for name, write := range map[string]func(context.Context, *grid.Grid, *grid.Region[string, int]) error{
		"put": func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.PutTTL(ctx, "z", 1, grid.Forever)
			return err
		},
		"transaction": func(ctx context.Context, g *grid.Grid, r *grid.Region[string, int]) error {
			return g.Do(ctx, func(tx *grid.Tx) error { return grid.In(tx, r).PutTTL("z", 1, grid.Forever) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrid(t)
				r, l := late(t, g, []string{"a"}, func(ctx context.Context, r *grid.Region[string, int]) {
					if _, err := grid.NewIndex(r, "value", func(_ string, v int) (int, bool) { return v, true }, &grid.IndexOptions{Unique: true}); err != nil {
						t.Error(err)
					}
					if err := write(ctx, g, r); err != nil {
						t.Errorf("a write with the value of an entry whose time is up: %v", err)
					}
				})
				l.check(t, r, "write create a 0 1", "write create trigger 0 99", "expire delete a 1 0", "write create z 0 1")
			})
		})
	}
}

// A write that comes upon an entry by its key and by its unique value is one of
// those that do.
func TestAnEntryThatIsMetTwiceEndsOnce(t *testing.T) {
	for name, write := range map[string]func(context.Context, *grid.Grid, *grid.Region[string, int]) error{
		"put": func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, int]) error {
			_, err := r.PutTTL(ctx, "a", 1, grid.Forever)
			return err
		},
		"transaction": func(ctx context.Context, g *grid.Grid, r *grid.Region[string, int]) error {
			return g.Do(ctx, func(tx *grid.Tx) error { return grid.In(tx, r).PutTTL("a", 1, grid.Forever) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrid(t)
				r, l := late(t, g, []string{"a"}, func(ctx context.Context, r *grid.Region[string, int]) {
					if _, err := grid.NewIndex(r, "value", func(_ string, v int) (int, bool) { return v, true }, &grid.IndexOptions{Unique: true}); err != nil {
						t.Error(err)
					}
					if err := write(ctx, g, r); err != nil {
						t.Errorf("a write of what is there, but whose time is up: %v", err)
					}
				})
				l.check(t, r, "write create a 0 1", "write create trigger 0 99", "expire delete a 1 0", "write create a 0 1")
			})
		})
	}
}

func TestWhoJoinsIsNotToldOfEntriesWhoseTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		joined := newTwin()
		r, l := late(t, newGrid(t), []string{"a", "b"}, func(_ context.Context, r *grid.Region[string, int]) {
			live(t, subscribe(t, r, joined, current))
		})
		if joined.reads != 1 {
			t.Errorf("a joiner read %d entries, want the trigger alone", joined.reads)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		joined.check(t, r)
		l.check(t, r)
		if len(joined.heard) > 0 {
			t.Errorf("a joiner heard %q of entries it was never told of", joined.heard)
		}
	})
}

func TestATransactionThatReadAnEntryIsCalledAgainWhenItsTimeIsUp(t *testing.T) {
	for name, read := range map[string]func(*grid.TxRegion[string, int]) int{
		"one": func(in *grid.TxRegion[string, int]) int { v, _ := in.Get("a"); return v },
		"all": func(in *grid.TxRegion[string, int]) int {
			sum := 0
			for _, v := range in.All() {
				sum += v
			}
			return sum
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGrid(t)
				r := open[string](t, g, "r", &grid.RegionOptions[int]{TTL: time.Second})
				out := open[string, int](t, g, "out", nil)
				put(t, r, "a", 7)
				var saw []int
				err := g.Do(deadline(t), func(tx *grid.Tx) error {
					v := read(grid.In(tx, r))
					saw = append(saw, v)
					time.Sleep(600 * time.Millisecond)
					if again := read(grid.In(tx, r)); again != v {
						t.Errorf("within a call, first %d, then %d", v, again)
					}
					if len(saw) == 1 {
						time.Sleep(600 * time.Millisecond)
					}
					return grid.In(tx, out).Put("sum", v)
				})
				if err != nil || !slices.Equal(saw, []int{7, 0}) {
					t.Errorf("Do() = %v; its calls read %v, want 7, then nothing", err, saw)
				}
				if v, ok := out.Get("sum"); !ok || v != 0 {
					t.Errorf("the transaction wrote %d, %t; want 0", v, ok)
				}
			})
		})
	}
}

func TestManyThatEndTogetherLeaveInBatchesOfAThousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[string](t, newGrid(t), "r", &grid.RegionOptions[int]{TTL: time.Second})
		_, err := r.PutAll(deadline(t), func(yield func(string, int) bool) {
			for i := range 2500 {
				if !yield(fmt.Sprint(i), i) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		l := newTwin()
		live(t, subscribe(t, r, l, current))
		time.Sleep(time.Second + 10*time.Millisecond)
		synctest.Wait()
		l.check(t, r)
		if want := []int{1000, 1000, 500}; !slices.Equal(l.batches, want) || r.Len() != 0 {
			t.Errorf("batches of %v deletes, %d entries left; want %v and none", l.batches, r.Len(), want)
		}
	})
}

func TestAnIndexThatIsMadeLaterForgetsEntriesThatExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open[string](t, newGrid(t), "r", &grid.RegionOptions[int]{TTL: time.Second, MaxEntries: 10})
		put(t, r, "a", 1)
		l := newTwin()
		live(t, subscribe(t, r, l, current))
		index, err := grid.NewIndex(r, "value", func(_ string, v int) (int, bool) { return v, true }, &grid.IndexOptions{Unique: true})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + 10*time.Millisecond)
		synctest.Wait()
		l.check(t, r, "expire delete a 1 0")
		put(t, r, "b", 1)
		if e, ok := index.First(1); !ok || e.Key != "b" {
			t.Errorf("First(1) = %v, %t; want b", e, ok)
		}
	})
}

func TestCloseEndsTheSweeperAlsoWhileItWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := grid.New("g", nil)
		r := open[string](t, g, "r", &grid.RegionOptions[int]{TTL: time.Second, FeedBytes: 1})
		hangs := subscribe(t, r, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			<-ctx.Done()
			return nil
		}), nil)
		put(t, r, "a", 1)
		time.Sleep(2 * time.Second)
		wantValue(t, r, "a", 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Close(ctx); err == nil {
			t.Error("Close() = nil, while a callback hangs")
		}
		<-hangs.Done() // and the bubble reports a goroutine that is left
	})
}
