package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	b := bench{out: os.Stdout}
	flag.IntVar(&b.entries, "entries", 100_000, "entries of each store; a multiple of 1,000")
	flag.IntVar(&b.large, "large", 1_000_000, "entries of each store when its memory is measured; a multiple of 1,000")
	flag.IntVar(&b.rounds, "rounds", 9, "rounds of each measurement")
	flag.DurationVar(&b.round, "round", 200*time.Millisecond, "time of a round, about")
	only := flag.String("only", "", "parts to run, of "+strings.Join(partNames(), ", ")+" (default: all)")
	flag.Parse()
	if err := b.run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is one run.
type bench struct {
	entries, large, rounds int
	round                  time.Duration
	out                    io.Writer
	keys                   []string
}

type part struct {
	name string
	run  func(*bench) error
}

func parts() []part {
	return []part{
		{"put", (*bench).put},
		{"group", (*bench).group},
		{"putall", (*bench).putAll},
		{"get", (*bench).get},
		{"index", (*bench).index},
		{"range", (*bench).scan},
		{"latency", (*bench).latency},
		{"readers", (*bench).readers},
		{"memory", (*bench).memory},
	}
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

func (b *bench) run(only string) error {
	if b.entries < 1000 || b.large < 1000 || b.entries%1000 != 0 || b.large%1000 != 0 || b.rounds < 1 || b.round <= 0 {
		return errors.New("-entries and -large must be multiples of 1,000, -rounds and -round positive")
	}
	wanted := partNames()
	if only != "" {
		wanted = strings.Split(only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("there is no part %q; there are %s", name, strings.Join(partNames(), ", "))
		}
	}
	b.keys = keysOf(b.entries)
	fmt.Fprintf(b.out, "%d entries, %d cores, %s; medians of %d rounds of %s\n", b.entries, runtime.NumCPU(), runtime.Version(), b.rounds, b.round)
	for _, p := range parts() {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		if err := p.run(b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		runtime.GC() // what the part has left is not the next one's work
	}
	return nil
}

// stores opens one store of each program, and fills it.
func (b *bench) stores(indexed bool) (stores []store, closeAll func() error, err error) {
	closeAll = func() error {
		var errs []error
		for _, s := range stores {
			errs = append(errs, s.close())
		}
		return errors.Join(errs...)
	}
	for _, p := range programs() {
		s, err := p.open(indexed)
		if err == nil {
			stores = append(stores, s)
			err = fill(s, b.keys)
		}
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("%s: %w", p.name, err), closeAll())
		}
	}
	return stores, closeAll, nil
}
