package pginbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/sinks/pginbox"
)

func open(t *testing.T) (*pginbox.Inbox, *pool) {
	t.Helper()
	p := newPool(t, pgtest.Database(t))
	if _, err := p.Exec(t.Context(), "CREATE TABLE effects (id text)"); err != nil {
		t.Fatal(err)
	}
	i, err := pginbox.Open(t.Context(), p, nil)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return i, p
}

func effect(id, reply string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		_, err := pginbox.Tx(ctx).Exec(ctx, "INSERT INTO effects VALUES ($1)", id)
		return []byte(reply), err
	}
}

func effects(t *testing.T, p *pool, id string) (n int) {
	t.Helper()
	if err := p.QueryRow(t.Context(), "SELECT count(*) FROM effects WHERE id = $1", id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestACommandHasItsEffectOnce(t *testing.T) {
	i, p := open(t)
	for n, want := range []bool{false, true, true} {
		reply, repeated, err := i.Once(t.Context(), "fleet", "a", effect("a", "done"))
		if string(reply) != "done" || repeated != want || err != nil {
			t.Errorf("Once, call %d = %q, %t, %v; want done, %t, nil", n+1, reply, repeated, err, want)
		}
	}
	if n := effects(t, p, "a"); n != 1 {
		t.Errorf("3 deliveries had %d effects, want 1", n)
	}
	// The same id in another queue is another command.
	if _, repeated, err := i.Once(t.Context(), "billing", "a", effect("a", "")); repeated || err != nil {
		t.Errorf("Once in another queue = repeated %t, %v; want a first time", repeated, err)
	}
}

func TestAFailedAttemptLeavesNothing(t *testing.T) {
	i, p := open(t)
	broken := errors.New("broken")
	_, _, err := i.Once(t.Context(), "fleet", "a", func(ctx context.Context) ([]byte, error) {
		if _, err := effect("a", "")(ctx); err != nil {
			return nil, err
		}
		return nil, broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("Once = %v, want the handler's error", err)
	}
	if n := effects(t, p, "a"); n != 0 {
		t.Errorf("a failed attempt left %d effects, want none", n)
	}
	if _, repeated, err := i.Once(t.Context(), "fleet", "a", effect("a", "")); repeated || err != nil {
		t.Errorf("Once after a failure = repeated %t, %v; want a first time", repeated, err)
	}
}

func TestTwoWorkersWithOneCommand(t *testing.T) {
	i, p := open(t)
	var wg sync.WaitGroup
	var first atomic.Int64
	for range 8 {
		wg.Go(func() {
			reply, repeated, err := i.Once(t.Context(), "fleet", "a", func(ctx context.Context) ([]byte, error) {
				if first.Add(1) == 1 {
					return nil, errors.New("the first to come fails, and the next one takes over")
				}
				return effect("a", "done")(ctx)
			})
			if err == nil && string(reply) != "done" {
				t.Errorf("Once = %q, repeated %t; want done", reply, repeated)
			}
		})
	}
	wg.Wait()
	if n := effects(t, p, "a"); n != 1 {
		t.Errorf("8 workers had %d effects, want 1", n)
	}
}

func TestForget(t *testing.T) {
	i, p := open(t)
	for n := range 3 {
		id := fmt.Sprint(n)
		if _, _, err := i.Once(t.Context(), "fleet", id, effect(id, "")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Exec(t.Context(), "UPDATE rowcall_inbox SET done = now() - interval '2 days' WHERE id <> '2'"); err != nil {
		t.Fatal(err)
	}
	if n, err := i.Forget(t.Context(), 24*time.Hour); n != 2 || err != nil {
		t.Errorf("Forget = %d, %v; want 2", n, err)
	}
	if _, repeated, err := i.Once(t.Context(), "fleet", "2", effect("2", "")); !repeated || err != nil {
		t.Errorf("Once after Forget = repeated %t, %v; want it remembered", repeated, err)
	}
}

func TestOpen(t *testing.T) {
	_, p := open(t)
	if _, err := pginbox.Open(t.Context(), p, &pginbox.Options{Table: "missing", MustExist: true}); err == nil {
		t.Error("Open of a missing table that must exist = nil, want an error")
	}
	if _, err := pginbox.Open(t.Context(), p, &pginbox.Options{Schema: "public", Table: `odd "name"`}); err != nil {
		t.Errorf("Open with an odd name: %v", err)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := pginbox.Open(t.Context(), p, &pginbox.Options{Table: "at_once"}); err != nil {
				t.Errorf("Open at the same time: %v", err)
			}
		})
	}
	wg.Wait()
	if pginbox.Tx(t.Context()) != nil {
		t.Error("Tx outside a handler is not nil")
	}
}
