package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/listeners"
)

// A decoder turns the messages of one connection into batches. It belongs to
// the goroutine that reads the socket.
type decoder struct {
	*batcher
	tracker   *tracker
	wanted    func(schema, table string) bool
	catalog   describer
	described types
	relations map[uint32]*relation
	spools    *spools
	park      func(msg []byte, cause *DecodeError) error // nil stops instead
	into      *spool                                     // takes what comes; nil outside of a block
	told      uint64                                     // relations received

	lsn    LSN  // of the message
	open   bool // between Begin and Commit
	seen   uint32
	resume listeners.Position // events up to here are in the feed already

	messages  messenger
	outboxes  []outboxTable
	backfills *backfiller // nil: nobody can ask for one
}

// A describer answers what messages do not say. [catalog] is the one that asks
// the server.
type describer interface {
	primaryKey(ctx context.Context, relation uint32) ([]string, error)
	types(ctx context.Context, oids []uint32) (types, error)
	liveColumns(ctx context.Context, relation uint32) ([]liveColumn, error)
	keyLost(ctx context.Context, relation uint32, table, reason string)
}

// newDecoder returns a decoder for a new connection. Everything up to the last
// position that the batcher appended is left out when the server sends it
// again.
//
// Transactions in progress, where the server is asked for such, are kept.
func newDecoder(b *batcher, t *tracker, wanted func(schema, table string) bool, catalog describer, kept *spools) *decoder {
	b.abandon()
	t.abandon()
	if kept == nil {
		kept = &spools{open: make(map[uint32]*spool)}
	}
	return &decoder{
		batcher: b, tracker: t, wanted: wanted, catalog: catalog, spools: kept,
		described: make(types), relations: make(map[uint32]*relation), resume: b.last,
	}
}

// message handles one message of the plugin. It keeps msg. The returned error
// is a [DecodeError], or that of the feed or of ctx.
func (d *decoder) message(ctx context.Context, lsn LSN, msg []byte) error {
	d.lsn = lsn
	if len(msg) == 0 {
		return d.judge(nil, 0, messageError{pgoutput.ErrTruncated})
	}
	if d.into != nil {
		return d.judge(msg, msg[0], d.spool(ctx, msg))
	}
	return d.judge(msg, msg[0], d.handle(ctx, msg))
}

// judge parks a message of a kind that could not be read, or names the error.
func (d *decoder) judge(msg []byte, kind byte, err error) error {
	if err == nil {
		return nil
	}
	bad, ok := errors.AsType[messageError](err)
	if !ok {
		return err
	}
	cause := &DecodeError{LSN: d.lsn, Message: kind, Err: bad.error}
	if d.park == nil || framing(kind) {
		return cause
	}
	if kind == pgoutput.TypeRelation {
		// Whichever table it was, its rows are not what is known of it.
		clear(d.relations)
	}
	if err := d.park(msg, cause); err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

// handle handles a message that is not part of a block.
func (d *decoder) handle(ctx context.Context, msg []byte) error {
	switch msg[0] {
	case pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete:
		return d.row(ctx, msg)
	case pgoutput.TypeBegin:
		return d.beginTx(ctx, msg)
	case pgoutput.TypeCommit:
		return d.commitTx(ctx, msg)
	case pgoutput.TypeRelation:
		d.told++
		return d.relation(ctx, msg, d.told)
	case pgoutput.TypeTruncate:
		return d.truncate(ctx, msg)
	case pgoutput.TypeMessage:
		return d.logical(ctx, msg)
	case pgoutput.TypeType, pgoutput.TypeOrigin:
		return nil // types are known by their OID; the origin is not part of an event
	case pgoutput.TypeStreamStart, pgoutput.TypeStreamAbort, pgoutput.TypeStreamCommit:
		return d.streamed(ctx, msg)
	case pgoutput.TypeBeginPrepare, pgoutput.TypeStreamPrepare, pgoutput.TypeCommitPrepared, pgoutput.TypeRollbackPrepared:
		return d.prepared(ctx, msg)
	}
	return messageError{errors.New("unknown message; protocol versions 1 to 4 have none such")}
}

// framing reports whether messages of a kind begin or end something. What
// follows one that cannot be read belongs to nobody knows what.
func framing(kind byte) bool {
	switch kind {
	case pgoutput.TypeBegin, pgoutput.TypeCommit,
		pgoutput.TypeStreamStart, pgoutput.TypeStreamStop, pgoutput.TypeStreamCommit, pgoutput.TypeStreamAbort,
		pgoutput.TypeBeginPrepare, pgoutput.TypePrepare, pgoutput.TypeStreamPrepare,
		pgoutput.TypeCommitPrepared, pgoutput.TypeRollbackPrepared:
		return true
	}
	return false
}

// messageError marks an error that is the message's fault.
type messageError struct{ error }

func (d *decoder) beginTx(ctx context.Context, msg []byte) error {
	m, err := pgoutput.ParseBegin(msg)
	if err != nil {
		return messageError{err}
	}
	return d.start(ctx, m.CommitLSN, m.XID, m.CommitTime)
}

// start opens the transaction that the following rows belong to.
func (d *decoder) start(ctx context.Context, commitLSN uint64, xid uint32, at time.Time) error {
	if d.open {
		return messageError{errors.New("a transaction begins inside another")}
	}
	if err := d.boundary(ctx, LSN(commitLSN)); err != nil {
		return err
	}
	d.open, d.seen = true, 0
	d.tracker.begin()
	d.begin(listeners.Changes, listeners.CauseWrite, commitLSN, listeners.Tx{ID: uint64(xid), Time: at})
	if d.repeated() {
		d.first = false // the feed has its first parts
	}
	return nil
}

// repeated reports whether the feed holds a part of the open transaction.
func (d *decoder) repeated() bool {
	return d.resume.Epoch == d.epoch && d.resume.Commit == d.commit
}

func (d *decoder) commitTx(ctx context.Context, msg []byte) error {
	m, err := pgoutput.ParseCommit(msg)
	if err != nil {
		return messageError{err}
	}
	if !d.open || m.CommitLSN != d.commit {
		return messageError{fmt.Errorf("commit of %s, but the open transaction is %s", LSN(m.CommitLSN), LSN(d.commit))}
	}
	return d.finish(ctx, m.EndLSN)
}

// finish delivers the open transaction's last batch.
func (d *decoder) finish(ctx context.Context, endLSN uint64) error {
	d.open = false
	if !d.pending() {
		// No events, or all of them delivered before: a part that ends a
		// transaction is never empty, so it was delivered as a whole.
		d.tracker.nothing(LSN(endLSN), true)
		return nil
	}
	// First the feed, then the tracker: what was received is in the feed, also
	// where nobody durable listens and nothing has to be stored.
	if err := d.flush(ctx, true); err != nil {
		return err
	}
	d.tracker.commit(d.last, LSN(endLSN))
	return nil
}

// next counts one event of the open transaction and reports whether it is
// new. The count includes what nobody asked for, so that an event's position
// does not depend on it.
func (d *decoder) next() (bool, error) {
	if !d.open {
		return false, messageError{errors.New("a row outside of a transaction")}
	}
	if d.seen < math.MaxUint32 {
		d.seen++ // no position repeats; add refuses the last one
	}
	at := listeners.Position{Epoch: d.epoch, Commit: d.commit, Index: d.seen}
	if at.Compare(d.resume) <= 0 {
		return false, nil
	}
	return true, nil
}

func (d *decoder) row(ctx context.Context, msg []byte) error {
	if len(msg) < 5 {
		return messageError{pgoutput.ErrTruncated}
	}
	rel, err := d.known(binary.BigEndian.Uint32(msg[1:]))
	if err != nil {
		return err
	}
	m, cols, err := pgoutput.ParseRow(msg, d.offsets(2*len(rel.types)))
	if err != nil {
		return messageError{err}
	}
	fresh, err := d.next()
	if err != nil || !fresh || rel.skip {
		return err
	}
	n := len(rel.types)
	if (m.Old != nil && len(m.Old) != n) || (m.New != nil && len(m.New) != n) {
		return messageError{fmt.Errorf("a row of %s has %d or %d columns, its relation has %d",
			rel.schema.Collection(), len(m.Old), len(m.New), n)}
	}
	d.cols = d.cols[:len(d.cols)+len(cols)] // ParseRow wrote there
	if m.OldIsKey {
		// The server writes NULL for what it does not send of an old key. It
		// sends the old key, too, when a column of it is TOASTed and unchanged,
		// and leaves that out of the new row.
		for i := range m.Old {
			switch {
			case !rel.schema.Columns[i].Key:
				m.Old[i] = pgoutput.Unchanged
			case m.New != nil && m.New[i] == pgoutput.Unchanged:
				m.New[i] = m.Old[i]
			}
		}
	} else if m.Old != nil {
		// Only a full old row is known to hold what the new one leaves out.
		for i := range m.New {
			if m.New[i] == pgoutput.Unchanged {
				m.New[i] = m.Old[i]
			}
		}
	}
	if rel.outbox != nil {
		return d.outboxRow(ctx, rel, msg, m.New)
	}
	if len(rel.shaped) > 0 {
		if rel, err = d.fit(ctx, m.Relation, rel, msg, m.Old, m.New); err != nil {
			return err
		}
	}
	e, err := d.add(ctx, d.seen, len(msg))
	if err != nil {
		return err
	}
	e.Schema = rel.schema
	switch msg[0] {
	case pgoutput.TypeInsert:
		e.Op = listeners.Create
	case pgoutput.TypeUpdate:
		e.Op = listeners.Update
	default:
		e.Op = listeners.Delete
	}
	if m.New != nil {
		e.After = listeners.NewRecord(d.newRow(row{rel: rel, data: msg, cols: m.New}))
	}
	if m.Old != nil {
		old := listeners.NewRecord(d.newRow(row{rel: rel, data: msg, cols: m.Old}))
		if m.OldIsKey {
			e.OldKey = old
		} else {
			e.Before = old
		}
	}
	return nil
}

func (d *decoder) truncate(ctx context.Context, msg []byte) error {
	m, err := pgoutput.ParseTruncate(msg)
	if err != nil {
		return messageError{err}
	}
	for _, id := range m.Relations {
		rel, err := d.known(id)
		if err != nil {
			return err
		}
		fresh, err := d.next()
		if err != nil {
			return err
		}
		if !fresh || rel.skip || rel.outbox != nil {
			continue
		}
		e, err := d.add(ctx, d.seen, len(msg))
		if err != nil {
			return err
		}
		e.Op, e.Schema = listeners.Truncate, rel.schema
	}
	return nil
}

func (d *decoder) known(id uint32) (*relation, error) {
	rel := d.relations[id]
	if rel == nil {
		return nil, messageError{fmt.Errorf("relation %d was not described before its rows", id)}
	}
	return rel, nil
}

// relation takes a description that was received as number told.
func (d *decoder) relation(ctx context.Context, msg []byte, told uint64) error {
	m, err := pgoutput.ParseRelation(msg)
	if err != nil {
		return messageError{err}
	}
	if m.Namespace == "" {
		m.Namespace = "pg_catalog"
	}
	columns := make([]listeners.Column, len(m.Columns))
	for i, c := range m.Columns {
		columns[i] = listeners.Column{Name: c.Name, TypeID: c.TypeID, Key: c.Key}
	}
	skip := !d.wanted(m.Namespace, m.Name)
	if !skip && (m.Identity == 'f' || m.Identity == 'n') {
		// The message marks all columns or none; the key is the primary key.
		key, err := d.keyThen(ctx, m)
		if err != nil {
			return fmt.Errorf("primary key of %s.%s: %w", m.Namespace, m.Name, err)
		}
		for i := range columns {
			columns[i].Key = slices.Contains(key, columns[i].Name)
		}
	}
	if !skip {
		_, again := d.relations[m.ID]
		if err := d.describe(ctx, columns, again); err != nil {
			return fmt.Errorf("types of %s.%s: %w", m.Namespace, m.Name, err)
		}
	}
	rel := newRelation(listeners.NewSchema(d.source, m.Namespace, m.Name, columns), d.described)
	rel.skip, rel.told = skip, told
	if !skip {
		if rel.outbox, err = outboxOf(d.outboxes, rel.schema, maps.Clone(d.described)); err != nil {
			return err
		}
	}
	d.relations[m.ID] = rel
	return nil
}

// describe looks up the columns' types that are neither built in nor known from
// before; again asks for those, too.
func (d *decoder) describe(ctx context.Context, columns []listeners.Column, again bool) error {
	oids := foreign(columns)
	if !again {
		oids = slices.DeleteFunc(oids, func(oid uint32) bool { return d.described[oid] != nil })
	}
	if len(oids) == 0 {
		return nil
	}
	described, err := d.catalog.types(ctx, oids)
	maps.Copy(d.described, described)
	return err
}

// fit returns the relation with types that fit a row, as far as the catalog
// can help. No message says that a composite was altered; its values show it by
// their number of fields. Where the catalog is no help, because it knows the
// composite as it is now and the row is older, it is not asked again before a
// value of the column fits.
func (d *decoder) fit(ctx context.Context, id uint32, rel *relation, msg []byte, tuples ...[]uint32) (*relation, error) {
	misfit := false
	for i := range rel.shaped {
		c := &rel.shaped[i]
		for _, cols := range tuples {
			if cols == nil || cols[c.index] <= pgoutput.Null {
				continue
			}
			fits := rel.types[c.index].Fits((&row{data: msg, cols: cols}).Text(c.index))
			misfit = misfit || (!fits && !c.stale)
			c.stale = !fits
		}
	}
	if !misfit {
		return rel, nil
	}
	if err := d.describe(ctx, rel.schema.Columns, true); err != nil {
		return rel, fmt.Errorf("types of %s: %w", rel.schema.Collection(), err)
	}
	rel = rel.retyped(d.described)
	d.relations[id] = rel
	return rel, nil
}
