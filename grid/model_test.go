package grid_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/grid"
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
	return slices.SortedFunc(maps.Keys(m.m), func(a, b modelKey) int {
		return cmp.Or(cmp.Compare(a.Train, b.Train), cmp.Compare(a.Seat, b.Seat))
	})
}

func TestRegionBehavesAsAMapAndAList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := deadline(t)
		g := grid.New("g", nil)
		r, err := grid.Open[modelKey, int](g, "r", nil)
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
		sub, err := r.Subscribe("s", listeners.Handlers[int]{OnCreate: tell, OnUpdate: tell, OnDelete: tell}, nil)
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
				want.put(k, v)
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				_, existed, err := r.Delete(ctx, k)
				if expected := want.delete(k); existed != expected || err != nil {
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
				if n := r.Position().Commit; n != uint64(len(want.history)) {
					t.Fatalf("Position().Commit = %d after %d changes", n, len(want.history))
				}
			},
		})
		if err := g.Close(ctx); err != nil || sub.Err() != nil {
			rt.Fatalf("Close() = %v, Err() = %v; want nil", err, sub.Err())
		}
		if diff := gocmp.Diff(want.history, heard); diff != "" {
			rt.Fatalf("events (-want +got):\n%s", diff)
		}
	})
}
