package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// snapshot reads the table that drain has filled beside a plain COPY of it.
func (b *bench) snapshot(ctx context.Context) error {
	args := func(workers string) []string {
		return []string{"--tables", "public.orders", "--snapshot", "only", "--to", "discard", "--snapshot-workers", workers}
	}
	results, err := measureAll(ctx, []program{
		b.copy("text"), b.copy("binary"),
		b.once("rowcall run --snapshot only, 1 worker", b.rows, args("1")...),
		b.once("rowcall run --snapshot only, 2 workers", b.rows, args("2")...),
		b.copy("text"),
	})
	if err != nil {
		return err
	}
	base := (results[0].rate(b.rows) + results[4].rate(b.rows)) / 2
	fmt.Fprintf(b.out, "\nA snapshot of %d rows\n\n| program | rows/s | ratio | client CPU per row | max RSS |\n|---|---|---|---|---|\n", b.rows)
	for _, r := range results {
		cpu, rss := "", ""
		if r.cpu > 0 {
			cpu = fmt.Sprintf("%.1f µs", float64(r.cpu)/float64(time.Microsecond)/float64(b.rows))
			rss = fmt.Sprintf("%.0f MiB", float64(r.rss)/(1<<20))
		}
		fmt.Fprintf(b.out, "| %s | %.0fk | %.2f | %s | %s |\n", r.name, r.rate(b.rows)/1000, r.rate(b.rows)/base, cpu, rss)
	}
	fmt.Fprintln(b.out, "\nThe ratio is to the mean of the two text COPYs.")
	return nil
}

// copy runs in this process, so only its time is known.
func (b *bench) copy(format string) program {
	name := "COPY orders TO STDOUT (FORMAT " + format + ")"
	return program{name: name, drain: func(ctx context.Context) (result, error) {
		start := time.Now()
		tag, err := b.conn.PgConn().CopyTo(ctx, io.Discard, "COPY orders TO STDOUT (FORMAT "+format+")")
		if err == nil && tag.RowsAffected() != int64(b.rows) {
			err = errors.New("not all rows")
		}
		return result{name: name, elapsed: time.Since(start)}, err
	}}
}
