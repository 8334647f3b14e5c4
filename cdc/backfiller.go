package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A backfiller does what requests ask for, on the goroutine that reads the
// slot. It outlives the connections: a request that the server repeats after a
// reconnect is known.
type backfiller struct {
	source *Source
	queue  []backfillJob // oldest first
	taken  LSN           // of the last request

	// For the first of the queue:
	snapshot *exported     // at a point ahead of everything delivered; nil if it is still to be made
	retry    time.Time     // when to try again
	patience time.Duration // for the next export; 0 is exportTimeout
	blocker  string        // the transaction that the last export waited for, "" if it is not known

	results backfillResults
}

type backfillJob struct {
	backfillContent
	at      LSN
	refused error // what it asks for makes no sense
}

// A backfillError is one that no repetition changes.
type backfillError string

// Error implements error.
func (r backfillError) Error() string { return string(r) }

func isRefused(err error) bool {
	_, is := errors.AsType[backfillError](err)
	return is
}

const (
	// The stream stands still while a snapshot is exported. A new slot waits for
	// the transactions that are open, once or twice, so that short ones which
	// overlap need more patience than one of them takes. It is tried again after
	// a multiple of the time, and not as long as the transaction that it waited
	// for is open.
	exportTimeout = 2 * time.Second
	maxExport     = 30 * time.Second
	exportRetry   = 5 * time.Second
	exportShare   = 3
)

// requested reports whether a message with this prefix is a request.
func (f *backfiller) requested(prefix string) bool {
	return f != nil && prefix == backfillPrefix+f.source.c.Slot
}

// take remembers a request. From now on nothing after it is confirmed before
// its rows are stored.
func (f *backfiller) take(ctx context.Context, at LSN, content []byte) {
	if at <= f.taken {
		return // sent again
	}
	f.taken = at
	job := backfillJob{at: at}
	job.backfillContent, job.refused = readBackfill(content)
	f.source.tracker.hold(at)
	f.queue = append(f.queue, job)
	f.source.c.Logger.InfoContext(ctx, "backfill requested", "id", job.ID, "tables", job.Tables, "where", job.Where, "at", at.String())
}

// boundary is called between transactions, when everything before at is in the
// feed and nothing from there on. Here the rows of backfills have their place.
// An error is that of the feed or of ctx.
func (d *decoder) boundary(ctx context.Context, at LSN) error {
	f := d.backfills
	if f == nil {
		return nil
	}
	for len(f.queue) > 0 {
		job := &f.queue[0]
		if job.refused == nil {
			ready, err := f.prepare(ctx, at)
			if err != nil || !ready {
				return err
			}
			if job.refused != nil {
				continue
			}
			err = f.read(ctx, d, job)
			f.drop(ctx)
			switch {
			case err == nil:
			case ctx.Err() != nil || errors.Is(err, listeners.ErrClosed):
				return err
			case errors.Is(err, errImport) || transient(err) && !isRefused(err):
				f.later(ctx, err.Error(), exportRetry)
				return nil
			}
			job.refused = err
		}
		f.finish(ctx, d, job)
	}
	return nil
}

// prepare reports whether there is a snapshot and everything before its point
// was delivered.
func (f *backfiller) prepare(ctx context.Context, at LSN) (bool, error) {
	if f.snapshot != nil && f.snapshot.conn.IsClosed() {
		f.drop(ctx)
	}
	if f.snapshot == nil {
		if time.Now().Before(f.retry) {
			return false, nil
		}
		if f.blocker != "" && f.source.c.openTransaction(ctx) == f.blocker {
			f.retry = time.Now().Add(exportRetry)
			return false, nil
		}
		patience := cmp.Or(f.patience, exportTimeout)
		limited, cancel := context.WithTimeout(ctx, patience)
		e, err := f.source.export(limited, passing)
		cancel()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				e.close(ctx)
			}
			return false, context.Cause(ctx)
		case err != nil && limited.Err() != nil:
			f.blocker = f.source.c.openTransaction(ctx)
			f.later(ctx, "it waits for transactions that are open, such as "+f.blocker, max(exportRetry, exportShare*patience))
			if f.blocker == unseenTransaction {
				f.blocker = ""
			}
			f.patience = min(2*patience, maxExport)
			return false, nil
		case isSlotError(err):
			return false, err // the slot is lost, whatever becomes of the backfill
		case err != nil && !transient(err):
			f.queue[0].refused = err
			return true, nil
		case err != nil:
			f.later(ctx, err.Error(), exportRetry)
			return false, nil
		}
		f.snapshot, f.patience, f.blocker = e, 0, ""
		f.source.hurry() // on a quiet server, only a keepalive gets there
	}
	return at >= f.snapshot.at, nil
}

// later has the first backfill of the queue wait. Streaming goes on.
func (f *backfiller) later(ctx context.Context, reason string, in time.Duration) {
	f.retry = time.Now().Add(in)
	f.source.c.Logger.WarnContext(ctx, "backfill put off", "id", f.queue[0].ID, "reason", reason, "again_in", in)
}

const unseenTransaction = "one that this role may not see"

func isSlotError(err error) bool {
	_, is := errors.AsType[*SlotError](err)
	return is
}

// openTransaction names the oldest of those that a new slot waits for, as far
// as the role may see it.
func (c *config) openTransaction(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	conn, err := c.connect(ctx)
	if err != nil {
		return err.Error()
	}
	defer hangUp(ctx, conn.PgConn())
	var text string
	err = conn.QueryRow(ctx, `
		SELECT coalesce(
		  (SELECT format('that of PID %s (%s) since %s', pid, coalesce(nullif(application_name, ''), backend_type), xact_start)
		   FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 1),
		  (SELECT format('the prepared one %L since %s', gid, prepared) FROM pg_prepared_xacts ORDER BY prepared LIMIT 1),
		  $1)`, unseenTransaction).Scan(&text)
	if err != nil {
		return err.Error()
	}
	return text
}

func (f *backfiller) drop(ctx context.Context) {
	if f.snapshot != nil {
		f.snapshot.close(ctx)
		f.snapshot = nil
	}
}

// read delivers the rows.
func (f *backfiller) read(ctx context.Context, d *decoder, job *backfillJob) error {
	s, e := f.source, f.snapshot
	conn, now, err := e.join(ctx, s.c)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	if _, err := conn.Exec(ctx, "SET application_name = "+literal(backfillApplication+job.ID)); err != nil {
		return err
	}
	tables, err := s.snapshotTables(ctx, conn, nil, job.Tables)
	if err != nil {
		return err
	}
	tables = slices.DeleteFunc(tables, func(t snapshotTable) bool { return !slices.Contains(job.Tables, t.schema+"."+t.name) })
	if len(tables) == 0 {
		return backfillError(fmt.Sprintf("this source reads none of the tables %s", strings.Join(job.Tables, ", ")))
	}
	if len(tables) < len(job.Tables) {
		s.c.Logger.WarnContext(ctx, "backfill: not all of its tables are read by this source", "id", job.ID, "tables", job.Tables, "found", len(tables))
	}
	if job.Where != "" {
		for i := range tables {
			where := "(" + job.Where + ")"
			if tables[i].filter != "" {
				where += " AND (" + tables[i].filter + ")"
			}
			tables[i].filter = where
		}
	}
	if err := settle(ctx, conn, tables); err != nil {
		return err
	}
	s.c.Logger.InfoContext(ctx, "backfill begins", "id", job.ID, "at", e.at.String())
	// See readSnapshot for the position.
	d.begin(listeners.Snapshot, listeners.CauseSnapshot, uint64(e.at)-1, listeners.Tx{Time: now})
	err = s.readTables(ctx, e, conn, tables, d.batcher, nil)
	if err != nil {
		d.abandon()
		if !d.first && ctx.Err() == nil { // what was delivered has an end, at least
			err = errors.Join(err, d.emit(ctx, &listeners.Batch{
				Kind: listeners.Snapshot, Source: d.source, Tx: d.tx, Last: true, Position: d.last,
			}))
		}
	}
	return err
}

// finish ends the first backfill of the queue.
func (f *backfiller) finish(ctx context.Context, d *decoder, job *backfillJob) {
	if job.refused != nil {
		f.source.c.Logger.ErrorContext(ctx, "backfill given up", "id", job.ID, "tables", job.Tables, "error", job.refused)
	} else {
		f.source.c.Logger.InfoContext(ctx, "backfill read", "id", job.ID)
	}
	f.results.set(job.ID, job.refused)
	f.source.tracker.release(d.last)
	f.queue = f.queue[1:]
	f.source.hurry()
}

// reset forgets everything: another slot comes. What was asked for is in its
// snapshot.
func (f *backfiller) reset(cause error) {
	for i := range f.queue {
		f.results.set(f.queue[i].ID, cause)
	}
	f.queue, f.taken, f.retry, f.patience, f.blocker = nil, 0, time.Time{}, 0, ""
}

// close lets go of what is held in the database.
func (f *backfiller) close(ctx context.Context) { f.drop(ctx) }

// backfillResults are of the backfills that somebody in this process waits for.
type backfillResults struct {
	mu   sync.Mutex
	byID map[string]error
}

// expect returns what to call when nobody waits any more.
func (r *backfillResults) expect(id string) (forget func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = make(map[string]error)
	}
	r.byID[id] = nil
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.byID, id)
	}
}

func (r *backfillResults) set(id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byID[id]; ok {
		r.byID[id] = err
	}
}

func (r *backfillResults) of(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.byID[id]; err != nil {
		return fmt.Errorf("cdc: backfill %s: %w", id, err)
	}
	return nil
}
