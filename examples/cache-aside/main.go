// Command cache-aside is a web server with a cache in front of Postgres that
// needs no expiry and no invalidation. It is meant to be copied.
//
// A region mirrors the table in memory. Reads are answered from there, and
// never ask the database. Writes go to the database, and are answered when the
// region shows them, so who has written reads the own write. What others write,
// by psql or another program, arrives the same way.
//
// It needs a database with wal_level = logical and this table:
//
//	CREATE TABLE products (
//	    id    bigint PRIMARY KEY,
//	    name  text NOT NULL,
//	    stock int NOT NULL CHECK (stock >= 0)
//	);
//
// Start it, write through it, and read from memory:
//
//	go run ./examples/cache-aside -database-url postgres://app@localhost/shop
//	curl -X PUT -d '{"name":"kettle","stock":3}' localhost:8080/products/1
//	curl -X POST localhost:8080/products/1/sell
//	curl localhost:8080/products/1
//
// It creates a publication and a slot named cache_aside_example. A slot makes
// the database keep its log for as long as nobody reads it, so drop it
// afterwards:
//
//	SELECT pg_drop_replication_slot('cache_aside_example');
//	DROP PUBLICATION cache_aside_example;
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/listeners"
)

// Product is one row of the table, without its key.
type Product struct {
	Name  string `db:"name" json:"name"`
	Stock int    `db:"stock" json:"stock"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cache-aside:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("cache-aside", flag.ContinueOnError)
	databaseURL := flags.String("database-url", os.Getenv("ROWCALL_DATABASE_URL"), "database with the table")
	address := flags.String("listen", "127.0.0.1:8080", "address of the web server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *databaseURL == "" {
		return errors.New("which database? Start it with -database-url postgres://app@localhost/shop, or set ROWCALL_DATABASE_URL")
	}

	// The region mirrors the table.
	source, err := cdc.New(*databaseURL, &cdc.Options{Tables: []string{"public.products"}, Slot: "cache_aside_example"})
	if err != nil {
		return err
	}
	g := grid.New("shop", nil)
	defer func() { err = errors.Join(err, g.Close(context.WithoutCancel(ctx))) }()
	products, err := grid.Mirror[int64, Product](g, "products", source.Table("public.products"), nil)
	if err != nil {
		return err
	}

	// The writer writes to the table, and waits for the region.
	pool, err := pgxpool.New(ctx, *databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	w := pgwrite.New(pool, &pgwrite.Options{Timeout: 5 * time.Second})
	defer func() { err = errors.Join(err, w.Close(context.WithoutCancel(ctx))) }()
	table, err := pgwrite.Bind(ctx, w, products, "public.products")
	if err != nil {
		return err
	}

	// A source that fails stops the server, and the other way round: a cache
	// that nobody feeds would grow old in silence.
	working, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		defer stop()
		failed = source.Run(working)
	})
	if err = products.WaitReady(working); err == nil {
		err = serve(working, *address, &shop{products: products, table: table}, out)
	}
	stop()
	wg.Wait()
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil // it was told to end before it was ready
	}
	return err
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, address string, s *shop, out io.Writer) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	unhook := context.AfterFunc(ctx, func() {
		// Writes under way end within the writer's time, which is less.
		closing, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer done()
		stopped <- server.Shutdown(closing)
	})
	fmt.Fprintf(out, "%d products in memory, listening on http://%s\n", s.products.Len(), listener.Addr())
	err = server.Serve(listener)
	if unhook() {
		return err
	}
	return <-stopped
}

type shop struct {
	products *grid.Region[int64, Product]
	table    *pgwrite.Table[int64, Product]
}

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(http.ResponseWriter, *http.Request, int64)) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
			if err != nil {
				http.Error(rw, "the product's id is a number", http.StatusBadRequest)
				return
			}
			f(rw, r, id)
		})
	}
	handle("GET /products/{id}", s.get)
	handle("PUT /products/{id}", s.put)
	handle("POST /products/{id}/sell", s.sell)
	handle("DELETE /products/{id}", s.remove)
	return mux
}

// get is the cache: it reads from memory.
func (s *shop) get(rw http.ResponseWriter, _ *http.Request, id int64) {
	product, ok := s.products.Get(id)
	if !ok {
		http.Error(rw, "no such product", http.StatusNotFound)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(product) // the client is gone if it fails
}

func (s *shop) put(rw http.ResponseWriter, r *http.Request, id int64) {
	var product Product
	if err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, 1<<16)).Decode(&product); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	at, err := s.table.Put(r.Context(), id, product)
	answer(rw, at, err)
}

// sell takes one from the stock as the database has it, which may be newer than
// what the region shows; the row is locked in between.
func (s *shop) sell(rw http.ResponseWriter, r *http.Request, id int64) {
	at, err := s.table.Update(r.Context(), id, func(p Product) (Product, error) {
		p.Stock--
		return p, nil
	})
	answer(rw, at, err)
}

func (s *shop) remove(rw http.ResponseWriter, r *http.Request, id int64) {
	at, existed, err := s.table.Delete(r.Context(), id)
	if err == nil && !existed {
		err = grid.ErrNotFound
	}
	answer(rw, at, err)
}

// answer ends a write. The position is the change's place in the source's
// order: listeners hear of the same one.
func answer(rw http.ResponseWriter, at listeners.Position, err error) {
	var refused *pgwrite.ConstraintError
	var unseen *pgwrite.UnseenError
	switch {
	case err == nil:
		rw.Header().Set("Position", at.String())
		rw.WriteHeader(http.StatusNoContent)
	case errors.Is(err, grid.ErrNotFound):
		http.Error(rw, "no such product", http.StatusNotFound)
	case errors.As(err, &refused):
		http.Error(rw, "the database refuses it: "+refused.Constraint, http.StatusConflict)
	case errors.As(err, &unseen):
		// It is stored, only the cache does not show it yet.
		http.Error(rw, err.Error(), http.StatusAccepted)
	default:
		http.Error(rw, err.Error(), http.StatusInternalServerError)
	}
}
