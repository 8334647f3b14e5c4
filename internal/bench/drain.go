package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

const columns = `id bigint PRIMARY KEY, customer text, total numeric(12,2), quantity int,
	paid boolean, detail jsonb, placed timestamptz`

// orders makes rows of 7 columns, about 150 bytes each.
const orders = `SELECT i, 'customer ' || i, i * 1.07, i % 10, i % 2 = 0, jsonb_build_object('seat', i, 'note', 'window ' || i), now()
	FROM generate_series($1::bigint, $2::bigint) i`

// drain reads a backlog of small transactions beside pg_recvlogical.
func (b *bench) drain(ctx context.Context) error {
	to := map[string]func(catchUp bool) program{
		"discard": func(catchUp bool) program { return b.rowcall("discard", catchUp) },
		"nats":    func(catchUp bool) program { return b.rowcall("nats", catchUp) },
		"kafka":   b.toKafka,
	}
	programs := []program{b.recvlogical("recv0")}
	for name := range strings.SplitSeq(b.to, ",") {
		program, known := to[name]
		switch {
		case !known:
			return fmt.Errorf("-to %q: want discard, nats and kafka, separated by commas", name)
		case name == "kafka" && b.kafka == "":
			continue
		}
		for _, catchUp := range []bool{true, false} {
			programs = append(programs, program(catchUp), b.recvlogical(fmt.Sprintf("recv%d", len(programs))))
		}
	}
	if b.jars != "" {
		programs = append(programs, b.debezium(), b.recvlogical(fmt.Sprintf("recv%d", len(programs))))
	}
	if err := b.load(ctx, programs); err != nil {
		return err
	}
	results, err := measureAll(ctx, programs)
	if err != nil {
		return err
	}
	b.print(results)
	return nil
}

// load creates the table and the slots, and then the backlog.
func (b *bench) load(ctx context.Context, programs []program) error {
	for _, sql := range []string{
		"CREATE TABLE orders (" + columns + ")",
		"CREATE PUBLICATION " + publication + " FOR TABLE orders",
	} {
		if _, err := b.conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := b.prepareWarmUp(ctx); err != nil {
		return fmt.Errorf("prepare the warm-up: %w", err)
	}
	for _, p := range programs {
		if err := p.prepare(ctx); err != nil {
			return fmt.Errorf("prepare %s: %w", p.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "bench: writing %d rows\n", b.rows)
	for from := 1; from <= b.rows; from += b.perTx {
		_, err := b.conn.Exec(ctx, "INSERT INTO orders "+orders, from, min(from+b.perTx-1, b.rows))
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) print(results []result) {
	var base float64
	var n int
	for _, r := range results {
		if r.reference {
			base += r.rate(b.rows)
			n++
		}
	}
	base /= float64(n)
	fmt.Fprintf(b.out, "%d rows in transactions of %d, PostgreSQL %d on loopback, %d cores, %s\n\n",
		b.rows, b.perTx, b.server.Version(), runtime.NumCPU(), runtime.Version())
	fmt.Fprintln(b.out, "| program | rows/s | ratio | client CPU per row | max RSS |")
	fmt.Fprintln(b.out, "|---|---|---|---|---|")
	for _, r := range results {
		fmt.Fprintf(b.out, "| %s | %.0fk | %.2f | %.1f µs | %.0f MiB |\n", r.name, r.rate(b.rows)/1000, r.rate(b.rows)/base,
			float64(r.cpu)/float64(time.Microsecond)/float64(b.rows), float64(r.rss)/(1<<20))
	}
	for _, r := range results {
		if r.broker > 0 {
			fmt.Fprintf(b.out, "\n%s: the broker took %.1f µs of CPU per row besides.\n", r.name, float64(r.broker)/float64(time.Microsecond)/float64(b.rows))
		}
	}
}
