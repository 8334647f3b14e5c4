package pgwrite_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

// unseen checks that a write is committed but was not shown.
func unseen(t *testing.T, s *shop, err error, want string) {
	t.Helper()
	u, ok := errors.AsType[*pgwrite.UnseenError](err)
	if !ok || u.Tx == 0 || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "is committed") {
		t.Errorf("error %v, want an UnseenError with %q", err, want)
	}
	if got := s.row(t, "SELECT name FROM trains WHERE id = 7"); got != "IC 7" {
		t.Errorf("the database has %q, want the row committed", got)
	}
}

func TestAWriteThatDoesNotComeBackDoesNotHang(t *testing.T) {
	t.Run("not published", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		pgtest.Exec(t, s.url, "ALTER PUBLICATION rowcall_"+s.row(t, "SELECT current_database()")+" DROP TABLE trains")
		w := s.writer(t, &pgwrite.Options{Timeout: 100 * time.Millisecond})
		_, err := bind(t, w, s.trains, "public.trains").Put(deadline(t), 7, train{Name: "IC 7"})
		unseen(t, s, err, "is the table in the source's publication?")
	})
	t.Run("context", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		pgtest.Exec(t, s.url, "ALTER PUBLICATION rowcall_"+s.row(t, "SELECT current_database()")+" DROP TABLE trains")
		why := errors.New("the user went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			conn, err := pgx.Connect(t.Context(), s.url)
			for n := 0; err == nil && n == 0; <-tick.C {
				err = conn.QueryRow(t.Context(), "SELECT count(*) FROM trains").Scan(&n)
			}
			_ = conn.Close(t.Context())
			cancel(why)
		}()
		_, err := s.call.Put(ctx, 7, train{Name: "IC 7"})
		unseen(t, s, err, "the user went away")
		if !errors.Is(err, why) {
			t.Errorf("error %v does not wrap the context's cause", err)
		}
	})
	t.Run("source stopped", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		s.stop()
		_, err := s.call.Put(deadline(t), 7, train{Name: "IC 7"})
		unseen(t, s, err, "it follows its source no more")
	})
	t.Run("left out by a row filter", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, "INSERT INTO trains VALUES (7, 'old', 0), (8, 'IC 8', 0)")
		if v := s.row(t, "SELECT current_setting('server_version_num')"); v < "150000" {
			t.Skip("row filters need Postgres 15, this is " + v)
		}
		name := s.row(t, "SELECT current_database()")
		pgtest.Exec(t, s.url, "ALTER PUBLICATION rowcall_"+name+" SET TABLE trains WHERE (id > 7), seats")
		other := bind(t, s.writer(t, nil), s.trains, "public.trains")
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := other.Put(t.Context(), 8, train{Name: "IC 8"}); err != nil {
					t.Errorf("Put() of a row that is published = %v, want nil", err)
					return
				}
			}
		}()
		_, err := s.call.Put(deadline(t), 7, train{Name: "IC 7"})
		close(stop)
		<-ended
		unseen(t, s, err, "it shows a later transaction, and nothing of this one")
	})
	t.Run("writer closed", func(t *testing.T) {
		t.Parallel()
		s := newShop(t)
		if err := s.w.Close(deadline(t)); err != nil {
			t.Fatal(err)
		}
		_, err := s.call.Put(deadline(t), 7, train{Name: "IC 7"})
		unseen(t, s, err, listeners.ErrClosed.Error())
		if _, err := pgwrite.Bind(deadline(t), s.w, s.trains, "public.trains"); err == nil {
			t.Error("Bind() with a closed writer = nil")
		}
	})
}

// A torn is a database whose answer to a commit is lost.
type torn struct {
	pgwrite.DB

	commits bool
}

func (d torn) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := d.DB.Begin(ctx)
	return tornTx{tx, d.commits}, err
}

type tornTx struct {
	pgx.Tx

	commits bool
}

func (x tornTx) Commit(ctx context.Context) error {
	if x.commits {
		if err := x.Tx.Commit(ctx); err != nil {
			return err
		}
	} else if err := x.Rollback(ctx); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

func TestACommitWhoseAnswerIsLost(t *testing.T) {
	s := newShop(t)
	write := func(commits bool) error {
		timeout := 300 * time.Millisecond
		if commits {
			timeout = 20 * time.Second // within which the region tells
		}
		w := pgwrite.New(torn{pgtest.Connect(t, s.url), commits}, &pgwrite.Options{Timeout: timeout})
		_, err := bind(t, w, s.trains, "public.trains").Put(deadline(t), 7, train{Name: "IC 7"})
		return errors.Join(err, w.Close(deadline(t)))
	}
	if err := write(true); err != nil {
		t.Errorf("Put() that was committed = %v, want nil: the region tells", err)
	}
	err := write(false)
	if u, ok := errors.AsType[*pgwrite.UnknownError](err); !ok || u.Tx == 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Put() that was not committed = %v, want an UnknownError", err)
	}
}

func TestBindRefusesWhatDoesNotFit(t *testing.T) {
	s := newShop(t)
	pgtest.Exec(t, s.url, "CREATE TABLE keyless (a int)", "CREATE TABLE pairs (a int, b int, c int, PRIMARY KEY (a, b))")
	g := grid.New("g", nil)
	t.Cleanup(func() { _ = g.Close(context.WithoutCancel(t.Context())) })
	src, err := cdc.New(s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := grid.Open[string, seat](g, "own", nil)
	if err != nil {
		t.Fatal(err)
	}
	type wrong struct {
		Colour string `db:"colour"`
	}
	type pair struct{ A, X int }
	errs := map[string]error{
		"it is no mirror":                                second(pgwrite.Bind(deadline(t), s.w, own, "public.seats")),
		`write it as "schema.table"`:                     second(pgwrite.Bind(deadline(t), s.w, s.seats, "seats")),
		"there is no table public.none":                  second(pgwrite.Bind(deadline(t), s.w, s.seats, "public.none")),
		"has no primary key":                             second(pgwrite.Bind(deadline(t), s.w, s.seats, "public.keyless")),
		"is (a, b), which is more than the key type":     second(pgwrite.Bind(deadline(t), s.w, s.seats, "public.pairs")),
		`wants column "colour", which public.seats does`: bindMirror[string, wrong](t, g, "a", src, s, "public.seats"),
		`stands for "x", which is not in the primary`:    bindMirror[pair, seat](t, g, "b", src, s, "public.pairs"),
		"which do not fit the value type int":            bindMirror[string, int](t, g, "c", src, s, "public.seats"),
	}
	for want, err := range errs {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Bind() = %v, want an error with %q", err, want)
		}
	}
}

func bindMirror[K comparable, V any](t *testing.T, g *grid.Grid, name string, src *cdc.Source, s *shop, table string) error {
	t.Helper()
	m, err := grid.Mirror[K, V](g, name, src.Table(table), nil)
	if err != nil {
		t.Fatal(err)
	}
	return second(pgwrite.Bind(deadline(t), s.w, m, table))
}
