package cdc

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/listeners"
)

// A keptSnapshot is how far a snapshot is that survives its process. Its slot
// keeps the changes that the tables which are done still need; it is at At or
// before. It is never changed, but replaced.
type keptSnapshot struct {
	Slot        string `json:"slot"`
	SystemID    uint64 `json:"system_id,string"`
	Publication string `json:"publication"`
	// PublicationOID tells a publication from a later one of the same name, which
	// does not have what was before it.
	PublicationOID uint32 `json:"publication_oid"`
	// At is what the tables in Done are like: they have the commits before it,
	// stored, and none after it.
	At LSN `json:"at"`
	// Done has the OID of each table, as "schema.table", whose rows are stored.
	Done map[string]uint32 `json:"done"`
}

const keeperSuffix = "_snapshot"

// keeperSlot names the slot that keeps a snapshot for the slot that is to
// come. A long name gives way to its hash.
func keeperSlot(slot string) string {
	if len(slot)+len(keeperSuffix) <= 63 {
		return slot + keeperSuffix
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(slot))
	hash := fmt.Sprintf("_%08x", h.Sum32())
	return slot[:63-len(keeperSuffix)-len(hash)] + hash + keeperSuffix
}

// keepsSnapshot says whether the first snapshot survives the process.
func (s *Source) keepsSnapshot() bool { return s.c.ownKeeper() != "" }

// ownKeeper names the slot of the snapshot that this source may have left, ""
// if it leaves none. It counts as free: the run takes it over or drops it.
func (c *config) ownKeeper() string {
	if c.StateDir == "" || c.Snapshot != SnapshotInitial {
		return ""
	}
	return keeperSlot(c.Slot)
}

// settleSnapshot looks what is left of a snapshot at the beginning of a run,
// and reports whether this one will go on with it.
func (s *Source) settleSnapshot(ctx context.Context, conn *pgx.Conn, inv *inventory, snapshot bool) (resumed bool, err error) {
	switch {
	case !s.keepsSnapshot():
		if s.c.Snapshot == SnapshotNever && s.state.get().Snapshot != nil {
			return false, s.dropKeeper(ctx, conn, "no snapshot is wanted any more")
		}
		return false, nil
	case inv.slot != nil:
		return false, s.dropKeeper(ctx, conn, "the snapshot is complete")
	case !snapshot:
		return false, nil
	}
	kept, _, err := s.leftSnapshot(ctx, conn, inv)
	return kept != nil, err
}

// leftSnapshot returns the snapshot that an earlier run or attempt has left, or
// why it is of no use.
func (s *Source) leftSnapshot(ctx context.Context, conn *pgx.Conn, inv *inventory) (kept *keptSnapshot, why string, err error) {
	kept = s.state.get().Snapshot
	system, _ := s.reading()
	publication, err := publicationOID(ctx, conn, s.c.Publication)
	if err != nil {
		return nil, "", err
	}
	slot, err := s.lookUpKeeper(ctx, conn)
	if err != nil {
		return nil, "", err
	}
	switch {
	case slot == nil:
		return nil, "its slot is gone", nil
	case kept == nil || kept.Slot != slot.name:
		return nil, "nothing is known of it", nil
	case kept.SystemID != system:
		return nil, "it is of another cluster", nil
	case kept.Publication != s.c.Publication:
		return nil, fmt.Sprintf("it is of publication %q", kept.Publication), nil
	case kept.PublicationOID != publication:
		return nil, fmt.Sprintf("publication %q is not what it was", kept.Publication), nil
	case slot.walStatus == "lost":
		return nil, "the server has removed WAL that it needs", nil
	case slot.confirmed > kept.At:
		return nil, fmt.Sprintf("its slot is at %s, but should be at %s", slot.confirmed, kept.At), nil
	case len(kept.Done) == 0:
		return nil, "no table was complete", nil
	}
	tables, err := s.snapshotTables(ctx, conn, inv, nil)
	if err != nil {
		return nil, "", err
	}
	now := make(map[string]uint32, len(tables))
	for _, t := range tables {
		now[t.schema+"."+t.name] = t.oid
	}
	for table, oid := range kept.Done {
		if now[table] != oid {
			return nil, fmt.Sprintf("table %s is not what it was", table), nil
		}
	}
	return kept, "", nil
}

func publicationOID(ctx context.Context, conn *pgx.Conn, name string) (oid uint32, err error) {
	err = conn.QueryRow(ctx, "SELECT coalesce((SELECT oid FROM pg_publication WHERE pubname = $1), 0)", name).Scan(&oid)
	if err != nil {
		return 0, fmt.Errorf("look up publication %q: %w", name, err)
	}
	return oid, nil
}

// lookUpKeeper looks up the slot of a kept snapshot, nil if there is none.
func (s *Source) lookUpKeeper(ctx context.Context, conn *pgx.Conn) (*slotInfo, error) {
	name := keeperSlot(s.c.Slot)
	slot, err := lookUpSlot(ctx, conn, name)
	if err != nil {
		return nil, fmt.Errorf("look up slot %q: %w", name, err)
	}
	if slot != nil && (slot.physical || slot.temporary || slot.plugin != "pgoutput" || slot.database != s.c.database) {
		return nil, &SlotError{
			Slot: name, Reason: fmt.Sprintf("the snapshot for slot %q needs this name, and somebody else has it", s.c.Slot),
			Remedy: "choose another slot name",
		}
	}
	return slot, nil
}

// dropKeeper drops the slot of a snapshot that is complete or of no use, if
// there is one, and forgets the snapshot.
func (s *Source) dropKeeper(ctx context.Context, conn *pgx.Conn, why string) error {
	slot, err := s.lookUpKeeper(ctx, conn)
	if err != nil {
		return err
	}
	if slot != nil {
		_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", slot.name)
		if err != nil && sqlState(err) != "42704" { // gone meanwhile
			return fmt.Errorf("drop slot %q: %w", slot.name, err)
		}
		s.c.Logger.InfoContext(ctx, "dropped the slot of a snapshot", "slot", slot.name, "why", why)
	}
	if s.state.get().Snapshot == nil {
		return nil
	}
	return s.state.update(func(st *state) { st.Snapshot = nil })
}

// A doneTable has been handed over up to a position.
type doneTable struct {
	name string
	oid  uint32
	end  listeners.Position
}

// doneTables wait to be stored. The snapshot's reader adds them, and another
// goroutine notes in the state those that are.
type doneTables struct {
	mu      sync.Mutex
	waiting []doneTable
}

func (d *doneTables) add(t *snapshotTable, end listeners.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = append(d.waiting, doneTable{name: t.schema + "." + t.name, oid: t.oid, end: end})
}

// stored takes those that are stored.
func (d *doneTables) stored(upTo listeners.Position) []doneTable {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(d.waiting) && d.waiting[n].end.Compare(upTo) <= 0 {
		n++
	}
	stored := d.waiting[:n:n]
	d.waiting = d.waiting[n:]
	return stored
}

const noteInterval = 50 * time.Millisecond

// note notes stored tables until ctx ends or the state cannot be written.
func (s *Source) note(ctx context.Context, d *doneTables) error {
	tick := time.NewTicker(noteInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.noteStored(d); err != nil {
			return err
		}
	}
}

func (s *Source) noteStored(d *doneTables) error {
	stored := d.stored(s.stored())
	if len(stored) == 0 {
		return nil
	}
	return s.state.update(func(st *state) {
		next := *st.Snapshot
		next.Done = maps.Clone(next.Done)
		for _, t := range stored {
			next.Done[t.name] = t.oid
		}
		st.Snapshot = &next
	})
}
