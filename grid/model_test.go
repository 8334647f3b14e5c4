package grid_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

type modelKey struct {
	Train string
	Seat  int8
}

// A model is what a region must be: a map and the list of its changes.
type model struct {
	m       map[modelKey]int
	history []string
	commits uint64 // transactions
}

func (m *model) put(k modelKey, v int) {
	if old, ok := m.m[k]; ok {
		m.history = append(m.history, fmt.Sprintf("update %v %d %d", k, old, v))
	} else {
		m.history = append(m.history, fmt.Sprintf("create %v 0 %d", k, v))
	}
	m.m[k] = v
}

func (m *model) delete(k modelKey) bool {
	old, ok := m.m[k]
	if ok {
		m.history = append(m.history, fmt.Sprintf("delete %v %d 0", k, old))
		delete(m.m, k)
	}
	return ok
}

func (m *model) sorted() []modelKey {
	return slices.SortedFunc(maps.Keys(m.m), compareKeys)
}

func compareKeys(a, b modelKey) int {
	return cmp.Or(cmp.Compare(a.Train, b.Train), cmp.Compare(a.Seat, b.Seat))
}

// apply makes the net effect of writes (0 deletes) one transaction, in the
// order of the keys' last writes.
func (m *model) apply(writes []modelWrite) (changed bool) {
	for i, w := range writes {
		if slices.ContainsFunc(writes[i+1:], func(later modelWrite) bool { return later.k == w.k }) {
			continue
		}
		if w.v != 0 {
			m.put(w.k, w.v)
			changed = true
		} else {
			changed = m.delete(w.k) || changed
		}
	}
	if changed {
		m.commits++
	}
	return changed
}

type modelWrite struct {
	k modelKey
	v int // 0 to delete
}

func TestRegionBehavesAsAMapAndAList(t *testing.T) {
	seedtest.PlayAnew(t, func(t *testing.T, seed uint64) {
		seedtest.Check(t, seed, func(rt *rapid.T) { checkRegion(t, rt) })
	})
}

func checkRegion(t *testing.T, rt *rapid.T) {
	t.Helper()
	ctx := deadline(t)
	g := grid.New("g", nil)
	r, err := grid.Open[modelKey, int](g, "r", nil)
	if err != nil {
		rt.Fatal(err)
	}
	byValue, err := grid.NewIndex(r, "value", func(_ modelKey, v int) (int, bool) { return v, v%4 != 0 }, nil)
	if err != nil {
		rt.Fatal(err)
	}
	var heard []string
	tell := func(_ context.Context, c listeners.Change[int]) error {
		var k modelKey
		rec := c.Event.After
		if !rec.Exists() {
			rec = c.Event.Before
		}
		if err := rec.Scan(&k); err != nil {
			return err
		}
		heard = append(heard, fmt.Sprintf("%s %v %d %d", c.Op, k, c.Before, c.After))
		return nil
	}
	cleared := func(context.Context, string) error { heard = append(heard, "clear"); return nil }
	sub, err := r.Subscribe("s", listeners.Handlers[int]{OnCreate: tell, OnUpdate: tell, OnDelete: tell, OnTruncate: cleared}, nil)
	if err != nil {
		rt.Fatal(err)
	}
	want := model{m: make(map[modelKey]int)}
	key := rapid.Custom(func(t *rapid.T) modelKey {
		return modelKey{rapid.SampledFrom([]string{"", "a", "a\x00", "ab", "\xff"}).Draw(t, "train"), rapid.Int8Range(-1, 1).Draw(t, "seat")}
	})
	rt.Repeat(map[string]func(*rapid.T){
		"put": func(t *rapid.T) {
			k, v := key.Draw(t, "key"), rapid.IntRange(1, 9).Draw(t, "value")
			if pos, err := r.Put(ctx, k, v); err != nil || pos != r.Position() {
				t.Fatalf("Put(%v, %d) = %s, %v; want %s, nil", k, v, pos, err, r.Position())
			}
			want.apply([]modelWrite{{k, v}})
		},
		"insert": func(t *rapid.T) {
			k := key.Draw(t, "key")
			_, there := want.m[k]
			var exists *grid.ExistsError
			if _, err := r.Insert(ctx, k, 1); errors.As(err, &exists) != there || (err != nil) != there {
				t.Fatalf("Insert(%v) = %v; the key exists: %t", k, err, there)
			}
			if !there {
				want.apply([]modelWrite{{k, 1}})
			}
		},
		"update": func(t *rapid.T) {
			k := key.Draw(t, "key")
			old, there := want.m[k]
			_, err := r.Update(ctx, k, func(v int) (int, error) { return v + 1, nil })
			if errors.Is(err, grid.ErrNotFound) == there || (err == nil) != there {
				t.Fatalf("Update(%v) = %v; the key exists: %t", k, err, there)
			}
			if there {
				want.apply([]modelWrite{{k, old + 1}})
			}
		},
		"compareAndPut": func(t *rapid.T) {
			k, stale := key.Draw(t, "key"), rapid.Bool().Draw(t, "stale")
			e, there := r.Entry(k)
			if v, expected := want.m[k]; there != expected || e.Value != v {
				t.Fatalf("Entry(%v) = %v, %t; want %d, %t", k, e, there, v, expected)
			}
			if stale {
				e.Version.Commit++
			}
			var wrong *grid.VersionError
			if _, err := r.CompareAndPut(ctx, k, e.Version, 5); errors.As(err, &wrong) != stale || (err != nil) != stale {
				t.Fatalf("CompareAndPut(%v) with a stale version: %t; error %v", k, stale, err)
			}
			if !stale {
				want.apply([]modelWrite{{k, 5}})
			}
		},
		"putAll": func(t *rapid.T) {
			var writes []modelWrite
			for range rapid.IntRange(0, 6).Draw(t, "pairs") {
				writes = append(writes, modelWrite{key.Draw(t, "key"), rapid.IntRange(1, 9).Draw(t, "value")})
			}
			pos, err := r.PutAll(ctx, func(yield func(modelKey, int) bool) {
				for _, w := range writes {
					if !yield(w.k, w.v) {
						return
					}
				}
			})
			if changed := want.apply(writes); err != nil || pos.IsZero() == changed {
				t.Fatalf("PutAll(%v) = %s, %v", writes, pos, err)
			}
		},
		"clear": func(t *rapid.T) {
			pos, err := r.Clear(ctx)
			if err != nil || pos.IsZero() != (len(want.m) == 0) {
				t.Fatalf("Clear() of %d keys = %s, %v", len(want.m), pos, err)
			}
			if len(want.m) > 0 {
				clear(want.m)
				want.history = append(want.history, "clear")
				want.commits++
			}
		},
		"transaction": func(t *rapid.T) {
			var writes []modelWrite
			fails := rapid.Bool().Draw(t, "fails")
			failure := errors.New("as drawn")
			n := rapid.IntRange(0, 6).Draw(t, "writes")
			err := g.Do(ctx, func(tx *grid.Tx) error {
				in := grid.In(tx, r)
				view := maps.Clone(want.m) // as the transaction must see it
				for range n {
					w := modelWrite{key.Draw(t, "key"), rapid.IntRange(0, 3).Draw(t, "value, 0 to delete")}
					_, there := view[w.k]
					if there || w.v != 0 {
						writes = append(writes, w) // to delete what is absent is no write
					}
					var err error
					if w.v != 0 {
						err = in.Put(w.k, w.v)
						view[w.k] = w.v
					} else {
						var existed bool
						if existed, err = in.Delete(w.k); existed != there {
							t.Fatalf("Delete(%v) in a transaction = %t, want %t", w.k, existed, there)
						}
						delete(view, w.k)
					}
					if err != nil {
						return err
					}
					if v, ok := in.Get(w.k); v != view[w.k] || ok != (w.v != 0) {
						t.Fatalf("Get(%v) in a transaction = %d, %t; want %d", w.k, v, ok, view[w.k])
					}
					if got := maps.Collect(in.All()); !maps.Equal(got, view) {
						t.Fatalf("All() in a transaction = %v, want %v", got, view)
					}
				}
				if fails {
					return failure
				}
				return nil
			})
			if fails {
				if !errors.Is(err, failure) {
					t.Fatalf("Do() = %v, want the function's error", err)
				}
				return
			}
			want.apply(writes)
			if err != nil {
				t.Fatalf("Do() = %v, want nil", err)
			}
		},
		"range": func(t *rapid.T) {
			from, to := key.Draw(t, "from"), key.Draw(t, "to")
			var got, expected []modelKey
			for k := range r.Range(from, to) {
				got = append(got, k)
			}
			for _, k := range want.sorted() {
				if compareKeys(from, k) <= 0 && compareKeys(k, to) < 0 {
					expected = append(expected, k)
				}
			}
			if diff := gocmp.Diff(expected, got); diff != "" {
				t.Fatalf("Range(%v, %v) (-want +got):\n%s", from, to, diff)
			}
		},
		"delete": func(t *rapid.T) {
			k := key.Draw(t, "key")
			_, existed, err := r.Delete(ctx, k)
			if expected := want.apply([]modelWrite{{k, 0}}); existed != expected || err != nil {
				t.Fatalf("Delete(%v) = %t, %v; want %t, nil", k, existed, err, expected)
			}
		},
		"get": func(t *rapid.T) {
			k := key.Draw(t, "key")
			v, ok := r.Get(k)
			if expected, there := want.m[k]; v != expected || ok != there {
				t.Fatalf("Get(%v) = %d, %t; want %d, %t", k, v, ok, expected, there)
			}
		},
		"join": func(t *rapid.T) {
			rec := new(listenertest.Recorder)
			s, err := r.Subscribe("joiner", rec, current)
			if err != nil {
				t.Fatal(err)
			}
			<-s.Live()
			if got := rec.Events(); len(got) != len(want.m) {
				t.Fatalf("a joiner heard of %d entries, want %d", len(got), len(want.m))
			}
			s.Close()
		},
		"": func(t *rapid.T) {
			var keys []modelKey
			for k, v := range r.All() {
				keys = append(keys, k)
				if v != want.m[k] {
					t.Fatalf("All() yields %d for %v, want %d", v, k, want.m[k])
				}
			}
			if diff := gocmp.Diff(want.sorted(), keys); diff != "" || r.Len() != len(keys) {
				t.Fatalf("Len() = %d; keys of All() (-want +got):\n%s", r.Len(), diff)
			}
			indexed := slices.DeleteFunc(want.sorted(), func(k modelKey) bool { return want.m[k]%4 == 0 })
			slices.SortStableFunc(indexed, func(a, b modelKey) int { return cmp.Compare(want.m[a], want.m[b]) })
			var found []modelKey
			for k := range byValue.From(0) {
				found = append(found, k)
			}
			if !slices.Equal(indexed, found) {
				t.Fatalf("From(0) of the index = %v, want %v", found, indexed)
			}
			if n := r.Position().Commit; n != want.commits {
				t.Fatalf("Position().Commit = %d after %d transactions", n, want.commits)
			}
		},
	})
	if err := g.Close(ctx); err != nil || sub.Err() != nil {
		rt.Fatalf("Close() = %v, Err() = %v; want nil", err, sub.Err())
	}
	if diff := gocmp.Diff(want.history, heard); diff != "" {
		rt.Fatalf("events (-want +got):\n%s", diff)
	}
}
