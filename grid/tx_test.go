package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func do(t *testing.T, g *grid.Grid, fn func(tx *grid.Tx) error) {
	t.Helper()
	if err := g.Do(deadline(t), fn); err != nil {
		t.Fatalf("Do() = %v, want nil", err)
	}
}

func TestATransactionIsOneBatchPerRegionWithTheNetEffect(t *testing.T) {
	g := newGrid(t)
	a, b := open[int, int](t, g, "a", nil), open[string, int](t, g, "b", nil)
	untouched := open[int, int](t, g, "c", nil)
	put(t, a, 1, 1)
	put(t, a, 2, 2)
	heard := map[string]*listenertest.Recorder{"a": {}, "b": {}, "c": {}}
	subscribe(t, a, heard["a"], nil)
	subscribe(t, b, heard["b"], nil)
	subscribe(t, untouched, heard["c"], nil)
	do(t, g, func(tx *grid.Tx) error {
		ta, tb := grid.In(tx, a), grid.In(tx, b)
		for _, err := range []error{
			ta.Put(3, 30), ta.Put(1, 10), ta.Put(3, 31), ta.Put(4, 40), tb.Insert("x", 1),
			grid.In(tx, a).Put(5, 50), ta.Put(2, 20), grid.In(tx, untouched).Put(1, 1),
		} {
			if err != nil {
				return err
			}
		}
		for _, k := range []int{2, 4, 99} {
			if existed, err := ta.Delete(k); err != nil || existed != (k != 99) {
				t.Errorf("Delete(%d) = %t, %v", k, existed, err)
			}
		}
		_, err := grid.In(tx, untouched).Delete(1)
		return err
	})
	put(t, untouched, 7, 7) // the first that its listener hears
	want := map[string][]string{
		"a": {
			`update a/1: {"key":1,"value":1} -> {"key":1,"value":10}`, `create a/3: null -> {"key":3,"value":31}`,
			`create a/5: null -> {"key":5,"value":50}`, `delete a/2: {"key":2,"value":2} -> null`,
		},
		"b": {`create b/x: null -> {"key":"x","value":1}`},
		"c": {`create c/7: null -> {"key":7,"value":7}`},
	}
	for name, rec := range heard {
		if _, err := rec.WaitEvents(deadline(t), len(want[name])); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range rec.Events() {
			got = append(got, e.String())
		}
		if diff := cmp.Diff(want[name], got); diff != "" || len(rec.Batches()) != 1 {
			t.Errorf("%s heard %d batches, want 1; events (-want +got):\n%s", name, len(rec.Batches()), diff)
		}
	}
	if pos := heard["a"].Batches()[0].Position; pos != a.Position() || pos.Commit != 3 || pos.Index != 3 {
		t.Errorf("the batch of a is at %s, the region at %s; want commit 3, index 3", pos, a.Position())
	}
	if got, want := maps.Collect(a.All()), map[int]int{1: 10, 3: 31, 5: 50}; !maps.Equal(got, want) || a.Len() != len(want) {
		t.Errorf("the region holds %v, Len() = %d; want %v", got, a.Len(), want)
	}
}

func TestATransactionReadsItsOwnWrites(t *testing.T) {
	g := newGrid(t)
	r := open[int, int](t, g, "r", nil)
	for k := range 6 {
		put(t, r, k*10, k)
	}
	do(t, g, func(tx *grid.Tx) error {
		in := grid.In(tx, r)
		_, err := in.Delete(20)
		for _, err := range []error{err, in.Put(-5, 1), in.Put(30, 33), in.Put(35, 1), in.Put(99, 1)} {
			if err != nil {
				return err
			}
		}
		if v, ok := in.Get(30); v != 33 || !ok {
			t.Errorf("Get(30) = %d, %t; want 33", v, ok)
		}
		if _, ok := in.Get(20); ok {
			t.Error("Get(20) finds what the transaction deleted")
		}
		var exists *grid.ExistsError
		if err := in.Insert(35, 2); !errors.As(err, &exists) {
			t.Errorf("Insert(35) = %v, want an ExistsError", err)
		}
		keys := func(seq func(func(int, int) bool)) (keys []int) {
			for k := range seq {
				keys = append(keys, k)
			}
			return keys
		}
		for name, tc := range map[string]struct{ got, want []int }{
			"All":             {keys(in.All()), []int{-5, 0, 10, 30, 35, 40, 50, 99}},
			"From(20)":        {keys(in.From(20)), []int{30, 35, 40, 50, 99}},
			"From(35)":        {keys(in.From(35)), []int{35, 40, 50, 99}},
			"Range(10, 40)":   {keys(in.Range(10, 40)), []int{10, 30, 35}},
			"Range(60, 1000)": {keys(in.Range(60, 1000)), []int{99}},
			"Range(-9, 0)":    {keys(in.Range(-9, 0)), []int{-5}},
		} {
			if !slices.Equal(tc.got, tc.want) {
				t.Errorf("%s = %v, want %v", name, tc.got, tc.want)
			}
		}
		n := 0
		for range in.All() {
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("All() went on for %d after a break", n)
		}
		if _, ok := r.Get(-5); ok || r.Len() != 6 {
			t.Error("others see the transaction before it has committed")
		}
		return nil
	})
}

func TestATransactionThatFailsOrPanicsDoesNothing(t *testing.T) {
	g := newGrid(t)
	a, b := open[int, int](t, g, "a", nil), open[int, int](t, g, "b", nil)
	put(t, a, 1, 1)
	at, bt := a.Position(), b.Position()
	scribble := func(tx *grid.Tx) {
		_ = grid.In(tx, a).Put(1, 2)
		_ = grid.In(tx, b).Put(1, 2)
	}
	no := errors.New("no")
	if err := g.Do(t.Context(), func(tx *grid.Tx) error { scribble(tx); return no }); err != no { //nolint:errorlint // as it is
		t.Errorf("Do() = %v, want the function's own error", err)
	}
	var kept *grid.TxRegion[int, int]
	func() {
		defer func() {
			if p := recover(); p != "boom" {
				t.Errorf("recovered %v, want the function's boom", p)
			}
		}()
		_ = g.Do(t.Context(), func(tx *grid.Tx) error { kept = grid.In(tx, a); scribble(tx); panic("boom") })
	}()
	if err := kept.Put(1, 3); !errors.Is(err, grid.ErrTxOver) {
		t.Errorf("Put after the transaction = %v, want ErrTxOver", err)
	}
	if v, _ := a.Get(1); v != 1 || a.Position() != at || b.Position() != bt || b.Len() != 0 {
		t.Errorf("a has %d at %s, b %d keys at %s; want nothing changed", v, a.Position(), b.Len(), b.Position())
	}
	do(t, g, func(tx *grid.Tx) error { scribble(tx); return nil }) // nothing stays locked
	if err := g.Do(t.Context(), func(*grid.Tx) error { return nil }); err != nil {
		t.Errorf("an empty transaction = %v, want nil", err)
	}
}

func TestTransactionsThatCannotCommitAnywhereCommitNowhere(t *testing.T) {
	g, other := newGrid(t), newGrid(t)
	a, b := open[int, int](t, g, "a", nil), open[int, int](t, g, "b", nil)
	m, err := grid.Mirror[int, int](g, "m", b, nil)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, m)
	far := open[int, int](t, other, "far", nil)
	if err := b.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx  context.Context //nolint:containedctx // a table
		r    *grid.Region[int, int]
		want string
	}{
		"mirror":        {t.Context(), m, "read-only"},
		"closed":        {t.Context(), b, `transaction: region "b": closed`},
		"another grid":  {t.Context(), far, `region "far" is of grid "tickets": a transaction stays within one grid`},
		"ended context": {ended, a, context.Canceled.Error()},
	} {
		err := g.Do(tc.ctx, func(tx *grid.Tx) error {
			if err := grid.In(tx, a).Put(1, 1); err != nil {
				return err
			}
			return grid.In(tx, tc.r).Put(2, 2)
		})
		if err == nil || !strings.Contains(err.Error(), tc.want) || a.Len() != 0 {
			t.Errorf("%s: Do() = %v, and a has %d keys; want an error with %q and 0", name, err, a.Len(), tc.want)
		}
	}
	err = g.Do(t.Context(), func(tx *grid.Tx) error { // the misuse counts even if its errors do not
		grid.In(tx, far).Get(1)
		return grid.In(tx, a).Put(1, 1)
	})
	if err == nil || a.Len() != 0 {
		t.Errorf("Do() that reads a region of another grid = %v, want an error", err)
	}
	do(t, g, func(tx *grid.Tx) error {
		grid.In(tx, m).Get(1)
		grid.In(tx, b).Get(1)
		return grid.In(tx, a).Put(1, 1)
	})
}

func TestATransactionThatReadWhatOthersChangedRunsAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		read  func(in *grid.TxRegion[int, int])
		calls int
	}{
		"the key itself":        {func(in *grid.TxRegion[int, int]) { in.Get(1) }, 2},
		"an absent key":         {func(in *grid.TxRegion[int, int]) { in.Get(2) }, 2},
		"all":                   {func(in *grid.TxRegion[int, int]) { in.All()(func(int, int) bool { return true }) }, 2},
		"whether it existed":    {func(in *grid.TxRegion[int, int]) { _, _ = in.Delete(1) }, 2},
		"another key":           {func(in *grid.TxRegion[int, int]) { in.Get(3) }, 1},
		"nothing, only written": {func(in *grid.TxRegion[int, int]) { _ = in.Put(1, 7); in.Get(1) }, 1},
	} {
		for _, failure := range []error{nil, errors.New("no")} {
			t.Run(fmt.Sprint(name, failure), func(t *testing.T) {
				g := newGrid(t)
				r := open[int, int](t, g, "r", nil)
				put(t, r, 1, 1)
				put(t, r, 3, 3)
				calls := 0
				err := g.Do(deadline(t), func(tx *grid.Tx) error {
					tc.read(grid.In(tx, r))
					if calls++; calls == 1 {
						put(t, r, 1, 5)
						put(t, r, 2, 5)
					}
					return failure
				})
				if !errors.Is(err, failure) || calls != tc.calls {
					t.Errorf("Do() = %v after %d calls, want %v after %d", err, calls, failure, tc.calls)
				}
			})
		}
	}
}

func TestConcurrentTransactionsAreAsIfOneAfterAnother(t *testing.T) {
	g := newGrid(t)
	banks := []*grid.Region[int, int]{open[int, int](t, g, "b0", nil), open[int, int](t, g, "b1", nil)}
	const accounts, each = 4, 100
	for _, b := range banks {
		for k := range accounts {
			put(t, b, k, each)
		}
	}
	heard := []*replica{{}, {}}
	for i, b := range banks {
		subscribe(t, b, heard[i], current)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 150 {
				from, to := banks[(w+i)%2], banks[w/2]
				err := g.Do(t.Context(), func(tx *grid.Tx) error {
					a, b := grid.In(tx, from), grid.In(tx, to)
					x, _ := a.Get(i % accounts)
					if err := a.Put(i%accounts, x-1); err != nil {
						return err
					}
					y, _ := b.Get((i + w) % accounts)
					return b.Put((i+w)%accounts, y+1)
				})
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			sum := 0
			err := g.Do(t.Context(), func(tx *grid.Tx) error {
				sum = 0
				for _, b := range banks {
					for k := range accounts {
						v, _ := grid.In(tx, b).Get(k)
						sum += v
					}
				}
				return nil
			})
			if want := 2 * accounts * each; err != nil || sum != want {
				t.Errorf("a reading transaction found %d in all (%v), want %d", sum, err, want)
			}
		}
	})
	wg.Wait()
	sum := 0
	for i, b := range banks {
		for _, v := range b.All() {
			sum += v
		}
		heard[i].check(t, b.Name(), maps.Collect(b.All()), b.Position())
	}
	if want := 2 * accounts * each; sum != want {
		t.Errorf("the accounts hold %d in all, want %d", sum, want)
	}
}

func TestAListenerMayRunTransactionsOnTheRegionItHears(t *testing.T) {
	g := newGrid(t)
	a := open[int, int](t, g, "a", &grid.RegionOptions[int]{FeedBytes: 1})
	b := open[int, int](t, g, "b", nil)
	done := make(chan struct{})
	subscribe(t, a, listeners.Handlers[int]{OnCreate: func(ctx context.Context, c listeners.Change[int]) error {
		k, err := strconv.Atoi(c.Key)
		if err != nil {
			return err
		}
		if k == 20 {
			close(done)
			return nil
		}
		return g.Do(ctx, func(tx *grid.Tx) error {
			if err := grid.In(tx, b).Put(k, k); err != nil {
				return err
			}
			return grid.In(tx, a).Put(k+1, k)
		})
	}}, nil)
	put(t, a, 0, 0)
	select {
	case <-done:
	case <-deadline(t).Done():
		t.Fatalf("the listener waits for itself; the region is at %s", a.Position())
	}
	if b.Len() != 20 {
		t.Errorf("the other region has %d keys, want 20", b.Len())
	}
}
