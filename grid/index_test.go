package grid_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rowcall/rowcall/grid"
)

type fare struct {
	Class string
	Price int
}

func bySold(_ string, s seat) (bool, bool) {
	return s.Sold, true
}

func byFare(_ string, s seat) (fare, bool) {
	return fare{s.Class, s.Price}, !s.Sold
}

func byValue(_, v int) (int, bool) {
	return v, v >= 0
}

func keysOf[K, V any](seq func(func(K, V) bool)) (keys []K) {
	for k := range seq {
		keys = append(keys, k)
	}
	return keys
}

func newIndex[K comparable, V any, I comparable](t *testing.T, r *grid.Region[K, V], name string, of func(K, V) (I, bool), opts *grid.IndexOptions) *grid.Index[K, V, I] {
	t.Helper()
	x, err := grid.NewIndex(r, name, of, opts)
	if err != nil {
		t.Fatalf("NewIndex(%q) = %v, want no error", name, err)
	}
	return x
}

var unique = &grid.IndexOptions{Unique: true} //nolint:gochecknoglobals // read-only

func TestAnIndexFindsByEqualityAndRange(t *testing.T) {
	r := open[string, seat](t, newGrid(t), "seats", nil)
	early := newIndex(t, r, "fare", byFare, nil)
	for k, s := range map[string]seat{
		"1A": {"first", 90, false}, "1B": {"first", 9, false}, "1C": {"first", 90, false}, "1D": {"first", 90, true},
		"2A": {"second", 40, false}, "2B": {"second", -5, false}, "2C": {"sec", 1000, false},
	} {
		put(t, r, k, s)
	}
	late := newIndex(t, r, "fare again", byFare, nil) // on what is there
	sold := newIndex(t, r, "sold", bySold, nil)
	put(t, r, "2A", seat{"second", 41, false}) // moves
	put(t, r, "2B", seat{"second", -5, true})  // leaves byFare
	put(t, r, "3A", seat{"third", 1, false})
	if _, _, err := r.Delete(t.Context(), "3A"); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]*grid.Index[string, seat, fare]{"early": early, "late": late} {
		for call, tc := range map[string]struct{ got, want []string }{
			"Equal(first 90)":              {keysOf(x.Equal(fare{"first", 90})), []string{"1A", "1C"}},
			"Equal(second 40)":             {keysOf(x.Equal(fare{"second", 40})), nil},
			"Equal(second -5)":             {keysOf(x.Equal(fare{"second", -5})), nil},
			"From(first 10)":               {keysOf(x.From(fare{"first", 10})), []string{"1A", "1C", "2C", "2A"}},
			"Range(first 9, first 90)":     {keysOf(x.Range(fare{"first", 9}, fare{"first", 90})), []string{"1B"}},
			"Range(sec 1000, second 41)":   {keysOf(x.Range(fare{"sec", 1000}, fare{"second", 41})), []string{"2C"}},
			"Range(first 91, first 90)":    {keysOf(x.Range(fare{"first", 91}, fare{"first", 90})), nil},
			"Range(second 41, second 500)": {keysOf(x.Range(fare{"second", 41}, fare{"second", 500})), []string{"2A"}},
		} {
			if !slices.Equal(tc.got, tc.want) {
				t.Errorf("%s: %s = %v, want %v", name, call, tc.got, tc.want)
			}
		}
	}
	if got, want := keysOf(sold.Equal(true)), []string{"1D", "2B"}; !slices.Equal(got, want) {
		t.Errorf("Equal(true) = %v, want %v", got, want)
	}
	e, ok := early.First(fare{"first", 90})
	if held, _ := r.Entry("1A"); !ok || e != held {
		t.Errorf("First(first 90) = %v, %t; want %v", e, ok, held)
	}
	if _, ok := early.First(fare{"second", 1}); ok {
		t.Error("First finds a value that nobody has")
	}
	if _, err := r.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, r, "9", seat{"first", 90, false})
	if got, want := keysOf(early.From(fare{})), []string{"9"}; !slices.Equal(got, want) {
		t.Errorf("after Clear and a put From() = %v, want %v", got, want)
	}
}

func TestAUniqueIndexRefusesASecondHolder(t *testing.T) {
	g := newGrid(t)
	r := open[int, int](t, g, "r", nil)
	put(t, r, 1, 10)
	x := newIndex(t, r, "value", byValue, unique)
	put(t, r, 2, 20)
	put(t, r, 3, -1)
	put(t, r, 4, -1) // those without a value may be many
	put(t, r, 1, 10) // its own
	at, held := r.Position(), maps.Collect(r.All())
	two := func(pairs ...int) func(tx *grid.Tx) error {
		return func(tx *grid.Tx) error {
			for i := 0; i < len(pairs); i += 2 {
				if err := grid.In(tx, r).Put(pairs[i], pairs[i+1]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for name, write := range map[string]func() error{
		"Put":    func() error { _, err := r.Put(t.Context(), 2, 10); return err },
		"Insert": func() error { _, err := r.Insert(t.Context(), 5, 10); return err },
		"Update": func() error {
			_, err := r.Update(t.Context(), 3, func(int) (int, error) { return 10, nil })
			return err
		},
		"PutAll":                  func() error { _, err := r.PutAll(t.Context(), maps.All(map[int]int{5: 50, 6: 10})); return err },
		"PutAll within":           func() error { _, err := r.PutAll(t.Context(), maps.All(map[int]int{5: 50, 6: 50})); return err },
		"Do":                      func() error { return g.Do(t.Context(), two(7, 70, 8, 20)) },
		"Do, moved onto another":  func() error { return g.Do(t.Context(), two(1, 20, 7, 10)) },
		"Do, both to a new value": func() error { return g.Do(t.Context(), two(1, 30, 2, 30)) },
	} {
		var double *grid.UniqueError
		if err := write(); !errors.As(err, &double) || double.Index != "value" || double.Key == double.Holder {
			t.Errorf("%s = %v, want a UniqueError of two keys in the index", name, err)
		}
		if got := maps.Collect(r.All()); !maps.Equal(got, held) || r.Position() != at {
			t.Errorf("%s changed the region to %v at %s; want %v at %s", name, got, r.Position(), held, at)
		}
	}
	do(t, g, two(1, 20, 2, 10)) // swapped
	if e, ok := x.First(10); !ok || e.Key != 2 {
		t.Errorf("First(10) after a swap = %v, %t; want key 2", e, ok)
	}
	do(t, g, func(tx *grid.Tx) error { // given away and taken
		if _, err := grid.In(tx, r).Delete(2); err != nil {
			return err
		}
		return grid.In(tx, r).Put(9, 10)
	})
	var taken sync.WaitGroup
	won := make(chan int, 20)
	for k := range 20 {
		taken.Go(func() {
			if _, err := r.Put(t.Context(), 100+k, 77); err == nil {
				won <- 100 + k
			}
		})
	}
	taken.Wait()
	if len(won) != 1 {
		t.Errorf("%d of 20 concurrent writers got the value, want 1", len(won))
	}
}

func TestNewIndexRefuses(t *testing.T) {
	g := newGrid(t)
	r := open[int, int](t, g, "r", nil)
	m, err := grid.Mirror[int, int](g, "m", r, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, 1, 7)
	put(t, r, 2, 7)
	var double *grid.UniqueError
	if _, err := grid.NewIndex(r, "u", byValue, unique); !errors.As(err, &double) {
		t.Errorf("a unique NewIndex on two keys with one value = %v, want a UniqueError", err)
	}
	newIndex(t, r, "u", byValue, nil) // not unique, it fits
	if _, err := grid.NewIndex(r, "u", byValue, nil); !errors.Is(err, grid.ErrTaken) {
		t.Errorf("NewIndex with a taken name = %v, want ErrTaken", err)
	}
	_, errFloat := grid.NewIndex(r, "f", func(int, int) (float64, bool) { return 0, true }, nil)
	_, errUnnamed := grid.NewIndex(r, "", byValue, nil)
	_, errMirror := grid.NewIndex(m, "u", byValue, unique)
	_, errFunc := grid.NewIndex[int, int, int](r, "n", nil, nil)
	for want, err := range map[string]error{"float64": errFloat, "needs a name": errUnnamed, "mirror": errMirror, "nil": errFunc} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewIndex = %v, want an error with %q", err, want)
		}
	}
	if err := r.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := grid.NewIndex(r, "late", byValue, nil); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("NewIndex of a closed region = %v, want ErrClosed", err)
	}
}

func TestIndexesMadeWhileOthersWriteMissNothing(t *testing.T) {
	g := newGrid(t)
	r := open[int, int](t, g, "r", nil)
	m, err := grid.Mirror[int, int](g, "m", r, nil)
	if err != nil {
		t.Fatal(err)
	}
	heard := new(replica)
	subscribe(t, r, heard, nil)
	var writers sync.WaitGroup
	writers.Go(func() { scribble(t, r, 4, 600) })
	writers.Go(func() {
		for i := range 300 {
			err := g.Do(t.Context(), func(tx *grid.Tx) error {
				v, _ := grid.In(tx, r).Get(i % 20)
				return grid.In(tx, r).Put((i+3)%20, v+1)
			})
			if err != nil {
				t.Errorf("Do() = %v", err)
			}
		}
	})
	writers.Go(func() {
		for i := range 300 {
			if _, err := r.Update(t.Context(), i%20, func(v int) (int, error) { return v + 1, nil }); err != nil && !errors.Is(err, grid.ErrNotFound) {
				t.Errorf("Update() = %v", err)
			}
			if _, err := r.PutAll(t.Context(), maps.All(map[int]int{i % 20: i, 20: i})); err != nil {
				t.Errorf("PutAll() = %v", err)
			}
		}
	})
	indexes := make(map[string]*grid.Index[int, int, int])
	for i := range 5 {
		name := fmt.Sprint("x", i)
		indexes[name] = newIndex(t, r, name, byValue, nil)
		indexes["mirror's "+name] = newIndex(t, m, name, byValue, nil)
	}
	writers.Wait()
	want := maps.Collect(r.All())
	wait(t, "the mirror", func() bool { return m.Position() == r.Position() })
	for name, x := range indexes {
		got := make(map[int]int)
		last := -1
		for k, v := range x.From(0) {
			if v < last {
				t.Errorf("%s yields %d after %d", name, v, last)
			}
			got[k], last = v, v
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s holds %v, want %v", name, got, want)
		}
	}
	heard.check(t, "the listener", want, r.Position())
}
