package cdc

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

// spool keeps a message of a block, or ends the block. It may overwrite msg.
func (d *decoder) spool(ctx context.Context, msg []byte) error {
	sp := d.into
	switch kind := msg[0]; kind {
	case pgoutput.TypeStreamStop:
		if len(msg) != 1 || sp.prepared {
			return messageError{errors.New("the end of a block that is none")}
		}
		d.into = nil
		return nil
	case pgoutput.TypePrepare:
		m, err := pgoutput.ParsePrepare(msg)
		if err != nil {
			return messageError{err}
		}
		if !sp.prepared || m.XID != sp.xid {
			return messageError{fmt.Errorf("transaction %d is prepared inside of %d", m.XID, sp.xid)}
		}
		d.into = nil
		d.tracker.prepared(m.XID, LSN(m.PrepareLSN))
		return nil
	case pgoutput.TypeType, pgoutput.TypeOrigin:
		return nil
	case pgoutput.TypeRelation, pgoutput.TypeInsert, pgoutput.TypeUpdate, pgoutput.TypeDelete,
		pgoutput.TypeTruncate, pgoutput.TypeMessage:
		subXID := sp.xid
		if !sp.prepared {
			var err error
			if subXID, msg, err = pgoutput.CutXID(msg); err != nil {
				return messageError{err}
			}
		}
		if len(msg) < 2 {
			return messageError{pgoutput.ErrTruncated}
		}
		var told uint64
		if kind == pgoutput.TypeRelation {
			d.told++
			told = d.told
			if sp.prepared { // the server will not describe it again to others
				if err := d.relation(ctx, msg, told); err != nil {
					return err
				}
			}
		}
		return d.spools.add(sp, subXID, msg, told)
	}
	return messageError{fmt.Errorf("message inside a block of transaction %d", sp.xid)}
}

// streamed handles what says how a transaction in progress goes on or ends.
func (d *decoder) streamed(ctx context.Context, msg []byte) error {
	switch msg[0] {
	case pgoutput.TypeStreamStart:
		m, err := pgoutput.ParseStreamStart(msg)
		if err != nil {
			return messageError{err}
		}
		if d.open {
			return messageError{errors.New("a block inside a transaction")}
		}
		if _, known := d.spools.open[m.XID]; known == m.First {
			return messageError{fmt.Errorf("a block of transaction %d: first %t, known %t", m.XID, m.First, known)}
		}
		d.into = d.spools.of(m.XID)
		return nil
	case pgoutput.TypeStreamAbort:
		// Version 18 sends it to those who asked for no streaming, too, for a
		// transaction that it dropped from memory because it saw it rolled back.
		m, err := pgoutput.ParseStreamAbort(msg)
		if err != nil {
			return messageError{err}
		}
		if m.SubXID == m.XID {
			return d.discard(m.XID)
		}
		if sp := d.spools.open[m.XID]; sp != nil {
			return d.spools.rollBack(sp, m.SubXID)
		}
		return nil
	}
	m, err := pgoutput.ParseStreamCommit(msg)
	if err != nil {
		return messageError{err}
	}
	return d.replay(ctx, m.XID, m.Commit)
}

// prepared handles two-phase commit. A prepared transaction is not delivered
// before it commits; until it is stored then, nothing behind its PREPARE is
// confirmed, so that the server sends it again after a crash.
func (d *decoder) prepared(ctx context.Context, msg []byte) error {
	switch msg[0] {
	case pgoutput.TypeBeginPrepare:
		m, err := pgoutput.ParseBeginPrepare(msg)
		if err != nil {
			return messageError{err}
		}
		if d.open {
			return messageError{errors.New("a transaction begins inside another")}
		}
		d.into = d.spools.of(m.XID)
		d.into.prepared = true
		return nil
	case pgoutput.TypeStreamPrepare:
		m, err := pgoutput.ParsePrepare(msg)
		if err != nil {
			return messageError{err}
		}
		sp := d.spools.open[m.XID]
		if sp == nil {
			return messageError{fmt.Errorf("transaction %d is prepared, of which nothing was streamed", m.XID)}
		}
		sp.prepared = true
		d.tracker.prepared(m.XID, LSN(m.PrepareLSN))
		return nil
	case pgoutput.TypeCommitPrepared:
		m, err := pgoutput.ParseCommitPrepared(msg)
		if err != nil {
			return messageError{err}
		}
		if err := d.replay(ctx, m.XID, m.Commit); err != nil {
			return err
		}
		d.tracker.resolved(m.XID, LSN(m.Commit.EndLSN))
		return nil
	}
	m, err := pgoutput.ParseRollbackPrepared(msg)
	if err != nil {
		return messageError{err}
	}
	d.tracker.resolved(m.XID, 0)
	d.tracker.nothing(LSN(m.EndLSN), false)
	return d.discard(m.XID)
}

func (d *decoder) discard(xid uint32) error {
	if sp := d.spools.take(xid); sp != nil {
		return sp.close()
	}
	return nil
}

// replay delivers a spooled transaction, which has committed.
func (d *decoder) replay(ctx context.Context, xid uint32, c pgoutput.Commit) (err error) {
	sp := d.spools.take(xid)
	if sp == nil {
		return messageError{fmt.Errorf("commit of transaction %d, of which nothing was streamed", xid)}
	}
	defer func() { err = errors.Join(err, sp.close()) }()
	if err := d.start(ctx, c.CommitLSN, xid, c.CommitTime); err != nil {
		return err
	}
	// Tables may have been described again since, to other transactions: what
	// is the newest description holds afterwards.
	since := maps.Clone(d.relations)
	err = sp.each(func(msg []byte, told uint64) error {
		kind := msg[0]
		if told != 0 {
			return d.judge(msg, kind, d.relation(ctx, msg, told))
		}
		return d.judge(msg, kind, d.handle(ctx, msg))
	})
	if err != nil {
		return err
	}
	for id, rel := range since {
		if now := d.relations[id]; now != nil && now.told < rel.told {
			d.relations[id] = rel
		}
	}
	return d.finish(ctx, c.EndLSN)
}
