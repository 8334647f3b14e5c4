package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The first versions that decode on a standby, and keep slots in step there.
const (
	standbyVersion  = 160000
	failoverVersion = 170000
)

// takeStandby reads what matters to a standby, or to a primary with some. A
// setting that a version does not have is "".
func (inv *inventory) takeStandby(ctx context.Context, conn *pgx.Conn, _ *config) error {
	return conn.QueryRow(ctx, `
		SELECT current_setting('hot_standby_feedback') = 'on',
		       current_setting('primary_slot_name'),
		       coalesce(current_setting('synchronized_standby_slots', true), '')`,
	).Scan(&inv.feedback, &inv.primarySlot, &inv.awaitedSlots)
}

// standbyFindings are the rules of a standby that can be read.
func (inv *inventory) standbyFindings() []Finding {
	out := []Finding{{
		Check: "standby", Level: Info, Text: "the server is a standby: changes are read as soon as it has replayed them",
		Remedy: "a new slot waits for the primary to log its running transactions: if it is idle, SELECT pg_log_standby_snapshot() there",
	}}
	var lacks []string
	if !inv.feedback {
		lacks = append(lacks, "hot_standby_feedback is off")
	}
	if inv.primarySlot == "" {
		lacks = append(lacks, "primary_slot_name is empty")
	}
	if len(lacks) > 0 {
		out = append(out, Finding{
			Check: "hot_standby_feedback", Level: Warning,
			Text:   strings.Join(lacks, " and ") + ": a vacuum on the primary may invalidate the slot",
			Remedy: "set hot_standby_feedback = on, and primary_slot_name to a physical slot of the primary, and reload",
		})
	}
	return out
}

// failoverFindings are the rules of Options.Failover.
func (inv *inventory) failoverFindings(c *config) []Finding {
	finding := func(level Level, text, remedy string) []Finding {
		return []Finding{{Check: "failover", Level: level, Object: c.Slot, Text: text, Remedy: remedy}}
	}
	switch {
	case !c.Failover || !streams(c):
		return nil
	case inv.version < failoverVersion:
		return finding(Fatal, fmt.Sprintf("the server is Postgres %s; it cannot keep slots in step on standbys", versionText(inv.version)),
			"upgrade to 17 or later, or do without Failover (--failover)")
	case inv.recovery:
		return finding(Fatal, "the server is a standby, whose slots cannot be failover slots",
			"connect to the primary, or do without Failover (--failover)")
	case inv.awaitedSlots == "":
		return finding(Warning, "synchronized_standby_slots is empty: after a failover the standby may lack changes that were read here",
			"set synchronized_standby_slots to the physical slots of the standbys that may be promoted, and reload")
	}
	return finding(OK, "standbys keep the slot in step; the reader waits for "+inv.awaitedSlots, "")
}

// readByRowcall softens, for a check that is not a run, the rule about a slot
// in use: most likely it is read by the very program that is asked about.
func (inv *inventory) readByRowcall(c *config, f *Finding) *Finding {
	if f == nil || !strings.HasPrefix(inv.slot.activeBy, c.conn.RuntimeParams["application_name"]) {
		return f
	}
	return &Finding{
		Check: f.Check, Level: Warning, Object: f.Object,
		Text:   fmt.Sprintf("slot %q is read by rowcall, %s", c.Slot, inv.slot.holder()),
		Remedy: "nothing, if that one is to run; a second one would wait for it and give up",
	}
}

// replayed returns how far a standby has replayed the log, and false for a
// primary.
func replayed(ctx context.Context, conn *pgx.Conn) (LSN, bool, error) {
	var at LSN
	err := conn.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn()::text WHERE pg_is_in_recovery()").Scan(&at)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return at, err == nil, err
}
