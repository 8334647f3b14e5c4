package grid_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
)

// A mortal is an entry of the model.
type mortal struct {
	key         string
	value       int
	until, seen time.Time // until is zero for never
	used, order int
}

// mortals is what a region with all limits must be.
type mortals struct {
	ttl, idle time.Duration
	max       int
	m         map[string]*mortal
	history   []string
	moments   int // transactions
	orders    int // writes
}

// end returns when an entry's time is up.
func (m *mortals) end(e *mortal) time.Time {
	end := time.Now().Add(time.Hour)
	if !e.until.IsZero() {
		end = e.until
	}
	if m.idle > 0 && e.seen.Add(m.idle).Before(end) {
		end = e.seen.Add(m.idle)
	}
	return end
}

func (m *mortals) remove(e *mortal, cause string) {
	delete(m.m, e.key)
	m.history = append(m.history, fmt.Sprintf("%s delete %s %d 0", cause, e.key, e.value))
}

// pass removes what has ended by now, in the order of the ends.
func (m *mortals) pass() {
	ended := slices.DeleteFunc(slices.Collect(maps.Values(m.m)), func(e *mortal) bool { return m.end(e).After(time.Now()) })
	slices.SortFunc(ended, func(a, b *mortal) int { return cmp.Or(m.end(a).Compare(m.end(b)), cmp.Compare(a.order, b.order)) })
	for _, e := range ended {
		m.remove(e, "expire")
	}
	if len(ended) > 0 { // time alone is no moment: uses between two transactions are as old as each other
		m.moments++
	}
}

func (m *mortals) put(k string, v int, ttl time.Duration) {
	op, old := "create", 0
	if e := m.m[k]; e != nil {
		op, old = "update", e.value
	}
	m.history = append(m.history, fmt.Sprintf("write %s %s %d %d", op, k, old, v))
	m.orders++
	e := &mortal{key: k, value: v, seen: time.Now(), used: 2 * m.moments, order: m.orders}
	if ttl == 0 {
		ttl = m.ttl
	}
	if ttl > 0 && ttl != grid.Forever {
		e.until = time.Now().Add(ttl)
	}
	m.m[k] = e
}

// commit follows the writes of one transaction.
func (m *mortals) commit() {
	for m.max > 0 && len(m.m) > m.max {
		m.remove(slices.MinFunc(slices.Collect(maps.Values(m.m)), func(a, b *mortal) int {
			return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.order, b.order))
		}), "evict")
	}
	m.moments++
}

func (m *mortals) get(k string) int {
	e := m.m[k]
	if e == nil {
		return 0
	}
	e.seen, e.used = time.Now(), 2*m.moments-1
	return e.value
}

func TestALimitedRegionBehavesAsItsModel(t *testing.T) {
	seedtest.PlayAnew(t, func(t *testing.T, seed uint64) {
		// TB alone, as a bubble has no Deadline.
		synctest.Test(t, func(t *testing.T) { seedtest.Check(struct{ testing.TB }{t}, seed, checkLimited) })
	})
}

func checkLimited(rt *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ms := func(least, most int) *rapid.Generator[time.Duration] {
		return rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(least, most).Draw(t, "tens of ms")) * 10 * time.Millisecond
		})
	}
	want := &mortals{
		ttl: ms(0, 20).Draw(rt, "ttl"), idle: ms(0, 20).Draw(rt, "idle"), max: rapid.IntRange(0, 4).Draw(rt, "max"),
		m: make(map[string]*mortal), moments: 1,
	}
	g := grid.New("g", nil)
	r, err := grid.Open[string](g, "r", &grid.RegionOptions[int]{TTL: want.ttl, Idle: want.idle, MaxEntries: want.max})
	if err != nil {
		rt.Fatal(err)
	}
	l, late := newTwin(), newTwin()
	sub, err := r.Subscribe("s", l, nil)
	if err != nil {
		rt.Fatal(err)
	}
	conflated, err := r.Subscribe("conflated", late, &listeners.SubscribeOptions{Current: true, Overflow: listeners.OverflowConflate, BacklogBytes: 2000})
	if err != nil {
		rt.Fatal(err)
	}
	key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
	value := rapid.IntRange(1, 9)
	rt.Repeat(map[string]func(*rapid.T){
		"put": func(t *rapid.T) {
			k, v := key.Draw(t, "key"), value.Draw(t, "value")
			if _, err := r.Put(ctx, k, v); err != nil {
				t.Fatal(err)
			}
			want.put(k, v, 0)
			want.commit()
		},
		"putTTL": func(t *rapid.T) {
			k, v, ttl := key.Draw(t, "key"), value.Draw(t, "value"), ms(1, 30).Draw(t, "ttl")
			if rapid.IntRange(0, 4).Draw(t, "0 for ever") == 0 {
				ttl = grid.Forever
			}
			if _, err := r.PutTTL(ctx, k, v, ttl); err != nil {
				t.Fatal(err)
			}
			want.put(k, v, ttl)
			want.commit()
		},
		"transaction": func(t *rapid.T) {
			keys := rapid.SliceOfNDistinct(key, 1, 5, rapid.ID).Draw(t, "keys")
			err := g.Do(ctx, func(tx *grid.Tx) error {
				for i, k := range keys {
					if err := grid.In(tx, r).Put(k, i+1); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, k := range keys {
				want.put(k, i+1, 0)
			}
			want.commit()
		},
		"delete": func(t *rapid.T) {
			k := key.Draw(t, "key")
			e, there := want.m[k]
			if _, existed, err := r.Delete(ctx, k); existed != there || err != nil {
				t.Fatalf("Delete(%q) = %t, %v; want %t", k, existed, err, there)
			}
			if there {
				want.remove(e, "write")
				want.commit()
			}
		},
		"clear": func(t *rapid.T) {
			if _, err := r.Clear(ctx); err != nil {
				t.Fatal(err)
			}
			if len(want.m) > 0 {
				clear(want.m)
				want.history = append(want.history, "clear")
				want.commit()
			}
		},
		"get": func(t *rapid.T) {
			k := key.Draw(t, "key")
			v, ok := r.Get(k)
			if expected := want.get(k); v != expected || ok != (expected != 0) {
				t.Fatalf("Get(%q) = %d, %t; want %d", k, v, ok, expected)
			}
		},
		"pass": func(t *rapid.T) {
			until := time.Now().Add(ms(1, 12).Draw(t, "pause"))
			for time.Now().Before(until) {
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				want.pass()
			}
		},
		"": func(t *rapid.T) {
			got := maps.Collect(r.All())
			expected := make(map[string]int)
			for k, e := range want.m {
				expected[k] = e.value
			}
			if diff := gocmp.Diff(expected, got); diff != "" || r.Len() != len(expected) {
				t.Fatalf("Len() = %d, All() (-want +got):\n%s", r.Len(), diff)
			}
			if s := r.Snapshot(); !maps.Equal(maps.Collect(s.All()), expected) {
				t.Fatalf("the snapshot is %v, want %v", maps.Collect(s.All()), expected)
			}
		},
	})
	state := maps.Collect(r.Snapshot().All())
	if err := g.Close(ctx); err != nil || sub.Err() != nil || conflated.Err() != nil {
		rt.Fatalf("Close() = %v, Err() = %v, %v; want nil", err, sub.Err(), conflated.Err())
	}
	if diff := gocmp.Diff(want.history, l.heard); diff != "" {
		rt.Fatalf("events (-want +got):\n%s", diff)
	}
	for _, rebuilt := range []*twin{l, late} {
		if len(rebuilt.faults) > 0 || !maps.Equal(rebuilt.state, state) {
			rt.Fatalf("rebuilt %v with faults %q, the snapshot is %v", rebuilt.state, rebuilt.faults, state)
		}
	}
}
