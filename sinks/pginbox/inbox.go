package pginbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/sinks"
)

// DefaultTable is the table's name unless options say otherwise.
const DefaultTable = "rowcall_inbox"

// A DB is a *pgxpool.Pool, or something like it that may be used
// concurrently.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Options set up an [Inbox]. Nil and zero mean the defaults.
type Options struct {
	// Schema and Table name the table. Default: [DefaultTable], in the first
	// schema of the search path.
	Schema, Table string
	// MustExist checks that the table can be read instead of creating it, for
	// roles that may not create tables. See [Create] for what it has to be.
	MustExist bool
}

// An Inbox is a table of the commands that were carried out. Its methods may
// be called concurrently.
type Inbox struct {
	db    DB
	table string // quoted
}

var _ sinks.Inbox = (*Inbox)(nil)

// Create is the statement that creates the table, with its name in place of
// %s.
const Create = `CREATE TABLE IF NOT EXISTS %s (
	queue text NOT NULL,
	id    text NOT NULL,
	reply bytea,
	done  timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (queue, id)
)`

// Open creates the table if it is missing. The pool stays the caller's.
func Open(ctx context.Context, db DB, opts *Options) (*Inbox, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Table == "" {
		o.Table = DefaultTable
	}
	name := pgx.Identifier{o.Table}
	if o.Schema != "" {
		name = pgx.Identifier{o.Schema, o.Table}
	}
	i := &Inbox{db: db, table: name.Sanitize()}
	var err error
	if o.MustExist {
		_, err = db.Exec(ctx, "SELECT queue, id, reply, done FROM "+i.table+" LIMIT 0")
	} else {
		err = i.create(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("inbox table %s: %w", i.table, err)
	}
	return i, nil
}

func (i *Inbox) create(ctx context.Context) error {
	// Two CREATE TABLE IF NOT EXISTS at the same time: one of them fails on a
	// unique index of the catalog. The lock is an arbitrary number of ours.
	tx, err := i.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer rollback(ctx, tx)
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('rowcall inbox'))"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf(Create, i.table)); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// rollbackTimeout is how long a database may take to hear that a transaction
// is over. It finds out by itself if the connection breaks.
const rollbackTimeout = 5 * time.Second

// rollback does nothing after a commit. It must not keep a worker from ending
// whose database hangs.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_ = tx.Rollback(ctx)
}

type txKey struct{}

// Tx returns the transaction that a handler's effects belong in. It is nil
// outside a handler that an Inbox calls. The handler neither commits nor rolls
// back.
func Tx(ctx context.Context) pgx.Tx {
	tx, _ := ctx.Value(txKey{}).(pgx.Tx)
	return tx
}

// Once implements [sinks.Inbox].
func (i *Inbox) Once(ctx context.Context, queue, id string, do func(context.Context) ([]byte, error)) (reply []byte, repeated bool, err error) {
	fail := func(err error) ([]byte, bool, error) {
		return nil, false, fmt.Errorf("inbox table %s: %w", i.table, err)
	}
	tx, err := i.db.Begin(ctx)
	if err != nil {
		return fail(err)
	}
	defer rollback(ctx, tx)

	// If another transaction has just inserted it, this waits for its end.
	tag, err := tx.Exec(ctx, "INSERT INTO "+i.table+" (queue, id) VALUES ($1, $2) ON CONFLICT DO NOTHING", queue, id)
	if err != nil {
		return fail(err)
	}
	if tag.RowsAffected() == 0 {
		err := tx.QueryRow(ctx, "SELECT reply FROM "+i.table+" WHERE queue = $1 AND id = $2", queue, id).Scan(&reply)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) { // forgotten in between, but done
			return fail(err)
		}
		return reply, true, nil
	}
	if reply, err = do(context.WithValue(ctx, txKey{}, tx)); err != nil {
		return nil, false, err
	}
	if reply != nil {
		if _, err := tx.Exec(ctx, "UPDATE "+i.table+" SET reply = $3 WHERE queue = $1 AND id = $2", queue, id, reply); err != nil {
			return fail(err)
		}
	}
	// If its answer is lost, the next delivery finds out.
	if err := tx.Commit(ctx); err != nil {
		return fail(err)
	}
	return reply, false, nil
}

// Forget removes what was done longer ago than this and returns how many
// commands that were. A command that comes again after that is carried out
// again.
func (i *Inbox) Forget(ctx context.Context, age time.Duration) (int64, error) {
	tag, err := i.db.Exec(ctx, "DELETE FROM "+i.table+" WHERE done < now() - make_interval(secs => $1)", age.Seconds())
	if err != nil {
		return 0, fmt.Errorf("inbox table %s: %w", i.table, err)
	}
	return tag.RowsAffected(), nil
}
