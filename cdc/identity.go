package cdc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/listeners"
)

// An identity is which cluster a server is, and which of its histories it has
// gone through: a promotion begins a new timeline.
type identity struct {
	system   uint64
	timeline uint32
}

// connectIdentified opens a connection in replication mode and asks the server
// who it is.
func (c *config) connectIdentified(ctx context.Context) (*pgconn.PgConn, identity, error) {
	settings := c.conn.Config.Copy()
	settings.RuntimeParams = maps.Clone(settings.RuntimeParams)
	settings.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, settings)
	if err != nil {
		return nil, identity{}, fmt.Errorf("connect to database %q for replication: %w", c.database, err)
	}
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return nil, identity{}, errors.Join(fmt.Errorf("identify system: %w", err), conn.Close(ctx))
	}
	id := identity{timeline: uint32(system.Timeline)}
	if _, err := fmt.Sscan(system.SystemID, &id.system); err != nil {
		return nil, identity{}, errors.Join(fmt.Errorf("system identifier %q: %w", system.SystemID, err), conn.Close(ctx))
	}
	return conn, id, nil
}

// recognise refuses a server whose history does not contain what this source
// has seen. The connection has to be in replication mode and idle.
func (s *Source) recognise(ctx context.Context, conn *pgconn.PgConn, id identity) error {
	st := s.state.get()
	switch {
	case st.SystemID == 0: // nothing is known yet
		return nil
	case id.system != st.SystemID:
		e := s.lost(fmt.Sprintf("the server is another cluster now (system identifier %d, was %d)", id.system, st.SystemID))
		e.Remedy = "check where the connection string leads; if this is the new server, " + e.Remedy
		e.server = id
		return e
	case id.timeline == st.Timeline:
		return nil
	case id.timeline < st.Timeline:
		return &SlotError{
			Slot:   s.c.Slot,
			Reason: fmt.Sprintf("the server is on timeline %d, but timeline %d was read before: it is a former primary, or a standby that is behind", id.timeline, st.Timeline),
			Remedy: "check where the connection string leads",
		}
	}
	history, err := pglogrepl.TimelineHistory(ctx, conn, int32(id.timeline))
	if err != nil {
		return fmt.Errorf("read the history of timeline %d: %w", id.timeline, err)
	}
	fork, ok := forkOf(history.Content, st.Timeline)
	known := s.known(st)
	if !ok || fork < known {
		reason := fmt.Sprintf("the server's timeline %d does not descend from timeline %d, which was read before", id.timeline, st.Timeline)
		if ok {
			reason = fmt.Sprintf("the server's timeline %d left timeline %d at %s, but changes up to %s were read from the old one: they are gone from the database",
				id.timeline, st.Timeline, fork, known)
		}
		e := s.lost(reason)
		e.server = id
		return e
	}
	s.c.Logger.InfoContext(ctx, "the server was promoted; its history has everything that was read",
		"slot", s.c.Slot, "timeline", id.timeline, "was", st.Timeline, "fork", fork.String(), "read", known.String())
	return s.state.update(func(st *state) { st.Timeline = id.timeline })
}

// known is a position up to which the log was read by this source, whether it
// was confirmed or not: a history that forked before does not have all of it.
func (s *Source) known(st state) LSN {
	epoch := st.epoch()
	furthest := s.stats.read().Position
	s.mu.Lock()
	for _, sub := range s.subs {
		if p, _ := sub.Saved(); p.Epoch == epoch && p.Compare(furthest) > 0 {
			furthest = p
		}
		if sub.durable == nil {
			continue
		}
		if p := sub.durable.Stored(); p.Epoch == epoch && p.Compare(furthest) > 0 {
			furthest = p // of an earlier run, as its broker says
		}
	}
	s.mu.Unlock()
	known := st.Confirmed
	if furthest.Epoch == epoch {
		// A commit record that begins before the fork ends at it at the latest.
		known = max(known, LSN(furthest.Commit)+1)
	}
	return known
}

// recogniseServer is recognise for who has no connection in replication mode.
func (s *Source) recogniseServer(ctx context.Context) error {
	conn, id, err := s.c.connectIdentified(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	return s.recognise(ctx, conn, id)
}

// forkOf finds where a timeline was left, in the history file of a later one:
// lines of a timeline, the position at which its successor begins, and a
// reason (Postgres manual, "Timelines").
func forkOf(history []byte, timeline uint32) (LSN, bool) {
	lines := bufio.NewScanner(bytes.NewReader(history))
	for lines.Scan() {
		var id uint32
		var at string
		if n, err := fmt.Sscan(lines.Text(), &id, &at); err != nil || n != 2 || id != timeline {
			continue
		}
		if lsn, err := ParseLSN(at); err == nil {
			return lsn, true
		}
	}
	return 0, false
}

// identify takes a server as the one that the source reads from now on, unless
// the state knows one already.
func (s *Source) identify(id identity, slot *slotInfo) error {
	if s.c.Snapshot != SnapshotOnly && s.state.get().SystemID == 0 {
		err := s.state.update(func(st *state) {
			st.SystemID, st.Timeline, st.Absent = id.system, id.timeline, slot == nil
			if slot != nil {
				st.Confirmed, st.Last = slot.confirmed, st.before(slot.confirmed)
			}
		})
		if err != nil {
			return err
		}
	}
	st := s.state.get()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.system, s.epoch = id.system, id.system; st.SystemID == id.system {
		s.epoch = st.epoch()
	}
	return nil
}

// reading returns the cluster, and the epoch of its positions, that the source
// reads now.
func (s *Source) reading() (system, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.system, s.epoch
}

// end is a position after everything that the source and its durable listeners
// know of, and before whatever a new snapshot brings.
func (s *Source) end() listeners.Position {
	_, epoch := s.reading()
	known := max(s.known(s.state.get()), s.Stats().Confirmed)
	return listeners.Position{Epoch: epoch, Commit: uint64(known)}
}
