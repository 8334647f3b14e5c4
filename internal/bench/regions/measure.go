package main

import (
	"fmt"
	"os"
	"slices"
	"time"
)

// A runner does n operations.
type runner func(n int) error

// A line is one line of a table: the same work, done by several programs.
type line struct {
	what string
	runs []runner // in the order of the programs; nil for one that cannot
}

// medians runs a line's programs in turns and returns the median time of an
// operation for each, 0 for one that cannot.
func (b *bench) medians(l line) ([]time.Duration, error) {
	fmt.Fprintf(os.Stderr, "bench: %s\n", l.what)
	size := make([]int, len(l.runs))
	for i, run := range l.runs {
		if run == nil {
			continue
		}
		for n := 100; ; n *= 2 {
			took, err := timed(run, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.what, err)
			}
			if took > b.round/4 {
				size[i] = max(1, int(float64(n)*float64(b.round)/float64(took)))
				break
			}
		}
	}
	each := make([][]float64, len(l.runs))
	for range b.rounds {
		for i, run := range l.runs {
			if run == nil {
				continue
			}
			took, err := timed(run, size[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.what, err)
			}
			each[i] = append(each[i], float64(took)/float64(size[i]))
		}
	}
	result := make([]time.Duration, len(l.runs))
	for i, times := range each {
		if len(times) > 0 {
			slices.Sort(times)
			result[i] = time.Duration(times[len(times)/2])
		}
	}
	return result, nil
}

func timed(run runner, n int) (time.Duration, error) {
	start := time.Now()
	err := run(n)
	return time.Since(start), err
}

// table measures lines and prints them with the ratios of ours to memdb's and
// to statedb's.
func (b *bench) table(title string, lines []line) error {
	names := programs()
	fmt.Fprintf(b.out, "\n%s\n\n| |", title)
	for _, p := range names {
		fmt.Fprintf(b.out, " %s |", p.name)
	}
	fmt.Fprint(b.out, " region / memdb | region / statedb |\n|---|")
	for range len(names) + 2 {
		fmt.Fprint(b.out, "---|")
	}
	fmt.Fprintln(b.out)
	for _, l := range lines {
		took, err := b.medians(l)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.out, "| %s |", l.what)
		for _, t := range took {
			fmt.Fprintf(b.out, " %s |", short(t))
		}
		ours := took[len(took)-1]
		fmt.Fprintf(b.out, " %.2f | %.2f |\n", float64(ours)/float64(took[0]), float64(ours)/float64(took[1]))
	}
	return nil
}

func short(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d)
	default:
		return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
	}
}

// quantile returns that of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}
