package pginbox_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/sinks/pginbox"
)

// A hanging is a database that has stopped to answer in mid-transaction.
type hanging struct{ pgx.Tx }

func (h hanging) Begin(context.Context) (pgx.Tx, error) { return h, nil }

func (hanging) QueryRow(context.Context, string, ...any) pgx.Row {
	return row(func(...any) error { return errors.ErrUnsupported })
}

func (hanging) Exec(ctx context.Context, _ string, _ ...any) (pgconn.CommandTag, error) {
	return pgconn.NewCommandTag("INSERT 0 1"), ctx.Err()
}

func (hanging) Commit(context.Context) error { return nil }

func (hanging) Rollback(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// A worker that is to stop does not wait for a database that never answers.
func TestOnceEndsWhenTheDatabaseHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, err := pginbox.Open(t.Context(), hanging{}, &pginbox.Options{MustExist: true})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		failed := errors.New("no such train")
		_, _, err = i.Once(t.Context(), "fleet", "1", func(context.Context) ([]byte, error) { return nil, failed })
		if !errors.Is(err, failed) {
			t.Errorf("Once = %v, want the handler's error", err)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("Once took %s", took)
		}
	})
}
