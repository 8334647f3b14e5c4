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
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/kafkaserver"
	"github.com/rowcall/rowcall/internal/pgserver"
)

func main() {
	b := bench{out: os.Stdout}
	flag.IntVar(&b.rows, "rows", 1_000_000, "rows of the backlog")
	flag.IntVar(&b.perTx, "per-transaction", 1000, "rows of each transaction")
	flag.IntVar(&b.large, "large", 2_000_000, "rows of one large transaction")
	flag.StringVar(&b.only, "only", "", "parts to run, of drain, snapshot, large and latency; snapshot needs drain (default: all)")
	flag.StringVar(&b.to, "to", "discard,nats,kafka", "where drain goes; kafka needs -kafka")
	flag.StringVar(&b.kafka, "kafka", os.Getenv(kafkaserver.LibsVariable), "directory with the jars of a Kafka broker, to drain to Kafka, too (default $"+kafkaserver.LibsVariable+")")
	flag.StringVar(&b.jars, "debezium", "", "directory with the jars of Debezium's engine, for drain to run it, too")
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
	rows, perTx, large int
	only, to, kafka    string
	jars               string // of Debezium; "" without
	out                io.Writer

	dir    string
	binary string
	server *pgserver.Server
	conn   *pgx.Conn
}

const publication = "bench"

func (b *bench) run(ctx context.Context) (err error) {
	if b.rows < 1 || b.perTx < 1 || b.large < 1 {
		return errors.New("-rows, -per-transaction and -large must be positive")
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

	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"drain", b.drain}, {"snapshot", b.snapshot}, {"large", b.largeTransaction}, {"latency", b.latency}} {
		if b.only != "" && !strings.Contains(","+b.only+",", ","+part.name+",") {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

func (b *bench) url() string { return b.server.URL("postgres") }
