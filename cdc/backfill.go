package cdc

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Backfill says which rows a running source is to read again.
type Backfill struct {
	// Tables are patterns as in [Options]: at least one, all published.
	Tables []string
	// Where is a condition over the columns of each of the tables, such as
	// "price > 10 AND class = 'first'": comparisons of columns and constants,
	// without subqueries, and without functions but a few harmless ones.
	// Default: all rows.
	Where string
	// Slot and Publication are those of the source, with its defaults.
	Slot        string
	Publication string
}

// A BackfillRequest is a backfill that was asked for.
type BackfillRequest struct {
	ID     string   // appears in logs, and in the application name of the session that reads
	Slot   string   // whose source was asked
	Tables []string // "schema.table", sorted
	// LSN is the end of the request in the write-ahead log. When the slot is
	// confirmed up to there, the rows are stored.
	LSN LSN
}

// The content of a request.
type backfillContent struct {
	ID     string   `json:"id"`
	Tables []string `json:"tables"`
	Where  string   `json:"where,omitempty"`
}

const backfillPrefix = ownPrefix + "backfill."

// RequestBackfill asks the source that reads a slot to read rows again, while
// it streams on. The source need not run in this process, nor at this moment:
// the request is a logical message in the write-ahead log, and waits there.
//
// The source reads the rows as they stand at one later moment and delivers them
// as [listeners.Snapshot] batches with [listeners.Read], at their place between
// the transactions: what was committed before that moment comes before them, and
// what was committed later comes after them. Changes wait meanwhile. It needs a
// free slot and sender for that time, and waits until the transactions that are
// running at the beginning have ended; the stream is held up for seconds at a
// time only, to try.
//
// The slot is not confirmed past the request before the rows are stored, so a
// source that dies meanwhile does it again. What the source then cannot do,
// such as to read a table that was dropped, it logs, and goes on.
//
// A [SetupError] names what is in the way before anything is written: a table
// that does not exist or is not published; a [SlotError] says what is wrong with
// the slot. Other errors are about the condition, or from the server. None holds
// the password. [WaitBackfill] waits for the end.
func RequestBackfill(ctx context.Context, databaseURL string, b *Backfill) (*BackfillRequest, error) {
	c, err := newConfig(databaseURL, &Options{
		Slot: b.Slot, Publication: b.Publication, Tables: b.Tables, Snapshot: SnapshotNever,
	})
	if err != nil {
		return nil, err
	}
	return c.requestBackfill(ctx, b.Where, newBackfillID())
}

func newBackfillID() string { return strings.ToLower(rand.Text()[:12]) }

func (c *config) requestBackfill(ctx context.Context, where, id string) (*BackfillRequest, error) {
	if len(c.patterns) == 0 {
		return nil, errors.New("cdc: backfill: no table was given")
	}
	if err := checkWhere(where); err != nil {
		return nil, fmt.Errorf("cdc: backfill: %w", err)
	}
	conn, inv, err := c.visit(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn.PgConn())
	if inv.recovery {
		return nil, &SetupError{Findings: []Finding{standbyFinding()}}
	}
	if inv, err = takeInventory(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := inv.refuseBackfill(c); err != nil {
		return nil, err
	}
	r := &BackfillRequest{ID: id, Slot: c.Slot}
	for i := range inv.tables {
		t := &inv.tables[i]
		r.Tables = append(r.Tables, t.String())
		if where == "" {
			continue
		}
		if _, err := conn.Exec(ctx, "EXPLAIN SELECT FROM "+t.sql()+" WHERE ("+where+")"); err != nil {
			return nil, fmt.Errorf("cdc: backfill of %s where %s: %w", t, where, err)
		}
	}
	slices.Sort(r.Tables)
	content, err := json.Marshal(backfillContent{ID: id, Tables: r.Tables, Where: where})
	if err != nil {
		return nil, err
	}
	// Nobody waits for such a message to be on disk. A transaction that has a
	// number and wrote something waits for its commit, which comes later.
	_, err = conn.Exec(ctx, "SET synchronous_commit = local")
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT pg_logical_emit_message(false, $1::text, $2::text)::text FROM pg_current_xact_id()",
			backfillPrefix+c.Slot, string(content)).Scan(&r.LSN)
	}
	if err != nil {
		return nil, fmt.Errorf("cdc: backfill: write the request: %w", err)
	}
	return r, nil
}

// refuseBackfill says why no source could do it.
func (inv *inventory) refuseBackfill(c *config) error {
	switch {
	case inv.slot == nil:
		return &SlotError{
			Slot: c.Slot, Reason: "nobody would read the rows", Err: ErrNoSlot,
			Remedy: "name the slot of the source, or run the source first: it begins with all rows",
		}
	case inv.slot.plugin != "pgoutput" || inv.slot.database != inv.database:
		return &SlotError{
			Slot: c.Slot, Reason: fmt.Sprintf("it is of plugin %q and database %q, not of a source of database %q", inv.slot.plugin, inv.slot.database, inv.database),
			Remedy: "name the slot of the source",
		}
	case inv.slot.walStatus == "lost":
		return &SlotError{Slot: c.Slot, Reason: "it is lost", Remedy: "drop it and run the source again: it begins with all rows"}
	}
	findings := slices.DeleteFunc(slices.Concat(inv.tableFindings(c), inv.publicationFindings(c)),
		func(f Finding) bool { return f.Level != Fatal })
	if len(findings) > 0 {
		return &SetupError{Findings: findings}
	}
	return nil
}

// Backfill is [RequestBackfill] for this source, and returns when the rows are
// stored by every subscription that the slot waits for, and handled by the
// others. Run must be running; Backfill waits until it streams. It returns early
// with ctx's error, when Run ends, when a subscription has failed, or with the
// reason why the rows cannot be read. Subscriptions get the rows if they want
// the table; who wants rows alone joins with Current.
func (s *Source) Backfill(ctx context.Context, tables []string, where string) error {
	select {
	case <-s.ready:
	case <-s.ended:
		return errors.New("cdc: backfill: the source does not run any more")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c := *s.c
	c.Snapshot, c.patterns, c.outboxes = SnapshotNever, nil, nil
	c.conn = s.c.conn.Copy() // visit may change it
	for _, t := range tables {
		p, err := parsePattern(t)
		if err != nil {
			return fmt.Errorf("cdc: backfill: %w", err)
		}
		c.patterns = append(c.patterns, p)
	}
	id := newBackfillID()
	forget := s.backs.results.expect(id)
	defer forget()
	r, err := c.requestBackfill(ctx, where, id)
	if err != nil {
		return err
	}
	if err := s.CaughtUp(ctx); err != nil {
		return fmt.Errorf("cdc: backfill %s: %w", r.ID, err)
	}
	end := s.Stats().Position
	for !s.passed(end) {
		if err := s.failed(); err != nil {
			return err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return s.backs.results.of(id)
}

// A BackfillState is how far a backfill is.
type BackfillState string

// The states of a backfill.
const (
	// BackfillUnread: nobody reads the slot; the request waits.
	BackfillUnread BackfillState = "unread"
	// BackfillWaiting: the source has it before it, or waits for transactions
	// that are running.
	BackfillWaiting BackfillState = "waiting"
	// BackfillReading: the source reads the rows.
	BackfillReading BackfillState = "reading"
	// BackfillDone: the rows are stored, or the source has logged why they
	// cannot be read.
	BackfillDone BackfillState = "done"
)

// backfillApplication names the session that reads the rows.
const backfillApplication = "rowcall backfill "

const backfillPoll = 200 * time.Millisecond

// WaitBackfill returns when a backfill is done, or with an error: ctx's, that
// of a query, or a [SlotError] if the slot is gone. It looks some times a second
// and calls tell, unless that is nil, with each new state.
func WaitBackfill(ctx context.Context, databaseURL string, r *BackfillRequest, tell func(BackfillState)) error {
	c, err := newConfig(databaseURL, &Options{Slot: r.Slot})
	if err != nil {
		return err
	}
	conn, _, err := c.visit(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	for last := BackfillState(""); ; {
		state, err := backfillState(ctx, conn, r)
		if err != nil {
			return err
		}
		if state != last && tell != nil {
			tell(state)
		}
		if last = state; state == BackfillDone {
			return nil
		}
		if err := sleep(ctx, backfillPoll); err != nil {
			return err
		}
	}
}

func backfillState(ctx context.Context, conn *pgx.Conn, r *BackfillRequest) (BackfillState, error) {
	var confirmed LSN
	var active, reading bool
	var status string
	err := conn.QueryRow(ctx, `
		SELECT confirmed_flush_lsn::text, active, coalesce(wal_status, ''),
		       EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $2)
		FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn IS NOT NULL`,
		r.Slot, backfillApplication+r.ID).Scan(&confirmed, &active, &status, &reading)
	switch {
	case err == pgx.ErrNoRows: //nolint:errorlint // QueryRow returns it as it is
		return "", &SlotError{Slot: r.Slot, Reason: "the backfill's request went with it", Err: ErrNoSlot, Remedy: "run the source: it begins with all rows"}
	case err != nil:
		return "", fmt.Errorf("cdc: look up slot %q: %w", r.Slot, err)
	case confirmed >= r.LSN:
		return BackfillDone, nil
	case status == "lost":
		return "", &SlotError{Slot: r.Slot, Reason: "it was lost, and the backfill's request with it", Remedy: "drop it and run the source: it begins with all rows"}
	case reading:
		return BackfillReading, nil
	case !active:
		return BackfillUnread, nil
	}
	return BackfillWaiting, nil
}

// readBackfill reads a request's content, which anybody may have written.
func readBackfill(content []byte) (backfillContent, error) {
	var b backfillContent
	if err := json.Unmarshal(content, &b); err != nil {
		return b, err
	}
	return b, cmp.Or(
		when(!backfillID.MatchString(b.ID), "its id is not 1 to 32 lower-case letters and digits"),
		when(len(b.Tables) == 0, "it names no table"),
		checkWhere(b.Where),
	)
}

var backfillID = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

func when(fault bool, text string) error {
	if fault {
		return errors.New(text)
	}
	return nil
}
