package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// LostSlotPolicy says what a source does when changes are lost: its slot is
// gone, invalid or not the one that it left, or the server's history is
// another one.
type LostSlotPolicy string

// The policies.
const (
	// LostSlotFail ends the run with a [SlotError], and resumes nothing.
	LostSlotFail LostSlotPolicy = "fail"
	// LostSlotResnapshot drops what is left of the slot and begins again in the
	// same run: listeners get a Reset and the rows as they stand. What was
	// deleted in between, and each change on the way, is lost.
	LostSlotResnapshot LostSlotPolicy = "resnapshot"
)

// A loss is what a state remembers of a slot that was given up. Whatever slot
// of that name is found next is dropped, and a snapshot begins again.
type loss struct {
	Reason    string    `json:"reason,omitempty"` // "" for none
	Time      time.Time `json:"time,omitzero"`
	Confirmed LSN       `json:"confirmed,omitzero"` // changes after it are lost
}

// lost returns the error for a slot that cannot be resumed.
func (s *Source) lost(reason string) *SlotError {
	remedy := "begin again with a new snapshot: LostSlot resnapshot (--lost-slot resnapshot)"
	if path := s.state.path; path != "" {
		remedy += ", or drop the slot, if there is one, and remove " + path
	} else {
		remedy += ", or drop the slot, if there is one, and run again"
	}
	return &SlotError{Slot: s.c.Slot, Reason: reason + "; changes were lost", Remedy: remedy, Lost: true}
}

// sameSlot refuses a slot that is not where this source left it: the server
// would start at the slot's own position, and silently. Nil stands for a slot
// that does not exist.
func (s *Source) sameSlot(slot *slotInfo) error {
	st := s.state.get()
	known := st.SystemID != 0
	switch {
	case slot == nil && known && !st.Absent:
		return s.lost("it does not exist any more")
	case slot == nil:
		return nil
	case slot.walStatus == "lost" && slot.reason != "" && slot.reason != "wal_removed":
		return s.lost(fmt.Sprintf("the server has invalidated it (%s)", slot.reason))
	case slot.walStatus == "lost":
		return s.lost("the server has removed WAL that it needs (max_slot_wal_keep_size)")
	case !known, st.Absent && st.Confirmed == 0: // it is adopted
		return nil
	case slot.confirmed > st.Confirmed:
		return s.lost(fmt.Sprintf("it is at %s, but only %s was confirmed: it was recreated, or somebody else read it", slot.confirmed, st.Confirmed))
	}
	return nil
}

// takeUp compares the slot that the set-up found with the state, and returns
// what is left of it: nil if this run begins anew.
func (s *Source) takeUp(ctx context.Context, slot *slotInfo) (*slotInfo, error) {
	if s.c.Snapshot == SnapshotOnly {
		return slot, nil
	}
	if st := s.state.get(); st.Lost.Reason != "" {
		s.c.Logger.WarnContext(ctx, "an earlier run lost its slot; beginning again", "slot", s.c.Slot,
			"reason", st.Lost.Reason, "at", st.Lost.Time, "lost_since", st.Lost.Confirmed.String())
		return nil, s.dropRemains(ctx)
	}
	if err := s.sameSlot(slot); err != nil {
		return nil, err
	}
	if slot == nil {
		return nil, nil //nolint:nilnil // there is none, and none is expected
	}
	return slot, s.state.update(func(st *state) {
		if slot.confirmed > st.Confirmed {
			st.Confirmed, st.Last = slot.confirmed, st.before(slot.confirmed)
		}
		st.Absent = false
	})
}

// beginAgain takes the error that ended the reading of a slot, and reports
// whether another one is to be read, from a snapshot on.
func (s *Source) beginAgain(ctx context.Context, err error) (bool, error) {
	lost, ok := errors.AsType[*SlotError](err)
	if !ok || !lost.Lost || ctx.Err() != nil {
		return false, err
	}
	again := s.c.LostSlot == LostSlotResnapshot
	if !again && !lost.drop {
		return false, err
	}
	before := s.state.get()
	next, refusal := s.afterLoss(before, lost)
	if refusal != nil {
		return false, refusal
	}
	reset := &listeners.Batch{
		Kind: listeners.Reset, Source: s.c.database, Position: s.end(), First: true, Last: true,
		Tx: listeners.Tx{Time: time.Now().UTC()},
	}
	s.c.Logger.WarnContext(ctx, "the slot is lost; what it kept is gone", "slot", s.c.Slot, "reason", lost.Reason,
		"lost_since", before.Confirmed.String(), "then", map[bool]string{true: "a new snapshot", false: "the end of this run"}[again])
	if storeErr := s.state.update(func(st *state) { *st = next }); storeErr != nil {
		if again {
			return false, errors.Join(err, storeErr)
		}
		// The next run finds that the slot is gone, which is not silent either.
		err = errors.Join(err, storeErr)
	}
	if dropErr := s.dropRemains(ctx); dropErr != nil {
		return false, errors.Join(err, dropErr)
	}
	if !again {
		s.feed.Append(reset) // a full feed has room for one without events
		timeout, cancel := context.WithTimeout(ctx, s.c.StopTimeout)
		defer cancel()
		if waitErr := s.waitStored(timeout, reset.Position, s.heard); waitErr != nil {
			s.c.Logger.WarnContext(ctx, "not every subscription has heard of the loss; a later run tells it again", "slot", s.c.Slot, "error", waitErr)
		}
		return false, err
	}
	s.tracker.reset()
	s.keeper.reset()
	s.backs.reset(lost)
	s.losses++
	if wait := min(time.Second<<min(s.losses-1, 6)-time.Second, time.Minute); wait > 0 {
		return true, sleep(ctx, wait) // a slot that is lost again and again must not be a busy loop
	}
	return true, nil
}

// afterLoss returns the state from which a new snapshot begins. Positions must
// not go back: sinks take what is at or before their last one as stored.
func (s *Source) afterLoss(st state, lost *SlotError) (state, error) {
	_, epoch := s.reading()
	epoch = max(epoch, st.epoch())
	next := state{
		SystemID: st.SystemID, Timeline: st.Timeline, Epoch: st.Epoch, Absent: true,
		Lost: loss{Reason: lost.Reason, Time: time.Now().UTC().Truncate(time.Second), Confirmed: st.Confirmed},
	}
	server := lost.server
	switch {
	case server.system == 0:
		return next, nil
	case server.system != st.SystemID && server.system <= epoch:
		return st, &SlotError{
			Slot:   s.c.Slot,
			Reason: fmt.Sprintf("%s; positions would go back, since the cluster is older than the one before (%d)", lost.Reason, epoch),
			Remedy: "begin with new destinations: another stream or directory, and another StateDir (--state-dir)",
		}
	case server.system != st.SystemID:
		next.Epoch = 0
	case s.state.path == "":
		return st, &SlotError{
			Slot:   s.c.Slot,
			Reason: lost.Reason + "; positions may go back, and a new epoch for them cannot be remembered without a StateDir (--state-dir)",
			Remedy: "begin with new destinations, or with a StateDir from the start",
		}
	default:
		next.Epoch = epoch + 1
	}
	next.SystemID, next.Timeline = server.system, server.timeline
	return next, nil
}

// dropRemains drops the source's slot if there is one that nobody reads, and
// waits SlotWait for a reader that is about to leave.
func (s *Source) dropRemains(ctx context.Context) error {
	conn, err := s.c.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	for deadline := time.Now().Add(s.c.SlotWait); ; {
		slot, err := lookUpSlot(ctx, conn, s.c.Slot)
		switch {
		case err != nil:
			return fmt.Errorf("look up slot %q: %w", s.c.Slot, err)
		case slot == nil:
			return nil
		case slot.physical || slot.plugin != "pgoutput" || slot.database != s.c.database:
			return &SlotError{Slot: s.c.Slot, Reason: "its name is now that of a slot for something else", Remedy: "choose another slot name"}
		case !slot.active:
			_, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", s.c.Slot)
			switch sqlState(err) {
			case "":
				if err == nil {
					s.c.Logger.InfoContext(ctx, "dropped slot", "slot", s.c.Slot)
				}
				return err
			case "55006", "42704": // in use again, or gone
			default:
				return fmt.Errorf("drop slot %q: %w", s.c.Slot, err)
			}
		}
		if time.Now().After(deadline) {
			return &SlotError{Slot: s.c.Slot, Reason: "it cannot be dropped, since a process reads it", Err: ErrSlotInUse, Remedy: "stop that process"}
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// tell sends a status update that says no more than the state has stored.
func (s *Source) tell(ctx context.Context, w *wire, last bool) error {
	received, confirmed := s.tracker.stored(s.stored())
	stored, err := s.state.reach(confirmed, last)
	if err != nil {
		s.c.Logger.WarnContext(ctx, "the state cannot be stored; the slot keeps what comes", "slot", s.c.Slot, "error", err)
	}
	return w.status(received, min(confirmed, stored))
}

// lookUp looks the slot up on a catalog's connection.
func (q *catalog) lookUp(ctx context.Context) (*slotInfo, error) {
	conn, err := q.connected(ctx)
	if err != nil {
		return nil, err
	}
	return lookUpSlot(ctx, conn, q.c.Slot)
}
