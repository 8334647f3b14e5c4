package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// DropOptions set up [DropSlot]. Nil and zero mean the defaults.
type DropOptions struct {
	// Force ends the process that reads the slot, if there is one, and drops the
	// slot before it comes back. A Source that was reading it ends with a
	// [SlotError].
	Force bool
	// StateDir is that of the Source which read the slot: its state is removed
	// together with the slot, so that it does not miss it. Default: none.
	StateDir string
}

// forceTimeout bounds how long DropSlot struggles with holders.
const forceTimeout = 15 * time.Second

// DropSlot drops a logical slot of the cluster, whatever database it belongs
// to. What it kept is lost to its reader: the next run begins with a new
// snapshot. The publication stays.
//
// It leaves alone, with a [SlotError], a slot that somebody reads
// ([ErrSlotInUse]; the error names the process), one that does not exist
// ([ErrNoSlot]; the error offers similar names) and physical ones, which serve
// standbys. It returns a [SetupError] if the server cannot be reached or the
// role lacks the REPLICATION privilege. No error holds the password. With Force it needs the right to end the reader's process
// (pg_signal_backend, or the same role), and gives up after 15 s.
func DropSlot(ctx context.Context, databaseURL, name string, opts *DropOptions) (err error) {
	defer func() {
		if err == nil && opts != nil && opts.StateDir != "" {
			err = forget(opts.StateDir, name)
		}
	}()
	if name == "" {
		return errors.New("cdc: drop slot: the name is missing")
	}
	c, err := newConfig(databaseURL, &Options{Slot: name})
	if err != nil {
		return err
	}
	conn, inv, err := c.visit(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	if f := inv.privilegeFinding(); f.Level == Fatal {
		return &SetupError{Findings: []Finding{f}}
	}
	force := opts != nil && opts.Force
	seen := false
	deadline := time.Now().Add(forceTimeout)
	for {
		slot, err := lookUpSlot(ctx, conn, name)
		switch {
		case err != nil:
			return fmt.Errorf("cdc: look up slot %q: %w", name, err)
		case slot == nil && seen:
			return nil // a temporary slot has gone with its holder
		case slot == nil:
			return noSlot(ctx, conn, name)
		case slot.physical:
			return &SlotError{
				Slot: name, Reason: "it is a physical one, which serves a standby",
				Remedy: fmt.Sprintf("SELECT pg_drop_replication_slot(%s) if that standby is gone", literal(name)),
			}
		case slot.active && (!force || time.Now().After(deadline)):
			return slotHeld(slot, force)
		case slot.active:
			if err := c.endHolder(ctx, conn, slot, inv.user); err != nil {
				return err
			}
		}
		seen = true
		_, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, name)
		switch sqlState(err) {
		case "55006", "42704": // in use again, or gone in the meantime
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("cdc: drop slot %q: %w", name, err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("cdc: drop slot %q: %w", name, err)
		}
		return nil
	}
}

func slotHeld(slot *slotInfo, force bool) error {
	e := &SlotError{
		Slot: slot.name, Err: ErrSlotInUse,
		Reason: slot.holder() + " reads it",
		Remedy: "stop that process, or force the drop, which ends it",
	}
	if force {
		e.Reason = fmt.Sprintf("after %s of ending its readers, %s reads it", forceTimeout, slot.holder())
		e.Remedy = "stop what starts that process"
	}
	return e
}

// endHolder ends the process that reads the slot if it still is the one that was
// seen, and waits until it is gone. The drop that follows comes before its
// successor's first attempt, as a rule.
func (c *config) endHolder(ctx context.Context, conn *pgx.Conn, slot *slotInfo, user string) error {
	_, err := conn.Exec(ctx, `
		SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
		WHERE slot_name = $1 AND active_pid = $2`, slot.name, slot.activePID)
	if sqlState(err) == "42501" { // insufficient_privilege
		return &SlotError{
			Slot: slot.name, Err: ErrSlotInUse,
			Reason: fmt.Sprintf("%s reads it, which role %q may not end", slot.holder(), user),
			Remedy: fmt.Sprintf("stop that process, or GRANT pg_signal_backend TO %s (only superusers end those of superusers)", quote(user)),
		}
	}
	if err != nil {
		return fmt.Errorf("cdc: end %s, which reads slot %q: %w", slot.holder(), slot.name, err)
	}
	return nil
}

// noSlot offers the names that may have been meant.
func noSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	e := &SlotError{Slot: name, Reason: "nothing to drop", Err: ErrNoSlot, Remedy: "check the name and the server"}
	rows, err := conn.Query(ctx, `SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'logical' ORDER BY 1`)
	if err != nil {
		return e
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return e
	}
	if near := similarWords(name, names); len(near) > 0 {
		e.Remedy = "did you mean " + strings.Join(near, ", ") + "?"
	}
	return e
}

// similarWords returns those within a few letters of the word, best first.
func similarWords(word string, words []string) []string {
	near := slices.DeleteFunc(slices.Clone(words), func(w string) bool {
		return editDistance(word, w) > max(1, len(word)/3)
	})
	slices.SortStableFunc(near, func(a, b string) int { return cmp.Compare(editDistance(word, a), editDistance(word, b)) })
	return near[:min(len(near), maxSimilarShown)]
}
