package pgwrite

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/listeners"
)

// DB is the database to write to. A pgxpool.Pool is one, for any number of
// goroutines; a pgx.Conn is one for a single goroutine at a time.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// DefaultTimeout is how long a write waits for its region unless [Options] say
// otherwise.
const DefaultTimeout = 10 * time.Second

// Options set up a [Writer]. Nil and zero mean the defaults.
type Options struct {
	// Timeout bounds the wait for the region after the commit. Default
	// [DefaultTimeout].
	Timeout time.Duration
}

// A Writer writes rows to one database. See [Bind] and [Writer.Do].
type Writer struct {
	db      DB
	timeout time.Duration

	mu      sync.Mutex
	watches []*watcher
	closed  bool
}

// New returns a writer. It starts nothing and asks the database nothing.
func New(db DB, opts *Options) *Writer {
	w := &Writer{db: db, timeout: DefaultTimeout}
	if opts != nil && opts.Timeout > 0 {
		w.timeout = opts.Timeout
	}
	return w
}

// Close ends the subscriptions that [Bind] has made, and waits for their ends
// or that of ctx. Writes that wait for a region get an [*UnseenError]. It does
// not close the database.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	watches := w.watches
	w.mu.Unlock()
	var errs []error
	for _, v := range watches {
		errs = append(errs, v.sub.CloseWait(ctx))
	}
	return errors.Join(errs...)
}

// attempts bounds how often a transaction is tried that the server gives up in
// favour of another one.
const attempts = 10

// Do calls fn and commits what it wrote through [In], in one transaction of the
// database, then waits until every region concerned shows it. Regions of one
// [grid.Group] show it at once. If fn returns an error, nothing is written and
// Do returns it, wrapped.
//
// If the server gives up the transaction for another one's sake (a deadlock, a
// failure to serialize), fn is called again, up to ten times. It should do
// nothing but read and write through tx.
//
// The errors are fn's; a [*ConstraintError], a [*grid.ExistsError] or
// [grid.ErrNotFound] of a write; what else the database says; the cause of
// ctx's end, with nothing written unless it is within an [*UnseenError] or an
// [*UnknownError].
func (w *Writer) Do(ctx context.Context, fn func(tx *Tx) error) error {
	_, err := w.do(ctx, fn)
	return err
}

func (w *Writer) do(ctx context.Context, fn func(tx *Tx) error) (map[*watcher]listeners.Position, error) {
	if fn == nil {
		return nil, errors.New("pgwrite: the transaction's function is nil")
	}
	for n := 1; ; n++ {
		seen, err := w.try(ctx, fn)
		if err == nil {
			return seen, nil
		}
		if n == attempts || !worthRetrying(err) {
			return seen, fmt.Errorf("pgwrite: %w", err)
		}
	}
}

func (w *Writer) try(ctx context.Context, fn func(tx *Tx) error) (seen map[*watcher]listeners.Position, err error) {
	native, err := w.db.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin a transaction: %w", err)
	}
	tx := &Tx{ctx: ctx, w: w, tx: native}
	defer tx.release()
	committing := false
	defer func() {
		tx.over = true
		if !committing {
			_ = native.Rollback(context.WithoutCancel(ctx)) // it fails only if the connection has, which ends it, too
		}
	}()
	if err := fn(tx); err != nil {
		return nil, err
	}
	if tx.failed != nil {
		return nil, tx.failed // which fn has not passed on, but the server has not forgotten
	}
	committing = true
	if err := native.Commit(ctx); err != nil {
		return tx.commitFailed(ctx, err)
	}
	if len(tx.waits) == 0 {
		return nil, nil
	}
	// Behind the commit: what the regions show of later transactions tells that
	// this one has come, or will not. Without it they wait for their time.
	var behind int64
	const where = "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint"
	if err := w.db.QueryRow(ctx, where).Scan(&behind); err == nil {
		for _, wait := range tx.waits {
			wait.watch.behind(wait, uint64(behind))
		}
	}
	return tx.await(ctx)
}

// commitFailed finds out what became of a commit that returned an error.
func (tx *Tx) commitFailed(ctx context.Context, err error) (map[*watcher]listeners.Position, error) {
	pgErr, told := errors.AsType[*pgconn.PgError](err)
	if told {
		for _, t := range tx.targets {
			if pgErr.TableName == "" || t.name == pgErr.SchemaName+"."+pgErr.TableName {
				return nil, fmt.Errorf("commit: %w", t.explain(err, nil, false)) // a deferred constraint
			}
		}
	}
	if told || errors.Is(err, pgx.ErrTxCommitRollback) || len(tx.waits) == 0 {
		return nil, fmt.Errorf("commit: %w", err)
	}
	// The answer was lost, not necessarily the commit: a region may tell.
	if seen, unseen := tx.await(context.WithoutCancel(ctx)); unseen == nil {
		return seen, nil
	}
	return nil, &UnknownError{Tx: tx.id, Err: err}
}

// A Tx is a transaction of [Writer.Do]. It belongs to the goroutine that fn is
// called on.
type Tx struct {
	ctx context.Context //nolint:containedctx // it ends with the function that got it
	w   *Writer
	tx  pgx.Tx

	id      uint64 // the database's number, once something was written
	waits   []*wait
	targets []*target
	failed  error // of a write; the server refuses everything after it
	over    bool
}

// Pgx returns the transaction itself, to read or to write whatever else belongs
// to it. Do does not wait for the regions of what is written this way. It must
// not be committed or rolled back.
func (tx *Tx) Pgx() pgx.Tx { return tx.tx }

// wrote takes note of a change that has to come back.
func (tx *Tx) wrote(v *watcher, t *target, id string) error {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return fmt.Errorf("the transaction's number: %w", err)
	}
	tx.id = n
	for _, w := range tx.waits {
		if w.watch == v {
			return nil
		}
	}
	tx.waits = append(tx.waits, v.expect(n))
	tx.targets = append(tx.targets, t)
	return nil
}

// await waits until all regions have shown the transaction.
func (tx *Tx) await(ctx context.Context) (map[*watcher]listeners.Position, error) {
	timeout := time.NewTimer(tx.w.timeout)
	defer timeout.Stop()
	seen := make(map[*watcher]listeners.Position)
	for _, w := range tx.waits {
		at, err := w.watch.await(ctx, w, timeout.C)
		if err != nil {
			return seen, &UnseenError{Table: w.watch.table, Region: w.watch.region.Name(), Tx: tx.id, Err: err}
		}
		seen[w.watch] = at
	}
	return seen, nil
}

func (tx *Tx) release() {
	for _, w := range tx.waits {
		w.watch.forget(w)
	}
}
