package pgwrite_test

import (
	"context"
	"testing"
	"time"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type seat struct {
	Class string
	Price string // exact, of a numeric
	Sold  int
	Total int64 `db:"total,optional"` // a generated column, which is not in the stream
}

type train struct {
	Name string
	Sold int
}

// A shop is a database that is mirrored, with a writer to it.
type shop struct {
	url    string
	group  *grid.Group
	seats  *grid.Region[string, seat]
	trains *grid.Region[int64, train]
	w      *pgwrite.Writer
	put    *pgwrite.Table[string, seat]
	call   *pgwrite.Table[int64, train]
	stop   func() // of the source; returns when it has ended
}

const schema = `
	CREATE TABLE trains (id bigint PRIMARY KEY, name text NOT NULL, sold int NOT NULL DEFAULT 0, secret text DEFAULT 'kept');
	CREATE TABLE seats (
		number text PRIMARY KEY, class text NOT NULL CHECK (class IN ('first', 'second')), price numeric(10,2), sold int NOT NULL,
		total int GENERATED ALWAYS AS (sold * 2) STORED, berth int UNIQUE, train bigint REFERENCES trains DEFERRABLE INITIALLY DEFERRED)`

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// run starts a source and stops it, with the grid, at the test's end.
func run(t *testing.T, src *cdc.Source, g *grid.Grid) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-ended; err != nil {
				t.Errorf("Run() = %v, want nil", err)
			}
		}
	}
	t.Cleanup(func() {
		stop()
		closing, done := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer done()
		if err := g.Close(closing); err != nil {
			t.Errorf("Close() of the grid = %v, want nil", err)
		}
	})
	return stop
}

func bind[K comparable, V any](t *testing.T, w *pgwrite.Writer, r *grid.Region[K, V], table string) *pgwrite.Table[K, V] {
	t.Helper()
	tab, err := pgwrite.Bind(deadline(t), w, r, table)
	if err != nil {
		t.Fatalf("Bind(%s) = %v, want no error", table, err)
	}
	return tab
}

func newShop(t *testing.T, setup ...string) *shop {
	t.Helper()
	s := &shop{url: pgtest.Database(t)}
	pgtest.Exec(t, s.url, append([]string{schema}, setup...)...)
	src, err := cdc.New(s.url, &cdc.Options{Tables: []string{"public.seats", "public.trains"}})
	if err != nil {
		t.Fatal(err)
	}
	g := grid.New("shop", nil)
	if s.group, err = grid.NewGroup(g, "trade", src, nil); err != nil {
		t.Fatal(err)
	}
	if s.seats, err = grid.AddTable[string, seat](s.group, "seats", "public.seats", nil); err != nil {
		t.Fatal(err)
	}
	if s.trains, err = grid.AddTable[int64, train](s.group, "trains", "public.trains", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.group.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = run(t, src, g)
	if err := s.group.WaitReady(deadline(t)); err != nil {
		t.Fatal(err)
	}
	s.w = s.writer(t, nil)
	s.put, s.call = bind(t, s.w, s.seats, "public.seats"), bind(t, s.w, s.trains, "public.trains")
	return s
}

// writer returns one more writer, with a connection of its own.
func (s *shop) writer(t *testing.T, opts *pgwrite.Options) *pgwrite.Writer {
	t.Helper()
	w := pgwrite.New(pgtest.Connect(t, s.url), opts)
	t.Cleanup(func() {
		ctx, done := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer done()
		if err := w.Close(ctx); err != nil {
			t.Errorf("Close() of a writer = %v, want nil", err)
		}
	})
	return w
}

// row returns a column of the database as text, "" for no row.
func (s *shop) row(t *testing.T, sql string, args ...any) string {
	t.Helper()
	conn := pgtest.Connect(t, s.url)
	var text string
	if err := conn.QueryRow(deadline(t), "SELECT coalesce(("+sql+")::text, '')", args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}
