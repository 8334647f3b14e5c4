package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// slotPolicies applies the defaults of the policies and finds their faults.
func (c *config) slotPolicies() (faults []error) {
	switch c.LostSlot {
	case "":
		c.LostSlot = LostSlotFail
	case LostSlotFail:
	case LostSlotResnapshot:
		if c.Snapshot == SnapshotNever {
			faults = append(faults, fmt.Errorf("lost slot %q needs snapshot %q: without one, nobody learns what was lost", c.LostSlot, SnapshotInitial))
		}
	default:
		faults = append(faults, fmt.Errorf("lost slot %q: want fail or resnapshot", c.LostSlot))
	}
	switch c.RetainedWALPolicy {
	case "":
		c.RetainedWALPolicy = RetainedWALWarn
	case RetainedWALWarn:
	case RetainedWALPauseSnapshot, RetainedWALStop:
		if c.MaxRetainedWAL == 0 {
			faults = append(faults, fmt.Errorf("retained WAL policy %q needs a limit: set max retained WAL", c.RetainedWALPolicy))
		}
	default:
		faults = append(faults, fmt.Errorf("retained WAL policy %q: want warn, pause-snapshot or stop", c.RetainedWALPolicy))
	}
	return faults
}

// takeOver decides about the server and the slot that the set-up has found. It
// returns the slot that is left, nil if the run begins with a new one.
func (s *Source) takeOver(ctx context.Context, repl *pgconn.PgConn, id identity, slot *slotInfo) (*slotInfo, error) {
	if err := s.state.reload(s.c.Slot); err != nil {
		return nil, err
	}
	if s.c.Snapshot != SnapshotOnly {
		if err := s.recognise(ctx, repl, id); err != nil {
			return nil, err
		}
	}
	if err := s.identify(id, slot); err != nil {
		return nil, err
	}
	return s.takeUp(ctx, slot)
}

// making notes the slot that is about to be made. If the process dies right
// then, the next run takes the slot if it is there, and begins again if not.
func (s *Source) making(server identity, at LSN) error {
	return s.state.update(func(st *state) {
		st.SystemID, st.Timeline = server.system, server.timeline
		st.Confirmed, st.Absent, st.Lost = at, true, loss{}
		st.Last = st.before(at)
	})
}

// made notes a slot that exists now, and finishes it.
func (s *Source) made(ctx context.Context, repl *pgconn.PgConn, server identity, at string) error {
	confirmed, err := ParseLSN(at)
	if err != nil {
		return err
	}
	if err := s.keepOnStandbys(ctx, repl, false); err != nil {
		return err
	}
	return s.state.update(func(st *state) {
		st.SystemID, st.Timeline = server.system, server.timeline
		st.Confirmed, st.Absent, st.Lost = confirmed, false, loss{}
		st.Last = st.before(confirmed)
	})
}

// madeBefore reports whether an attempt before this one has made the slot
// without hearing of it, and finishes it then.
func (s *Source) madeBefore(ctx context.Context) (bool, error) {
	st := s.state.get()
	if s.c.Snapshot == SnapshotOnly || !st.Absent || st.Confirmed == 0 {
		return false, nil
	}
	conn, err := s.c.connect(ctx)
	if err != nil {
		return false, err
	}
	slot, err := lookUpSlot(ctx, conn, s.c.Slot)
	hangUp(ctx, conn.PgConn())
	if err != nil || slot == nil || slot.confirmed != st.Confirmed {
		return false, err
	}
	repl, server, err := s.c.connectIdentified(ctx)
	if err != nil {
		return false, err
	}
	defer hangUp(ctx, repl)
	return true, s.made(ctx, repl, server, slot.confirmed.String())
}

// keepOnStandbys makes the slot a failover slot if that was asked for. A copy
// of a slot is none, whatever its original is.
func (s *Source) keepOnStandbys(ctx context.Context, repl *pgconn.PgConn, already bool) error {
	if !s.c.Failover || already {
		return nil
	}
	_, err := repl.Exec(ctx, "ALTER_REPLICATION_SLOT "+quote(s.c.Slot)+" (FAILOVER true)").ReadAll()
	if err != nil {
		return fmt.Errorf("make slot %q a failover slot: %w", s.c.Slot, err)
	}
	s.c.Logger.InfoContext(ctx, "standbys keep the slot in step", "slot", s.c.Slot)
	return nil
}

// tellOfWait logs that a new slot takes long, and why, unless the function that
// it returns is called within three seconds.
func (s *Source) tellOfWait(ctx context.Context, slot string) (made func()) {
	waiting := time.AfterFunc(3*time.Second, func() {
		s.mu.Lock()
		standby := s.standby
		s.mu.Unlock()
		if standby {
			s.c.Logger.WarnContext(ctx, "the new slot waits for the primary to log its running transactions, which an idle one does not",
				"slot", slot, "remedy", "SELECT pg_log_standby_snapshot() on the primary")
			return
		}
		s.c.Logger.InfoContext(ctx, "the new slot waits for transactions that are still running", "slot", slot)
	})
	return func() { waiting.Stop() }
}
