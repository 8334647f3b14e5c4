package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// largeTransaction measures the memory that one transaction of rows takes, streamed while
// the server decodes it and kept by the server until it commits.
func (b *bench) largeTransaction(ctx context.Context) error {
	rows := b.large
	if _, err := b.conn.Exec(ctx, "CREATE TABLE large ("+columns+"); CREATE PUBLICATION large FOR TABLE large"); err != nil {
		return err
	}
	var programs []program
	for _, streaming := range []string{"on", "off"} {
		programs = append(programs, b.fromSlot("rowcall run --to discard --streaming "+streaming, rows,
			"--slot", "large_"+streaming, "--publication", "large", "--to", "discard", "--streaming", streaming,
			"--spool-dir", b.dir, "--catch-up-bytes", "0"))
	}
	for _, p := range programs {
		if err := p.prepare(ctx); err != nil {
			return fmt.Errorf("prepare %s: %w", p.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "bench: writing %d rows in one transaction\n", rows)
	if _, err := b.conn.Exec(ctx, "INSERT INTO large "+orders, 1, rows); err != nil {
		return err
	}
	results, err := measureAll(ctx, programs)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\n%d rows in one transaction\n\n| program | rows/s | client CPU per row | max RSS |\n|---|---|---|---|\n", rows)
	for _, r := range results {
		fmt.Fprintf(b.out, "| %s | %.0fk | %.1f µs | %.0f MiB |\n", r.name, r.rate(rows)/1000,
			float64(r.cpu)/float64(time.Microsecond)/float64(rows), float64(r.rss)/(1<<20))
	}
	return nil
}
