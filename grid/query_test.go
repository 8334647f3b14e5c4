package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// lines writes what a recorder holds: one line for each batch, without the
// markers' rows.
func lines(rec *listenertest.Recorder) []string {
	var out []string
	for _, b := range rec.Batches() {
		words := []string{fmt.Sprint(b.Position.Commit), b.Kind.String()}
		for _, e := range b.Events {
			words = append(words, fmt.Sprintf("%s %s %s->%s", e.Op, e.Key, e.Before, e.After))
		}
		out = append(out, strings.Join(words, ", "))
	}
	return out
}

// seatQueries returns the query for the class "first" by an index, and the one
// by a function.
func seatQueries(t *testing.T, r *grid.Region[string, seat]) map[string]*grid.Query[string, seat] {
	t.Helper()
	byClass, err := grid.NewIndex(r, "class", func(_ string, s seat) (string, bool) { return s.Class, s.Class != "" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	byValue, err := byClass.Query("first class", "first", nil)
	if err != nil {
		t.Fatal(err)
	}
	byFunction, err := grid.NewQuery(r, "first class too", func(_ string, s seat) bool { return s.Class == "first" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*grid.Query[string, seat]{"index value": byValue, "function": byFunction}
}

func first(price int) seat  { return seat{Class: "first", Price: price} }
func second(price int) seat { return seat{Class: "second", Price: price} }

func TestQueryTellsWhatEntersChangesAndLeaves(t *testing.T) {
	const (
		json1 = `{"key":"a","class":"first","price":%d,"is_sold":false}`
		json2 = `{"key":"a","class":"second","price":%d,"is_sold":false}`
	)
	one := func(price int) string { return fmt.Sprintf(json1, price) }
	two := func(price int) string { return fmt.Sprintf(json2, price) }
	for name, tc := range map[string]struct {
		before []seat // put one after another; an empty one deletes
		do     func(ctx context.Context, g *grid.Grid, r *grid.Region[string, seat]) error
		want   []string
	}{
		"a new entry enters": {
			do: func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, seat]) error {
				return put1(ctx, r, first(1))
			},
			want: []string{"1, changes, create a null->" + one(1)},
		},
		"an entry changes and enters": {
			before: []seat{second(1)},
			do: func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, seat]) error {
				return put1(ctx, r, first(2))
			},
			want: []string{"2, changes, create a " + two(1) + "->" + one(2)},
		},
		"an entry changes within": {
			before: []seat{first(1)},
			do: func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, seat]) error {
				return put1(ctx, r, first(2))
			},
			want: []string{"2, changes, update a " + one(1) + "->" + one(2)},
		},
		"an entry changes and leaves": {
			before: []seat{first(1)},
			do: func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, seat]) error {
				return put1(ctx, r, second(2))
			},
			want: []string{"2, changes, delete a " + one(1) + "->" + two(2)},
		},
		"an entry is deleted and leaves": {
			before: []seat{first(1)},
			do: func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, seat]) error {
				_, _, err := r.Delete(ctx, "a")
				return err
			},
			want: []string{"2, changes, delete a " + one(1) + "->null"},
		},
		"what is outside stays unheard": {
			before: []seat{second(1)},
			do: func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, seat]) error {
				if err := put1(ctx, r, second(2)); err != nil {
					return err
				}
				_, _, err := r.Delete(ctx, "a")
				return err
			},
		},
		"a clear": {
			before: []seat{first(1)},
			do: func(ctx context.Context, _ *grid.Grid, r *grid.Region[string, seat]) error {
				_, err := r.Clear(ctx)
				return err
			},
			want: []string{"2, changes, truncate  null->null"},
		},
		"a transaction is one batch": {
			before: []seat{first(1)},
			do: func(ctx context.Context, g *grid.Grid, r *grid.Region[string, seat]) error {
				return g.Do(ctx, func(tx *grid.Tx) error {
					in := grid.In(tx, r)
					return errors.Join(in.Put("b", first(2)), in.Put("c", second(3)), in.Put("a", second(4)))
				})
			},
			want: []string{"2, changes, " +
				`create b null->{"key":"b","class":"first","price":2,"is_sold":false}, ` +
				"delete a " + one(1) + "->" + two(4)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrid(t)
			r := open[string, seat](t, g, "seats", nil)
			for _, s := range tc.before {
				put(t, r, "a", s)
			}
			for by, q := range seatQueries(t, r) {
				rec, joined := new(listenertest.Recorder), new(listenertest.Recorder)
				s := subscribe(t, q, rec, nil)
				c := subscribe(t, q, joined, current)
				live(t, c)
				base := len(lines(joined))
				at := r.Position()
				defer func() {
					for _, s := range []*listeners.Subscription{s, c} {
						if err := s.Wait(deadline(t), r.Position()); err != nil {
							t.Fatalf("by %s: Wait(%s) = %v", by, r.Position(), err)
						}
					}
					if r.Position() == at {
						t.Error("nothing was written")
					}
					if diff := gocmp.Diff(tc.want, lines(rec)); diff != "" {
						t.Errorf("by %s, from now on (-want +got):\n%s", by, diff)
					}
					if diff := gocmp.Diff(tc.want, lines(joined)[base:], cmpEmpty); diff != "" {
						t.Errorf("by %s, behind the present state (-want +got):\n%s", by, diff)
					}
				}()
			}
			if err := tc.do(deadline(t), g, r); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// cmpEmpty makes no difference between no lines and none at all.
var cmpEmpty = gocmp.Transformer("empty", func(s []string) string { return strings.Join(s, "\n") }) //nolint:gochecknoglobals // read-only

func put1(ctx context.Context, r *grid.Region[string, seat], s seat) error {
	_, err := r.Put(ctx, "a", s)
	return err
}

func TestQueryBeginsWithThePresentSet(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 1001, 2000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := open[string, seat](t, newGrid(t), "seats", nil)
			queries := seatQueries(t, r)
			var want []string
			for i := range n {
				k := fmt.Sprintf("%05d", i)
				put(t, r, k, first(i))
				put(t, r, k+"x", second(i))
				want = append(want, k)
			}
			for by, q := range queries {
				rec := new(listenertest.Recorder)
				live(t, subscribe(t, q, rec, current))
				var got []string
				var kinds []string
				for i, b := range rec.Batches() {
					kinds = append(kinds, fmt.Sprintf("%s %d %t %t", b.Kind, len(b.Events), b.First, b.Last))
					if b.Position != r.Position() {
						t.Errorf("by %s: batch %d at %s, want the region's %s", by, i, b.Position, r.Position())
					}
					for _, e := range b.Events {
						got = append(got, e.Key)
						if e.Op != listeners.Read || e.Cause != listeners.CauseSnapshot {
							t.Errorf("by %s: %s is %s by %s, want read by snapshot", by, e.Key, e.Op, e.Cause)
						}
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("by %s: told %d keys %.200q, want %d", by, len(got), got, len(want))
				}
				wantKinds := []string{"reset 0 true true", fmt.Sprintf("snapshot %d true true", n), "live 0 true true"}
				switch n {
				case 1001, 2000:
					wantKinds = slices.Replace(wantKinds, 1, 2, "snapshot 1000 true false", fmt.Sprintf("snapshot %d false true", n-1000))
				}
				if diff := gocmp.Diff(wantKinds, kinds); diff != "" {
					t.Errorf("by %s: batches (-want +got):\n%s", by, diff)
				}
				if q.Len() != n || len(maps.Collect(q.All())) != n {
					t.Errorf("by %s: Len() = %d, All() yields %d; want %d", by, q.Len(), len(maps.Collect(q.All())), n)
				}
			}
		})
	}
}
