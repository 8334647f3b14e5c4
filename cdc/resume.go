package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/listeners"
)

// initialKept is initial with a state that survives the process. Whoever gives
// the snapshot up because of the WAL that it keeps gives its slot up, too.
func (s *Source) initialKept(ctx context.Context, inv *inventory, b *batcher) error {
	guarded, release := s.guardSnapshot(ctx, keeperSlot(s.c.Slot))
	err := s.tryKept(guarded, inv, b)
	release(&err)
	kept := s.state.get().Snapshot
	why := ""
	switch {
	case err == nil:
	case ctx.Err() != nil && kept != nil && len(kept.Done) == 0:
		why = "no table was complete" // nothing for the next run to go on with
	case ctx.Err() == nil && stoppedBy(guarded) != nil:
		why = "it kept too much WAL"
	}
	if why == "" {
		return err
	}
	s.giveKeeperUp(ctx, why)
	return err
}

// giveKeeperUp drops the slot of a snapshot that nobody will go on with, also
// when ctx has ended: it would keep WAL for ever.
func (s *Source) giveKeeperUp(ctx context.Context, why string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), advanceTimeout)
	defer cancel()
	err := s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) error { return s.dropKeeper(ctx, conn, why) })
	if err != nil {
		s.c.Logger.WarnContext(ctx, "the slot of the snapshot is left", "slot", keeperSlot(s.c.Slot), "error", err)
	}
}

// tryKept is initial with a state that survives the process. The snapshot
// has a permanent slot of its own from its beginning, and the state says which
// tables are stored. So whatever ends an attempt, the next one brings those
// tables up to a new snapshot with the changes that the slot kept, and reads
// only the others. The source's own slot still exists if and only if all is
// stored.
func (s *Source) tryKept(ctx context.Context, inv *inventory, b *batcher) error {
	kept, complete, err := s.beginKept(ctx, inv)
	if err != nil || complete {
		return err
	}
	var e *exported
	scope := snapshotScope{inv: inv}
	if kept == nil {
		if e, err = s.export(ctx, keeping); err != nil {
			return err
		}
		defer e.close(ctx)
		s.c.Logger.InfoContext(ctx, "snapshot begins", "at", e.at.String())
		begun := &keptSnapshot{
			Slot: e.slot, SystemID: e.server.system, Publication: s.c.Publication, At: e.at, Done: map[string]uint32{},
		}
		err = s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			begun.PublicationOID, err = publicationOID(ctx, conn, s.c.Publication)
			return err
		})
		if err == nil {
			err = s.state.update(func(st *state) { st.Snapshot = begun })
		}
		if err != nil {
			s.giveKeeperUp(ctx, "nothing is known of it")
		}
	} else {
		if e, err = s.export(ctx, passing); err != nil {
			return err
		}
		defer e.close(ctx)
		e.brief = true // the other slot keeps the changes
		s.c.Logger.InfoContext(ctx, "snapshot goes on", "tables_done", len(kept.Done), "from", kept.At.String(), "at", e.at.String())
		scope.rest, scope.done = true, kept.Done
		err = s.bringUp(ctx, kept, e.at, b)
	}
	if err != nil {
		return err
	}
	if err := s.readKept(ctx, e, scope, b); err != nil {
		return err
	}
	e.close(ctx) // its slot may be the last one that the server has
	return s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) error { return s.finishKept(ctx, conn, e.server) })
}

// beginKept drops what is of no use. It returns the snapshot to go on with, nil
// for none, or that an attempt before got to the end.
func (s *Source) beginKept(ctx context.Context, inv *inventory) (kept *keptSnapshot, complete bool, err error) {
	err = s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		own, err := lookUpSlot(ctx, conn, s.c.Slot)
		if err != nil {
			return fmt.Errorf("look up slot %q: %w", s.c.Slot, err)
		}
		if complete = own != nil; complete {
			return s.finished(ctx, conn, own.confirmed)
		}
		var why string
		if kept, why, err = s.leftSnapshot(ctx, conn, inv); err != nil || kept != nil {
			return err
		}
		if s.state.get().Snapshot != nil {
			s.c.Logger.WarnContext(ctx, "an earlier snapshot cannot go on; it begins again", "why", why)
		}
		return s.dropKeeper(ctx, conn, why)
	})
	return kept, complete, err
}

// readKept reads what the scope says, and returns when all of it is stored.
func (s *Source) readKept(ctx context.Context, e *exported, scope snapshotScope, b *batcher) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var done doneTables
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.note(ctx, &done); err != nil {
			cancel(err)
		}
	})
	defer func() {
		cancel(nil)
		wg.Wait()
	}()
	scope.finished = done.add
	end, err := s.readSnapshot(ctx, e, scope, b)
	if err != nil {
		return err
	}
	s.c.Logger.InfoContext(ctx, "snapshot read", "rows", s.Stats().Reads)
	if err := s.waitStored(ctx, end, s.storedBy); err != nil {
		return err
	}
	cancel(nil)
	wg.Wait()
	return s.noteStored(&done) // the last ones
}

// storedBy reports whether everybody that the slot waits for has stored p.
func (s *Source) storedBy(p listeners.Position) bool { return s.stored().Compare(p) >= 0 }

// bringUp delivers the changes of the tables that are done, up to a new
// snapshot, and returns when they are stored. They come as transactions, each
// with the events of those tables only.
//
// A commit record begins before its end, so every commit before the snapshot
// has a smaller position than the snapshot's rows.
func (s *Source) bringUp(ctx context.Context, kept *keptSnapshot, to LSN, b *batcher) error {
	err := s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.advanceKeeper(ctx, conn, kept.Slot, kept.At); err != nil {
			return err
		}
		return s.deliverKept(ctx, conn, kept, to, b)
	})
	switch code := sqlState(err); {
	case undecodable(err), code == "42704", code == "55000": // undefined object, not in prerequisite state: the publication is younger than the slot, or that is invalid
		s.c.Logger.WarnContext(ctx, "what was kept of the snapshot cannot be read; it begins again", "error", err)
		return errors.Join(errKeeperGone, s.state.update(func(st *state) { st.Snapshot = nil }))
	}
	if err != nil {
		return fmt.Errorf("bring the tables that are done up to %s: %w", to, err)
	}
	// First the state: a server that crashes may forget where the slot is, and
	// what is before At is left out.
	if err := s.reached(to); err != nil {
		return err
	}
	return s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) error { return s.advanceKeeper(ctx, conn, kept.Slot, to) })
}

// reached notes that the tables that are done have every commit before an LSN.
func (s *Source) reached(at LSN) error {
	return s.state.update(func(st *state) {
		next := *st.Snapshot
		next.At = at
		st.Snapshot = &next
	})
}

// deliverKept returns when the changes are stored. It notes on the way how far
// they are.
func (s *Source) deliverKept(ctx context.Context, conn *pgx.Conn, kept *keptSnapshot, to LSN, b *batcher) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.noteReached(ctx, kept.At); err != nil {
			cancel(err)
		}
	})
	defer func() {
		cancel(nil)
		wg.Wait()
	}()
	if err := s.decodeKept(ctx, conn, kept, to, b); err != nil {
		return err
	}
	if b.last.IsZero() {
		return nil
	}
	return s.waitStored(ctx, b.last, s.storedBy)
}

const reachedInterval = 200 * time.Millisecond

func (s *Source) noteReached(ctx context.Context, at LSN) error {
	tick := time.NewTicker(reachedInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, stored := s.keeper.stored(s.stored()); stored > at {
			at = stored
			if err := s.reached(at); err != nil {
				return err
			}
		}
	}
}

func (s *Source) decodeKept(ctx context.Context, conn *pgx.Conn, kept *keptSnapshot, to LSN, b *batcher) error {
	catalog := &catalog{c: s.c}
	defer catalog.close(ctx)
	d := newDecoder(b, &s.keeper, func(schema, table string) bool {
		_, done := kept.Done[schema+"."+table]
		return done
	}, catalog, nil)
	d.messages.prefixes, d.outboxes, d.park = s.c.prefixes, s.c.outboxes, s.parkUndecodable()
	rows, err := conn.Query(ctx, `
		SELECT (lsn - '0/0')::bigint, data FROM pg_logical_slot_peek_binary_changes($1, $2::text::pg_lsn, NULL,
			'proto_version', '1', 'publication_names', $3, 'messages', 'true')`, kept.Slot, to.String(), quote(s.c.Publication))
	if err != nil {
		return err
	}
	defer rows.Close()
	skip, inside := false, false // of a transaction
	for rows.Next() {
		var at int64
		var msg []byte
		if err := rows.Scan(&at, &msg); err != nil {
			return err
		}
		kind := byte(0)
		if len(msg) > 0 {
			kind = msg[0]
		}
		switch {
		case kind == pgoutput.TypeBegin:
			begin, err := pgoutput.ParseBegin(msg)
			if err != nil {
				return &DecodeError{LSN: LSN(at), Message: kind, Err: err}
			}
			inside, skip = true, LSN(begin.CommitLSN) < kept.At || LSN(begin.CommitLSN) >= to
		case kind == pgoutput.TypeMessage && !inside: // at is its end
			skip = LSN(at) <= kept.At || LSN(at) > to
		}
		inside = inside && kind != pgoutput.TypeCommit
		if skip && kind != pgoutput.TypeRelation {
			continue
		}
		if err := d.message(ctx, LSN(at), msg); err != nil {
			return err
		}
	}
	return rows.Err()
}

// advanceKeeper lets the server forget what is before an LSN.
func (s *Source) advanceKeeper(ctx context.Context, conn *pgx.Conn, slot string, to LSN) error {
	_, err := conn.Exec(ctx, `
		SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots
		WHERE slot_name = $1 AND confirmed_flush_lsn < $2::text::pg_lsn`, slot, to.String())
	if err != nil {
		return fmt.Errorf("advance slot %q to %s: %w", slot, to, err)
	}
	return nil
}

var errKeeperGone = errors.New("the snapshot's slot is gone")

// finishKept makes the source's slot out of the snapshot's, all of which is
// stored.
func (s *Source) finishKept(ctx context.Context, conn *pgx.Conn, server identity) (err error) {
	kept := s.state.get().Snapshot
	slot, err := s.lookUpKeeper(ctx, conn)
	switch {
	case err != nil:
		return err
	case slot == nil || slot.walStatus == "lost":
		return errKeeperGone // to be tried again, from the beginning
	}
	if err := s.advanceKeeper(ctx, conn, kept.Slot, kept.At); err != nil {
		return err
	}
	if err := s.making(server, kept.At); err != nil {
		return err
	}
	if _, err = conn.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2, false)", kept.Slot, s.c.Slot); err != nil {
		return fmt.Errorf("create slot %q: %w", s.c.Slot, err)
	}
	s.c.Logger.InfoContext(ctx, "created slot", "slot", s.c.Slot, "at", kept.At.String())
	return s.finished(ctx, conn, kept.At)
}

// finished notes that the source's slot exists, and drops the snapshot's.
func (s *Source) finished(ctx context.Context, conn *pgx.Conn, at LSN) error {
	repl, server, err := s.c.connectIdentified(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, repl)
	if err := s.made(ctx, repl, server, at.String()); err != nil {
		return err
	}
	return s.dropKeeper(ctx, conn, "the snapshot is complete")
}

// onConnection calls f with a connection of its own.
func (s *Source) onConnection(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	conn, err := s.c.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	return f(ctx, conn)
}
