package grid_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestListenerThatWasAwayGoesOn(t *testing.T) {
	r := open[int](t, newGrid(t), "r", &grid.RegionOptions[int]{HistoryBytes: 1 << 20})
	begin := r.Position()
	first := put(t, r, 1, 10)
	put(t, r, 1, 11)
	last := put(t, r, 2, 20)
	for name, tc := range map[string]struct {
		from listeners.Position
		want []string
	}{
		"from before the first change": {begin, []string{`create r/1`, `update r/1`, `create r/2`}},
		"from the first":               {first, []string{`update r/1`, `create r/2`}},
		"from the last":                {last, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var rec listenertest.Recorder
			sub := subscribe(t, r, &rec, &listeners.SubscribeOptions{From: tc.from})
			if err := sub.Wait(deadline(t), last); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range rec.Events() {
				got = append(got, e.Op.String()+" "+e.Collection+"/"+e.Key)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("heard (-want +got):\n%s", diff)
			}
		})
	}
}

func TestListenerThatWasAwayTooLongIsTold(t *testing.T) {
	r := open[int](t, newGrid(t), "r", &grid.RegionOptions[int]{HistoryBytes: 2000})
	first := put(t, r, 0, 0)
	var last listeners.Position
	for k := range 100 {
		last = put(t, r, k, k)
	}
	sub := subscribe(t, r, new(listenertest.Recorder), &listeners.SubscribeOptions{From: first})
	<-sub.Done()
	var gone *listeners.HistoryError
	if err := sub.Err(); !errors.As(err, &gone) || gone.Asked != first || gone.Oldest.Compare(first) <= 0 || gone.Oldest.Compare(last) >= 0 {
		t.Errorf("Err() = %v, want a HistoryError with an oldest position between", err)
	}

	// From the oldest one it works.
	var rec listenertest.Recorder
	sub = subscribe(t, r, &rec, &listeners.SubscribeOptions{From: gone.Oldest})
	if err := sub.Wait(deadline(t), last); err != nil {
		t.Fatal(err)
	}
	if n, want := len(rec.Events()), int(last.Commit-gone.Oldest.Commit); n != want {
		t.Errorf("heard %d events from the oldest position on, want %d", n, want)
	}

	var with replica
	sub = subscribe(t, r, &with, &listeners.SubscribeOptions{From: first, Current: true})
	if err := sub.Wait(deadline(t), last); err != nil {
		t.Fatal(err)
	}
	with.mu.Lock()
	defer with.mu.Unlock()
	if diff := cmp.Diff(maps.Collect(r.All()), with.state); diff != "" || with.resets != 1 || !with.live {
		t.Errorf("with Current: %d resets, live %t, state (-want +got):\n%s", with.resets, with.live, diff)
	}
}

// The replica is kept while its listener comes and goes, as one in a cache or a
// browser is. What it misses for want of history, it is told anew.
func TestReplicaGoesOnAgainAndAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		history int64
		resets  bool
	}{
		"history for all": {1 << 24, false},
		"little history":  {4000, true},
		"none":            {0, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := open[int](t, newGrid(t), "r", &grid.RegionOptions[int]{HistoryBytes: tc.history})
			ctx := deadline(t)
			var writers sync.WaitGroup
			stop, end := context.WithCancel(ctx)
			defer end()
			for w := range uint64(2) {
				writers.Go(func() {
					random := rand.New(rand.NewPCG(w, 7))
					for stop.Err() == nil {
						var err error
						if k := random.IntN(20); random.IntN(4) == 0 {
							_, _, err = r.Delete(ctx, k)
						} else {
							_, err = r.Put(ctx, k, random.Int())
						}
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			var rep replica
			random := rand.New(rand.NewPCG(1, 8))
			store := listeners.NewFilePositions(t.TempDir())
			for range 30 {
				sub := subscribe(t, r, &rep, &listeners.SubscribeOptions{Positions: store, Current: true})
				select {
				case <-sub.Live(): // the first, and after a reset
				case <-time.After(time.Duration(1+random.IntN(4)) * time.Millisecond):
				}
				if err := sub.CloseWait(ctx); err != nil || sub.Err() != nil {
					t.Fatalf("CloseWait = %v, Err() = %v", err, sub.Err())
				}
				<-time.After(time.Duration(random.IntN(3)) * time.Millisecond)
			}
			end()
			writers.Wait()
			sub := subscribe(t, r, &rep, &listeners.SubscribeOptions{Positions: store, Current: true})
			if err := errors.Join(sub.Wait(ctx, r.Position()), sub.CloseWait(ctx)); err != nil {
				t.Fatal(err)
			}
			rep.mu.Lock()
			defer rep.mu.Unlock()
			if diff := cmp.Diff(maps.Collect(r.All()), rep.state); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
			if len(rep.faults) > 0 {
				t.Errorf("%d faults, such as %s", len(rep.faults), rep.faults[0])
			}
			if again := rep.resets > 1; again != tc.resets {
				t.Errorf("%d resets, want more than one: %t", rep.resets, tc.resets)
			}
		})
	}
}

// A region is made anew with each process. Its listeners' names live longer.
func TestNameOutlivesItsRegion(t *testing.T) {
	store := listeners.NewFilePositions(t.TempDir())
	for run := range 3 {
		g := grid.New("tickets", nil)
		r := open[int, int](t, g, "r", nil)
		last := put(t, r, run, run)
		var rec listenertest.Recorder
		sub := subscribe(t, r, &rec, &listeners.SubscribeOptions{Positions: store, Current: true})
		if err := sub.Wait(deadline(t), last); err != nil {
			t.Fatal(err)
		}
		var kinds []listeners.Kind
		for _, b := range rec.Batches() {
			kinds = append(kinds, b.Kind)
		}
		if diff := cmp.Diff([]listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Live}, kinds); diff != "" {
			t.Errorf("run %d heard (-want +got):\n%s", run, diff)
		}
		if err := g.Close(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if saved, err := sub.Saved(); saved != last || err != nil {
			t.Errorf("run %d: Saved() = %s, %v; want %s", run, saved, err, last)
		}
	}
	r := open[int, int](t, newGrid(t), "r", nil)
	sub := subscribe(t, r, new(listenertest.Recorder), &listeners.SubscribeOptions{Positions: store})
	<-sub.Done()
	if _, gone := errors.AsType[*listeners.HistoryError](sub.Err()); !gone {
		t.Errorf("without Current: Err() = %v, want a HistoryError", sub.Err())
	}
}

// The positions of a mirror are its source's, so one heard from the source
// itself is as good.
func TestMirrorResumesByItsSourcesPositions(t *testing.T) {
	src := open[int](t, newGrid(t), "r", &grid.RegionOptions[int]{HistoryBytes: 1 << 20})
	put(t, src, 0, 0)
	m := mirror[int](t, src, &grid.MirrorOptions[int]{HistoryBytes: 1 << 20})
	var early listenertest.Recorder
	subscribe(t, m, &early, &listeners.SubscribeOptions{From: listeners.Position{Epoch: 1, Commit: 1}})
	ready(t, m)
	if heard, err := early.WaitEvents(deadline(t), 1); err != nil || heard[0].Op != listeners.Read {
		t.Errorf("before the mirror is ready, a listener from a position heard %v, %v; want the state", heard, err)
	}
	from := put(t, src, 1, 10)
	put(t, src, 2, 20)
	last := put(t, src, 3, 30)
	for name, r := range map[string]*grid.Region[int, int]{"source": src, "mirror": m} {
		if name == "mirror" {
			checkMirror(t, m, last, map[int]int{0: 0, 1: 10, 2: 20, 3: 30})
		}
		var rec listenertest.Recorder
		sub := subscribe(t, r, &rec, &listeners.SubscribeOptions{From: from})
		if err := sub.Wait(deadline(t), last); err != nil {
			t.Fatal(err)
		}
		var keys string
		for _, e := range rec.Events() {
			keys += e.Key
		}
		if keys != "23" {
			t.Errorf("from the position of key 1 on, the %s told the keys %q, want 2 and 3", name, keys)
		}
	}
}

// Somebody who leaves a region in which nothing has happened yet has begun all
// the same.
func TestNameThatLeavesAnEmptyRegionMissesNothing(t *testing.T) {
	for name, history := range map[string]int64{"with history": 1 << 20, "without": 0} {
		t.Run(name, func(t *testing.T) {
			r := open[int](t, newGrid(t), "r", &grid.RegionOptions[int]{HistoryBytes: history})
			o := &listeners.SubscribeOptions{Positions: listeners.NewFilePositions(t.TempDir())}
			sub := subscribe(t, r, new(listenertest.Recorder), o)
			if err := errors.Join(sub.Wait(deadline(t), r.Position()), sub.CloseWait(t.Context())); err != nil {
				t.Fatal(err)
			}
			last := put(t, r, 1, 10)
			var rec listenertest.Recorder
			sub = subscribe(t, r, &rec, o)
			err := sub.Wait(deadline(t), last)
			if closeErr := sub.CloseWait(t.Context()); closeErr != nil {
				t.Fatal(closeErr)
			}
			if history > 0 {
				if err != nil || len(rec.Events()) != 1 {
					t.Errorf("Wait = %v with %d events, want the one that came meanwhile", err, len(rec.Events()))
				}
				return
			}
			if gone, is := errors.AsType[*listeners.HistoryError](err); !is || gone.Asked.IsZero() {
				t.Errorf("Wait = %v, want a HistoryError rather than a silent gap", err)
			}
		})
	}
}
