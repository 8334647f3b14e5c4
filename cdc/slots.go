package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// A SlotStatus is what the server says of one logical replication slot. Sizes
// are in bytes. The JSON names do not change between versions.
type SlotStatus struct {
	Name      string `json:"name"` // unique in the cluster
	Database  string `json:"database"`
	Plugin    string `json:"plugin"`    // pgoutput for those that a Source reads
	Temporary bool   `json:"temporary"` // it ends with its session, such as a snapshot's

	// Active says that a process reads it: HolderPID, and its application name
	// and address as far as the role may see them.
	Active    bool   `json:"active"`
	HolderPID int32  `json:"holder_pid,omitempty"`
	Holder    string `json:"holder,omitempty"`

	// Confirmed is where a reader goes on, LagBytes how far that is behind the
	// end of the log. Restart is the oldest WAL that the server needs to decode
	// from there: it keeps RetainedBytes for this slot. A long transaction holds
	// Restart back even if nothing lags.
	Confirmed     LSN   `json:"confirmed"`
	Restart       LSN   `json:"restart"` // 0 if the slot is lost
	LagBytes      int64 `json:"lag_bytes"`
	RetainedBytes int64 `json:"retained_bytes"`

	// WALStatus is reserved, extended, unreserved (about to be lost) or lost;
	// Invalidation says why it was lost, from Postgres 17 on.
	WALStatus    string `json:"wal_status"`
	Invalidation string `json:"invalidation,omitempty"`

	// Failover and Synced are false before Postgres 17: the slot is kept in step
	// on standbys, and, on a standby, it is the copy of a primary's slot.
	Failover bool `json:"failover"`
	Synced   bool `json:"synced"`
}

// Slots returns all logical slots of the cluster that the URL leads to, those of
// other databases and programs too, by name; none is no error. It needs no
// privilege beyond the connection, works on a standby as well, and changes
// nothing.
//
// A server that cannot be reached is a [SetupError]. No error holds the
// password.
func Slots(ctx context.Context, databaseURL string) ([]SlotStatus, error) {
	c, err := newConfig(databaseURL, nil)
	if err != nil {
		return nil, err
	}
	c.conn.RuntimeParams["default_transaction_read_only"] = "on"
	conn, _, err := c.visit(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn.PgConn())
	rows, err := conn.Query(ctx, selectSlots+` WHERE s.slot_type = 'logical' ORDER BY s.slot_name`)
	if err != nil {
		return nil, fmt.Errorf("cdc: read the slots: %w", err)
	}
	slots, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (SlotStatus, error) {
		s, err := scanSlot(row)
		if err != nil {
			return SlotStatus{}, err
		}
		return s.status(), nil
	})
	if err != nil {
		return nil, fmt.Errorf("cdc: read the slots: %w", err)
	}
	return slots, nil
}

func (s *slotInfo) status() SlotStatus {
	return SlotStatus{
		Name: s.name, Database: s.database, Plugin: s.plugin, Temporary: s.temporary,
		Active: s.active, HolderPID: s.activePID, Holder: s.activeBy,
		Confirmed: s.confirmed, Restart: s.restart, LagBytes: s.lag, RetainedBytes: s.retained,
		WALStatus: s.walStatus, Invalidation: s.reason, Failover: s.failover, Synced: s.synced,
	}
}

// visit connects for a task of an operator, to a server that is not too old.
// The inventory has the server's version and settings only.
func (c *config) visit(ctx context.Context) (*pgx.Conn, *inventory, error) {
	if c.conn.ConnectTimeout == 0 {
		c.conn.ConnectTimeout = checkTimeout
	}
	conn, err := pgx.ConnectConfig(ctx, c.conn.Copy())
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("cdc: connect: %w", context.Cause(ctx))
		}
		return nil, nil, &SetupError{Findings: []Finding{connectionFinding(err, c)}}
	}
	inv := new(inventory)
	err = inv.takeVersion(ctx, conn, c)
	if err == nil && inv.version < minVersion {
		hangUp(ctx, conn.PgConn())
		return nil, nil, &SetupError{Findings: []Finding{inv.tooOld()}}
	}
	if err == nil {
		err = inv.takeServer(ctx, conn, c)
	}
	if err != nil {
		hangUp(ctx, conn.PgConn())
		return nil, nil, fmt.Errorf("cdc: read the settings of database %q: %w", c.database, err)
	}
	return conn, inv, nil
}

// selectSlots is read by scanSlot. Positions travel as bytes since 0/0. A lost
// slot has no restart_lsn in some versions, and what only newer versions have
// is taken from the row's JSON.
const selectSlots = `
	WITH now AS (
	  SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn)
	SELECT s.slot_name::text, s.slot_type = 'physical', coalesce(s.plugin::text, ''), coalesce(s.database::text, ''),
	       s.temporary, s.active, coalesce(s.active_pid, 0),
	       concat_ws(', ', nullif(a.application_name, ''), host(a.client_addr)),
	       coalesce(s.restart_lsn - '0/0', 0)::bigint,
	       coalesce(s.confirmed_flush_lsn - '0/0', 0)::bigint,
	       coalesce(s.wal_status, ''), coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),
	       coalesce(now.lsn - s.restart_lsn, 0)::bigint,
	       coalesce(now.lsn - s.confirmed_flush_lsn, 0)::bigint,
	       coalesce((to_jsonb(s) ->> 'failover')::boolean, false),
	       coalesce((to_jsonb(s) ->> 'synced')::boolean, false)
	FROM now, pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid`

func scanSlot(row pgx.CollectableRow) (*slotInfo, error) {
	var s slotInfo
	var restart, confirmed int64
	err := row.Scan(&s.name, &s.physical, &s.plugin, &s.database, &s.temporary, &s.active, &s.activePID, &s.activeBy,
		&restart, &confirmed, &s.walStatus, &s.reason, &s.retained, &s.lag, &s.failover, &s.synced)
	s.restart, s.confirmed = LSN(restart), LSN(confirmed)
	// A reader may be ahead of what this query's view of the log shows.
	s.retained, s.lag = max(0, s.retained), max(0, s.lag)
	return &s, err
}

// lookUpSlot returns nil if there is no slot of this name.
func lookUpSlot(ctx context.Context, conn *pgx.Conn, name string) (*slotInfo, error) {
	rows, err := conn.Query(ctx, selectSlots+` WHERE s.slot_name = $1`, name)
	if err != nil {
		return nil, err
	}
	s, err := pgx.CollectExactlyOneRow(rows, scanSlot)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // what a caller does without a slot is its business
	}
	return s, err
}
