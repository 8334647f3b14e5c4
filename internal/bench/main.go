package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/pgserver"
)

func main() {
	b := bench{out: os.Stdout}
	flag.IntVar(&b.rows, "rows", 1_000_000, "rows of the backlog")
	flag.IntVar(&b.perTx, "per-transaction", 1000, "rows of each transaction")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is one run.
type bench struct {
	rows, perTx int
	out         io.Writer

	dir    string
	binary string
	server *pgserver.Server
	conn   *pgx.Conn
}

const publication = "bench"

func (b *bench) run(ctx context.Context) (err error) {
	if b.rows < 1 || b.perTx < 1 {
		return errors.New("-rows and -per-transaction must be positive")
	}
	if b.dir, err = os.MkdirTemp("", "rowcall-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.binary = filepath.Join(b.dir, "rowcall")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "./cmd/rowcall") //nolint:gosec // our own directory
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build rowcall: %w\n%s", err, out)
	}
	b.server, err = pgserver.Start(ctx, &pgserver.Options{Settings: map[string]string{"max_wal_size": "16GB", "shared_buffers": "512MB"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.server.Stop(context.WithoutCancel(ctx))) }()
	if b.conn, err = pgx.Connect(ctx, b.url()); err != nil {
		return err
	}
	defer b.conn.Close(context.WithoutCancel(ctx))

	programs := []program{
		b.recvlogical("recv1"), b.rowcall("discard", true), b.recvlogical("recv2"), b.rowcall("discard", false),
		b.recvlogical("recv3"), b.rowcall("nats", true), b.recvlogical("recv4"), b.rowcall("nats", false),
	}
	if err := b.load(ctx, programs); err != nil {
		return err
	}
	var results []result
	for _, p := range programs {
		fmt.Fprintf(os.Stderr, "bench: %s\n", p.name)
		r, err := p.drain(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		results = append(results, r)
	}
	b.print(results)
	return nil
}

func (b *bench) url() string { return b.server.URL("postgres") }

// load creates the table and the slots, and then the backlog: 7 columns, about
// 150 bytes a row.
func (b *bench) load(ctx context.Context, programs []program) error {
	for _, sql := range []string{
		`CREATE TABLE orders (id bigint PRIMARY KEY, customer text, total numeric(12,2), quantity int,
			paid boolean, detail jsonb, placed timestamptz)`,
		"CREATE PUBLICATION " + publication + " FOR TABLE orders",
	} {
		if _, err := b.conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	for _, p := range programs {
		if err := p.prepare(ctx); err != nil {
			return fmt.Errorf("prepare %s: %w", p.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "bench: writing %d rows\n", b.rows)
	for from := 1; from <= b.rows; from += b.perTx {
		_, err := b.conn.Exec(ctx, `INSERT INTO orders
			SELECT i, 'customer ' || i, i * 1.07, i % 10, i % 2 = 0, jsonb_build_object('seat', i, 'note', 'window ' || i), now()
			FROM generate_series($1::bigint, $2::bigint) i`, from, min(from+b.perTx-1, b.rows))
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
}
