package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// readers measures single look-ups, alone and while somebody writes as fast as
// it can.
func (b *bench) readers() (err error) {
	stores, closeAll, err := b.stores(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	times := make([][2][]time.Duration, len(stores)) // alone, and beside a writer
	for round := range b.rounds {
		fmt.Fprintf(os.Stderr, "bench: readers, round %d\n", round+1)
		for i, s := range stores {
			times[i][0] = append(times[i][0], b.gets(s)...)
			loaded, err := b.getsBesideWriter(s)
			if err != nil {
				return err
			}
			times[i][1] = append(times[i][1], loaded...)
		}
	}
	fmt.Fprint(b.out, "\nOne get, alone and beside a writer at full speed\n\n"+
		"| | alone: p50 | p99 | beside a writer: p50 | p99 | p99 / p99 alone |\n|---|---|---|---|---|---|\n")
	for i, p := range programs() {
		slices.Sort(times[i][0])
		slices.Sort(times[i][1])
		alone, loaded := quantile(times[i][0], 0.99), quantile(times[i][1], 0.99)
		fmt.Fprintf(b.out, "| %s | %s | %s | %s | %s | %.2f |\n", p.name, short(quantile(times[i][0], 0.5)), short(alone),
			short(quantile(times[i][1], 0.5)), short(loaded), float64(loaded)/float64(alone))
	}
	return nil
}

// gets times look-ups for a round; each time includes one look at the clock.
func (b *bench) gets(s store) []time.Duration {
	var times []time.Duration
	start := time.Now()
	for i, last := 0, start; last.Sub(start) < b.round; i++ {
		has(s, b.keys[i*7919%len(b.keys)])
		now := time.Now()
		times = append(times, now.Sub(last))
		last = now
	}
	return times
}

func (b *bench) getsBesideWriter(s store) ([]time.Duration, error) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		for i := 0; !stop.Load() && err == nil; i++ {
			err = s.put(b.keys[i%len(b.keys)], seat{Coach: 1, Class: "second", Price: i})
		}
	})
	times := b.gets(s)
	stop.Store(true)
	wg.Wait()
	return times, err
}
