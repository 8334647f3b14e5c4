package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A heard is a store with one listener, which tells of each value's Price.
type heard struct {
	name string
	open func(ctx context.Context, seen func(price int)) (s store, end func() error, err error)
}

// latency measures from the call of put, so with the commit, to the listener on
// its own goroutine: a put that lets the listener run before it returns gains
// nothing by that.
func (b *bench) latency() error {
	kinds := []heard{
		{"channel alone, the floor", hearChannel},
		{"map and channel", hearGuarded},
		{"statedb's change iterator", hearStatedb},
		{"region", hearRegion},
	}
	fmt.Fprint(b.out, "\nFrom the call of put, so with the commit, to a listener on a goroutine of its own\n\n| | put, p50 | heard, p50 | p90 | p99 |\n|---|---|---|---|---|\n")
	for _, pace := range []time.Duration{time.Millisecond, 100 * time.Microsecond} {
		puts, took := make([][]time.Duration, len(kinds)), make([][]time.Duration, len(kinds))
		for range 3 {
			for i, k := range kinds {
				fmt.Fprintf(os.Stderr, "bench: latency of %s\n", k.name)
				p, t, err := b.latencies(k, pace)
				if err != nil {
					return fmt.Errorf("%s: %w", k.name, err)
				}
				puts[i], took[i] = append(puts[i], p...), append(took[i], t...)
			}
		}
		for i, k := range kinds {
			slices.Sort(puts[i])
			slices.Sort(took[i])
			fmt.Fprintf(b.out, "| %s, a put each %s | %s | %s | %s | %s |\n", k.name, pace, short(quantile(puts[i], 0.5)),
				short(quantile(took[i], 0.5)), short(quantile(took[i], 0.9)), short(quantile(took[i], 0.99)))
		}
	}
	return nil
}

// latencies returns what puts took, and how long after their call they were
// heard.
func (b *bench) latencies(k heard, pace time.Duration) (puts, took []time.Duration, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := max(1, int(time.Duration(b.rounds)*b.round/pace/3))
	called, heard := make([]time.Time, n), make([]time.Time, n)
	all, left := make(chan struct{}), n
	s, end, err := k.open(ctx, func(price int) {
		if price < 0 {
			return
		}
		heard[price] = time.Now()
		if left--; left == 0 {
			close(all)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	for _, key := range b.keys {
		if err := s.put(key, seat{Class: "first", Price: -1}); err != nil {
			return nil, nil, err
		}
	}
	due := time.Now()
	for i := range n {
		due = due.Add(pace)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		called[i] = time.Now()
		if err := s.put(b.keys[i%len(b.keys)], seat{Class: "first", Price: i}); err != nil {
			return nil, nil, err
		}
		puts = append(puts, time.Since(called[i]))
	}
	select {
	case <-all:
	case <-time.After(10 * time.Second):
		err = fmt.Errorf("of %d puts not all were heard", n)
	}
	cancel()
	err = errors.Join(err, end(), s.close()) // nobody writes into heard any more
	for i := range called {
		took = append(took, heard[i].Sub(called[i]))
	}
	return puts, took, err
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

func hearChannel(_ context.Context, seen func(int)) (store, func() error, error) {
	s := &ping{told: make(chan int)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for price := range s.told {
			seen(price)
		}
	})
	return s, func() error {
		close(s.told)
		wg.Wait()
		return nil
	}, nil
}

// A tellingMap is a guarded map that sends what was put.
type tellingMap struct {
	guarded

	told chan seat
}

func (s *tellingMap) put(key string, v seat) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(key, v)
	s.told <- v
	return nil
}

func hearGuarded(_ context.Context, seen func(int)) (store, func() error, error) {
	s := &tellingMap{guarded: guarded{seats: make(map[string]seat)}, told: make(chan seat, 1024)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := range s.told {
			seen(v.Price)
		}
	})
	return s, func() error {
		close(s.told)
		wg.Wait()
		return nil
	}, nil
}

func hearStatedb(ctx context.Context, seen func(int)) (store, func() error, error) {
	s, err := newStatedb(false)
	if err != nil {
		return nil, nil, err
	}
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = s.listen(ctx, func(v seat) { seen(v.Price) }) })
	return s, func() error {
		wg.Wait()
		return failed
	}, nil
}

func hearRegion(_ context.Context, seen func(int)) (store, func() error, error) {
	s, err := openRegion(false)
	if err != nil {
		return nil, nil, err
	}
	hear := func(_ context.Context, c listeners.Change[seat]) error {
		seen(c.After.Price)
		return nil
	}
	_, err = s.Subscribe("latency", listeners.Handlers[seat]{OnCreate: hear, OnUpdate: hear}, nil)
	return s, func() error { return nil }, err
}
