package pginbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// A pool has one connection for statements and makes one for each transaction.
type pool struct {
	url  string
	turn chan struct{} // holds one while conn is in use
	conn *pgx.Conn
}

func newPool(t testing.TB, url string) *pool {
	t.Helper()
	return &pool{url: url, turn: make(chan struct{}, 1), conn: pgtest.Connect(t, url)}
}

func (p *pool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	return p.conn.Exec(ctx, sql, args...)
}

func (p *pool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return row(func(dest ...any) error {
		p.turn <- struct{}{}
		defer func() { <-p.turn }()
		return p.conn.QueryRow(ctx, sql, args...).Scan(dest...)
	})
}

type row func(dest ...any) error

func (r row) Scan(dest ...any) error { return r(dest...) }

func (p *pool) Begin(ctx context.Context) (pgx.Tx, error) { return perTx{p.url}.Begin(ctx) }

// perTx makes a connection for each transaction, and has nothing else.
type perTx struct{ url string }

func (p perTx) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, errors.ErrUnsupported
}

func (p perTx) QueryRow(context.Context, string, ...any) pgx.Row {
	return row(func(...any) error { return errors.ErrUnsupported })
}

func (p perTx) Begin(ctx context.Context) (pgx.Tx, error) {
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return nil, err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return &ownTx{Tx: tx, conn: conn}, nil
}

// ownTx ends its connection with itself.
type ownTx struct {
	pgx.Tx

	conn *pgx.Conn
}

func (t *ownTx) Commit(ctx context.Context) error {
	defer t.conn.Close(ctx)
	return t.Tx.Commit(ctx)
}

func (t *ownTx) Rollback(ctx context.Context) error {
	defer t.conn.Close(ctx)
	return t.Tx.Rollback(ctx)
}
