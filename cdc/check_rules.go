package cdc

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
)

// findings applies the rules to what the catalogs said; [Fatal] ones are those
// with which a source cannot work. Whether another process holds the slot is
// left to slotInUse, since a source waits for it first.
func (inv *inventory) findings(c *config) []Finding {
	if inv.version < minVersion {
		return []Finding{inv.tooOld()}
	}
	out := []Finding{{Check: "server_version", Text: "the server is Postgres " + versionText(inv.version)}}
	if inv.recovery && inv.version < standbyVersion {
		return append(out, standbyFinding())
	}
	if inv.recovery {
		out = append(out, inv.standbyFindings()...)
	}
	out = append(out, inv.walLevelFinding(), inv.privilegeFinding())
	out = append(out, inv.capacityFindings(c)...)
	if c.TwoPhase && inv.version < 150000 {
		out = append(out, Finding{
			Check: "two_phase", Level: Fatal,
			Text:   fmt.Sprintf("the server is Postgres %s, which does not send prepared transactions", versionText(inv.version)),
			Remedy: "do without two-phase (they arrive whole when they commit), or upgrade to 15",
		})
	}
	out = append(out, inv.slotFindings(c)...)
	out = append(out, inv.failoverFindings(c)...)
	out = append(out, inv.tableFindings(c)...)
	out = append(out, inv.publicationFindings(c)...)
	out = append(out, inv.outboxFindings(c)...)
	out = append(out, inv.identityFindings(c)...)
	if inv.synchronousCommit == "off" {
		out = append(out, Finding{
			Check: "synchronous_commit", Level: Info,
			Text:   fmt.Sprintf("synchronous_commit is off: commits are read up to wal_writer_delay (%s) late", inv.walWriterDelay),
			Remedy: "if that is too late, switch synchronous_commit on, or lower wal_writer_delay",
		})
	}
	return out
}

func (inv *inventory) tooOld() Finding {
	return Finding{
		Check: "server_version", Level: Fatal,
		Text:   fmt.Sprintf("the server is Postgres %s; 14 is the oldest that is supported", versionText(inv.version)),
		Remedy: "upgrade the server",
	}
}

func standbyFinding() Finding {
	return Finding{
		Check: "standby", Level: Fatal,
		Text:   "the server is a standby, and only Postgres 16 and later can read changes from one",
		Remedy: "connect to the primary; in a URL with several hosts, target_session_attrs=read-write picks it",
	}
}

// takesSnapshot says whether a run would read the tables.
func (inv *inventory) takesSnapshot(c *config) bool {
	return c.Snapshot == SnapshotOnly || c.Snapshot == SnapshotInitial && inv.slot == nil
}

// streams says whether a run would use the publication and the slot.
func streams(c *config) bool { return c.Snapshot != SnapshotOnly }

func versionText(v int) string {
	if v < 100000 { // before 10 the major version had two parts
		return fmt.Sprintf("%d.%d", v/10000, v/100%100)
	}
	return fmt.Sprintf("%d.%d", v/10000, v%10000)
}

func (inv *inventory) walLevelFinding() Finding {
	f := Finding{Check: "wal_level", Text: "wal_level is " + inv.walLevel}
	if inv.walLevel == "logical" {
		return f
	}
	f.Level = Fatal
	f.Text += "; changes can only be read with logical"
	switch inv.provider {
	case "rdsadmin":
		f.Remedy = "set rds.logical_replication = 1 in the parameter group and reboot the instance"
	case "cloudsqladmin":
		f.Remedy = "set the flag cloudsql.logical_decoding=on; the instance restarts"
	case "alloydbadmin":
		f.Remedy = "set the flag alloydb.logical_decoding=on; the instance restarts"
	case "azure_pg_admin":
		f.Remedy = "set the server parameter wal_level to logical and restart the server"
	case "neon_superuser":
		f.Remedy = "enable logical replication in the project's settings"
	default:
		f.Remedy = "ALTER SYSTEM SET wal_level = logical, then restart the server" +
			" (a managed service has a parameter for it, such as rds.logical_replication = 1)"
	}
	return f
}

func (inv *inventory) privilegeFinding() Finding {
	f := Finding{Check: "replication_privilege", Object: inv.user, Text: fmt.Sprintf("role %q may replicate", inv.user)}
	if inv.replication || inv.superuser {
		return f
	}
	f.Level = Fatal
	f.Text = fmt.Sprintf("role %q lacks the REPLICATION privilege", inv.user)
	if inv.provider == "rdsadmin" {
		f.Remedy = fmt.Sprintf("GRANT rds_replication TO %s", quote(inv.user))
	} else {
		f.Remedy = fmt.Sprintf("ALTER ROLE %s REPLICATION, as a superuser", quote(inv.user))
	}
	return f
}

// capacityFindings counts what a run still needs. A new slot is a temporary one
// first, until a snapshot is stored or the slot has been looked at.
func (inv *inventory) capacityFindings(c *config) []Finding {
	slots, senders := 0, 1
	switch {
	case !streams(c):
		slots = 1
	case inv.slot != nil:
		if inv.slot.active {
			senders = 0 // its holder's, which ends first
		}
	default:
		slots = 2
	}
	return []Finding{
		capacity("slots", "max_replication_slots", inv.maxSlots, inv.usedSlots, slots,
			"or drop one that nobody reads: SELECT slot_name, active, wal_status FROM pg_replication_slots"),
		capacity("senders", "max_wal_senders", inv.maxSenders, inv.usedSenders, senders,
			"or end a replication connection: SELECT pid, application_name, client_addr FROM pg_stat_replication"),
	}
}

func capacity(check, setting string, limit, used, need int, otherwise string) Finding {
	f := Finding{Check: check, Text: fmt.Sprintf("%d of %d %s are in use", used, limit, setting)}
	if free := max(0, limit-used); free < need {
		f.Level = Fatal
		f.Text += fmt.Sprintf(", and the run needs %d more", need)
		f.Remedy = fmt.Sprintf("set %s to at least %d and restart the server, %s", setting, used+need, otherwise)
	}
	return f
}

func (inv *inventory) slotFindings(c *config) []Finding {
	if !streams(c) {
		return nil
	}
	s := inv.slot
	finding := func(level Level, text, remedy string) []Finding {
		return []Finding{{Check: "slot", Level: level, Object: c.Slot, Text: fmt.Sprintf("slot %q %s", c.Slot, text), Remedy: remedy}}
	}
	choose := "choose another slot name"
	switch {
	case s == nil:
		return append(finding(OK, "does not exist yet and will be created", ""), inv.retentionFindings(c)...)
	case s.physical:
		return finding(Fatal, "is a physical one, which serves a standby", choose)
	case s.plugin != "pgoutput":
		return finding(Fatal, fmt.Sprintf("uses the output plugin %q, not pgoutput", s.plugin), choose)
	case s.database != inv.database:
		return finding(Fatal, fmt.Sprintf("belongs to database %q, not to %q", s.database, inv.database), choose)
	case s.temporary:
		return finding(Fatal, "is a temporary one of another session", choose)
	case s.walStatus == "lost":
		why := "is lost: the server has removed WAL that had not been read"
		if s.reason != "" && s.reason != "wal_removed" {
			why = fmt.Sprintf("is lost: the server has invalidated it (%s)", s.reason)
		}
		again := fmt.Sprintf("SELECT pg_drop_replication_slot(%s) and start again: ", literal(c.Slot))
		if c.Snapshot == SnapshotNever {
			again += fmt.Sprintf("changes since %s are gone, since no snapshot is taken", s.confirmed)
		} else {
			again += fmt.Sprintf("a new snapshot is taken; changes since %s are in it as they stand, one by one they are gone", s.confirmed)
		}
		if c.LostSlot == LostSlotResnapshot {
			return finding(Warning, why, fmt.Sprintf("nothing: the next run drops it and takes a new snapshot; changes since %s are in it as they stand", s.confirmed))
		}
		return finding(Fatal, why, again)
	case s.walStatus == "unreserved":
		return finding(Warning, fmt.Sprintf("is about to be lost: it needs %s of WAL, more than max_slot_wal_keep_size (%s)",
			size(s.retained), inv.maxWALKeep), "start the reader at once, or raise max_slot_wal_keep_size and reload")
	}
	behind := fmt.Sprintf("is %s behind and keeps %s of WAL", size(s.lag), size(s.retained))
	out := finding(Info, behind, "if that grows while the reader runs, a subscription is slow or a transaction is long")
	return append(out, inv.retentionFindings(c)...)
}

// retentionFindings say what happens while no reader runs.
func (inv *inventory) retentionFindings(c *config) []Finding {
	if inv.maxWALKeep != "-1" {
		return []Finding{{
			Check: "wal_retention", Level: Info,
			Text:   fmt.Sprintf("max_slot_wal_keep_size is %s: a reader that falls behind further loses its slot", inv.maxWALKeep),
			Remedy: "set it to the WAL of the longest stop that a reader must survive",
		}}
	}
	return []Finding{{
		Check: "wal_retention", Level: Info,
		Text:   fmt.Sprintf("max_slot_wal_keep_size is -1: while no reader runs, slot %q keeps WAL until the disk is full", c.Slot),
		Remedy: "set max_slot_wal_keep_size to what the disk can spare, and drop a slot that is no longer read",
	}}
}

// slotInUse is the rule about a slot that another process holds, nil if none
// does.
func slotInUse(inv *inventory, c *config) *Finding {
	s := inv.slot
	if !streams(c) || s == nil || !s.active {
		return nil
	}
	return &Finding{
		Check: "slot", Level: Fatal, Object: c.Slot,
		Text: fmt.Sprintf("slot %q is in use by %s", c.Slot, s.holder()),
		Remedy: fmt.Sprintf("stop that process, choose another slot name, or SELECT pg_terminate_backend(%d)",
			s.activePID),
	}
}

// holder names the process that reads the slot.
func (s *slotInfo) holder() string {
	text := fmt.Sprintf("PID %d", s.activePID)
	if s.activeBy != "" {
		text += " (" + s.activeBy + ")"
	}
	return text
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }

// some lists a few names and counts the rest.
func some(names []string) string {
	const shown = 5
	if len(names) <= shown+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}
