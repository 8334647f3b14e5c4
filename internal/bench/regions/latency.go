package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A heard is a store with one listener, which tells of each value's Price, and
// of when that was committed; the zero time stands for the call of put.
type heard struct {
	name string
	open func(ctx context.Context, seen func(price int, committed time.Time)) (s store, end func() error, err error)
}

// A delay is what one put took.
type delay struct{ put, fromCall, fromCommit time.Duration }

// latency measures from the call of put and from the commit, both to the first
// line of the listener on its own goroutine: a put that lets the listener run
// before it returns gains nothing by that. A region's commit time is taken when
// it begins to commit, before anything is stored.
func (b *bench) latency() error {
	kinds := []heard{
		{"channel alone", hearChannel},
		{"wake-up of a goroutine alone", hearBell},
		{"map and channel", hearGuarded},
		{"statedb's change iterator", hearStatedb},
		{"region", hearRegion},
	}
	fmt.Fprint(b.out, "\nTo a listener on a goroutine of its own, from the call of put and from the commit\n\n"+
		"| | put, p50 | call to heard, p50 | p99 | commit to heard, p50 | p90 | p99 |\n|---|---|---|---|---|---|---|\n")
	for _, pace := range []time.Duration{time.Millisecond, 100 * time.Microsecond} {
		took := make([][]delay, len(kinds))
		for range 3 {
			for i, k := range kinds {
				fmt.Fprintf(os.Stderr, "bench: latency of %s\n", k.name)
				d, err := b.latencies(k, pace)
				if err != nil {
					return fmt.Errorf("%s: %w", k.name, err)
				}
				took[i] = append(took[i], d...)
			}
		}
		for i, k := range kinds {
			fmt.Fprintf(b.out, "| %s, a put each %s |", k.name, pace)
			for _, of := range []struct {
				what func(delay) time.Duration
				at   []float64
			}{
				{func(d delay) time.Duration { return d.put }, []float64{0.5}},
				{func(d delay) time.Duration { return d.fromCall }, []float64{0.5, 0.99}},
				{func(d delay) time.Duration { return d.fromCommit }, []float64{0.5, 0.9, 0.99}},
			} {
				var all []time.Duration
				for _, d := range took[i] {
					all = append(all, of.what(d))
				}
				slices.Sort(all)
				for _, q := range of.at {
					fmt.Fprintf(b.out, " %s |", short(quantile(all, q)))
				}
			}
			fmt.Fprintln(b.out)
		}
	}
	return nil
}

// latencies measures puts at a pace.
func (b *bench) latencies(k heard, pace time.Duration) ([]delay, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := max(1, int(time.Duration(b.rounds)*b.round/pace/3))
	called, returned, committed, heard := make([]time.Time, n), make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
	all, left := make(chan struct{}), n
	s, end, err := k.open(ctx, func(price int, at time.Time) {
		if price < 0 {
			return
		}
		heard[price], committed[price] = time.Now(), at
		if left--; left == 0 {
			close(all)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, key := range b.keys {
		if err := s.put(key, seat{Class: "first", Price: -1}); err != nil {
			return nil, err
		}
	}
	due := time.Now()
	for i := range n {
		due = due.Add(pace)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait) //nolint:forbidigo // the pace, which nobody ends early
		}
		called[i] = time.Now()
		if err := s.put(b.keys[i%len(b.keys)], seat{Class: "first", Price: i}); err != nil {
			return nil, err
		}
		returned[i] = time.Now()
	}
	select {
	case <-all:
	case <-time.After(10 * time.Second):
		err = fmt.Errorf("of %d puts not all were heard", n)
	}
	cancel()
	if err = errors.Join(err, end(), s.close()); err != nil { // nobody writes into heard any more
		return nil, err
	}
	took := make([]delay, n)
	for i := range took {
		if committed[i].IsZero() {
			committed[i] = called[i]
		}
		took[i] = delay{put: returned[i].Sub(called[i]), fromCall: heard[i].Sub(called[i]), fromCommit: heard[i].Sub(committed[i])}
	}
	return took, nil
}

// A ping stores nothing, and hands what was put to a goroutine that waits for
// it: nothing that wakes a listener is quicker.
type ping struct {
	guarded

	told chan int
}

func (s *ping) put(_ string, v seat) error {
	s.told <- v.Price
	return nil
}

func hearChannel(_ context.Context, seen func(int, time.Time)) (store, func() error, error) {
	s := &ping{told: make(chan int)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for price := range s.told {
			seen(price, time.Time{})
		}
	})
	return s, func() error {
		close(s.told)
		wg.Wait()
		return nil
	}, nil
}

// A bell wakes a goroutine that looks for what was put, and lets it go first.
type bell struct {
	guarded

	last atomic.Int64
	rung chan struct{} // of capacity 1
}

func (s *bell) put(_ string, v seat) error {
	s.last.Store(int64(v.Price))
	select {
	case s.rung <- struct{}{}:
		runtime.Gosched()
	default: // it is awake
	}
	return nil
}

func hearBell(_ context.Context, seen func(int, time.Time)) (store, func() error, error) {
	s := &bell{rung: make(chan struct{}, 1)}
	s.last.Store(-1)
	var wg sync.WaitGroup
	wg.Go(func() {
		next := 0
		for range s.rung {
			for ; next <= int(s.last.Load()); next++ {
				seen(next, time.Time{})
			}
		}
	})
	return s, func() error {
		close(s.rung)
		wg.Wait()
		return nil
	}, nil
}

// A tellingMap is a guarded map that sends what was put.
type tellingMap struct {
	guarded

	told chan told
}

type told struct {
	price     int
	committed time.Time
}

func (s *tellingMap) put(key string, v seat) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(key, v)
	s.told <- told{v.Price, time.Now()}
	return nil
}

func hearGuarded(_ context.Context, seen func(int, time.Time)) (store, func() error, error) {
	s := &tellingMap{guarded: guarded{seats: make(map[string]seat)}, told: make(chan told, 1024)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := range s.told {
			seen(v.price, v.committed)
		}
	})
	return s, func() error {
		close(s.told)
		wg.Wait()
		return nil
	}, nil
}

func hearStatedb(ctx context.Context, seen func(int, time.Time)) (store, func() error, error) {
	s, err := newStatedb(false)
	if err != nil {
		return nil, nil, err
	}
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = s.listen(ctx, func(v seat) { seen(v.Price, time.Time{}) }) })
	return s, func() error {
		wg.Wait()
		return failed
	}, nil
}

func hearRegion(_ context.Context, seen func(int, time.Time)) (store, func() error, error) {
	s, err := openRegion(false)
	if err != nil {
		return nil, nil, err
	}
	hear := func(_ context.Context, c listeners.Change[seat]) error {
		seen(c.After.Price, c.Tx.Time)
		return nil
	}
	_, err = s.Subscribe("latency", listeners.Handlers[seat]{OnCreate: hear, OnUpdate: hear}, nil)
	return s, func() error { return nil }, err
}
