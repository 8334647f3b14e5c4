package grid_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// benchTeams is also how many queries there are: one for each team.
const benchTeams = 10_000

type player struct {
	Team  int
	Score int
}

func newPlayers(b *testing.B, keys []string) (*grid.Region[string, player], *grid.Index[string, player, int]) {
	b.Helper()
	g := grid.New("bench", nil)
	b.Cleanup(func() { _ = g.Close(context.WithoutCancel(b.Context())) })
	r, err := grid.Open[string, player](g, "players", nil)
	if err != nil {
		b.Fatal(err)
	}
	byTeam, err := grid.NewIndex(r, "team", func(_ string, p player) (int, bool) { return p.Team, true }, nil)
	if err != nil {
		b.Fatal(err)
	}
	_, err = r.PutAll(b.Context(), func(yield func(string, player) bool) {
		for i, k := range keys {
			if !yield(k, player{Team: i % benchTeams}) {
				return
			}
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return r, byTeam
}

// BenchmarkPutBesideQueries puts into a region of 100,000 entries with 10,000
// queries by index value, each with a listener, and into one with none.
func BenchmarkPutBesideQueries(b *testing.B) {
	keys := benchKeys()
	for _, queries := range []int{0, benchTeams} {
		// Teams from benchTeams on are no query's.
		for _, what := range []struct {
			name string
			team func(i int) int
		}{
			{"within a set", func(i int) int { return i % benchEntries % benchTeams }},
			{"from one set to another", func(i int) int { return (i + i/benchEntries + 1) % benchTeams }},
			{"outside of all", func(i int) int { return benchTeams + i%benchEntries%benchTeams }},
		} {
			b.Run(fmt.Sprintf("queries=%d/%s", queries, what.name), func(b *testing.B) {
				r, byTeam := newPlayers(b, keys)
				for team := range queries {
					q, err := byTeam.Query("team", team, nil)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := q.Subscribe("bench", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil }), nil); err != nil {
						b.Fatal(err)
					}
				}
				if what.name == "outside of all" {
					for i, k := range keys {
						if _, err := r.Put(b.Context(), k, player{Team: what.team(i)}); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, err := r.Put(b.Context(), keys[i%benchEntries], player{Team: what.team(i), Score: i}); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// BenchmarkQueryMemory reports what a query costs without a listener and with
// one.
func BenchmarkQueryMemory(b *testing.B) {
	_, byTeam := newPlayers(b, benchKeys()[:1000])
	bytes := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	for _, listener := range []bool{false, true} {
		b.Run(fmt.Sprintf("listener=%t", listener), func(b *testing.B) {
			for b.Loop() {
				queries := make([]*grid.Query[string, player], benchTeams)
				subs := make([]*listeners.Subscription, 0, benchTeams)
				before := bytes()
				for team := range queries {
					q, err := byTeam.Query("team", team, nil)
					if err != nil {
						b.Fatal(err)
					}
					queries[team] = q
					if listener {
						s, err := q.Subscribe("bench", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil }), nil)
						if err != nil {
							b.Fatal(err)
						}
						subs = append(subs, s)
					}
				}
				b.ReportMetric(float64(bytes()-before)/benchTeams, "B/query")
				for _, s := range subs {
					if err := s.CloseWait(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				runtime.KeepAlive(queries)
			}
		})
	}
}

const benchEntries = 100_000

func benchKeys() []string {
	keys := make([]string, benchEntries)
	for i := range keys {
		keys[i] = fmt.Sprintf("seat-%06d", i*7919%benchEntries)
	}
	return keys
}
