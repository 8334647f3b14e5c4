package cdc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Slots that see tables change while they are made are made anew that often,
// and for that long, before the source goes on with one.
const (
	soundAttempts = 10
	soundPatience = time.Minute
)

// createSlot makes a slot, and waits for the transactions that are running, as
// the server does for every new slot.
func (s *Source) createSlot(ctx context.Context, repl *pgconn.PgConn, slot string, opts pglogrepl.CreateReplicationSlotOptions) (pglogrepl.CreateReplicationSlotResult, error) {
	told := s.tellOfWait(ctx, slot)
	defer told()
	opts.Mode = pglogrepl.LogicalReplication
	return pglogrepl.CreateReplicationSlot(ctx, repl, slot, "pgoutput", opts) //nolint:wrapcheck // the callers know what the slot is for
}

// createSoundSlot is createSlot for a slot whose changes will be decoded.
//
// Servers of all versions to date (14 to 18 were tried) forget a change to the
// catalog while a slot is being made: one by a transaction that began after the
// slot had begun to wait, and ended before the slot was made. Transactions that
// ran beside it, and go on when the slot is made, are then decoded with the
// table as it was: without a new column, silently, or, at each attempt, not at
// all ("could not map filenode"). So a slot is made again if rows of the
// catalog that decoding looks at are of transactions that began since.
func (s *Source) createSoundSlot(ctx context.Context, repl *pgconn.PgConn, slot string, opts pglogrepl.CreateReplicationSlotOptions) (pglogrepl.CreateReplicationSlotResult, error) {
	for began, attempt := time.Now(), 1; ; attempt++ {
		var next int64 // the first transaction that may do harm, or one before it
		err := s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			next, err = nextTransaction(ctx, conn)
			return err
		})
		if err != nil {
			return pglogrepl.CreateReplicationSlotResult{}, err
		}
		made, err := s.createSlot(ctx, repl, slot, opts)
		if err != nil {
			return made, err
		}
		var changed []string
		err = s.onConnection(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			changed, err = changedSince(ctx, conn, next)
			return err
		})
		switch {
		case err != nil:
		case len(changed) == 0:
			return made, nil
		case attempt >= soundAttempts && time.Since(began) >= soundPatience:
			s.c.Logger.WarnContext(ctx, "tables change whenever the slot is made; going on, though the server may decode transactions of this moment with the tables as they were",
				"slot", slot, "changed", strings.Join(changed, ", "), "remedy", "start while no table is altered or truncated")
			return made, nil
		}
		// A temporary slot would live as long as its connection, another one for
		// ever, and the next run would take it for one that is as it should be.
		dropping, cancel := context.WithTimeout(context.WithoutCancel(ctx), advanceTimeout)
		dropErr := pglogrepl.DropReplicationSlot(dropping, repl, slot, pglogrepl.DropReplicationSlotOptions{})
		cancel()
		if err != nil || dropErr != nil {
			return made, errors.Join(err, dropErr)
		}
		s.c.Logger.InfoContext(ctx, "tables changed while the slot was made; making it again", "slot", slot, "changed", strings.Join(changed, ", "))
		if err := sleep(ctx, time.Duration(attempt)*10*time.Millisecond); err != nil {
			return made, err
		}
	}
}

// makeSlot makes the slot of a source that takes no snapshot, and returns where
// it begins. A process that dies on the way leaves no slot that was not looked
// at, which the next run could not tell from one that is as it should be: what
// becomes the source's slot is a temporary one until then.
func (s *Source) makeSlot(ctx context.Context, conn *pgx.Conn, repl *pgconn.PgConn) (at string, err error) {
	name := temporarySlot(s.c.Slot, "_new", repl.PID())
	slot, err := s.createSoundSlot(ctx, repl, name, pglogrepl.CreateReplicationSlotOptions{Temporary: true, SnapshotAction: "NOEXPORT_SNAPSHOT"})
	if err == nil {
		_, err = conn.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2, false)", name, s.c.Slot)
	}
	if err != nil {
		return "", fmt.Errorf("create slot %q: %w", s.c.Slot, err)
	}
	s.c.Logger.InfoContext(ctx, "created slot", "slot", s.c.Slot, "at", slot.ConsistentPoint)
	if err := pglogrepl.DropReplicationSlot(ctx, repl, name, pglogrepl.DropReplicationSlotOptions{}); err != nil {
		s.c.Logger.DebugContext(ctx, "dropping the temporary slot, which goes with its connection", "slot", name, "error", err)
	}
	return slot.ConsistentPoint, nil
}

// temporarySlot names a slot that lives as long as the connection with that
// process of the server.
func temporarySlot(slot, suffix string, pid uint32) string {
	suffix += strconv.FormatUint(uint64(pid), 10)
	return slot[:min(len(slot), 63-len(suffix))] + suffix
}

// nextTransaction returns the id of the next transaction that begins.
func nextTransaction(ctx context.Context, conn *pgx.Conn) (id int64, err error) {
	if err := conn.QueryRow(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").Scan(&id); err != nil {
		return 0, fmt.Errorf("read the next transaction id: %w", err)
	}
	return id, nil
}

// changedSince names what decoding looks at and transactions from a certain one
// on have changed: some of them, in order. VACUUM and ANALYZE do not count, nor
// do temporary tables.
func changedSince(ctx context.Context, conn *pgx.Conn, next int64) ([]string, error) {
	rows, err := conn.Query(ctx, `
		WITH tables AS MATERIALIZED ( -- and composite types
			SELECT oid, xmin FROM pg_class WHERE relkind IN ('r', 'p', 'c') AND relpersistence = 'p'),
		changes AS (
			SELECT oid::regclass::text AS name, xmin FROM tables
			UNION ALL SELECT attrelid::regclass::text, a.xmin FROM pg_attribute a JOIN tables t ON t.oid = a.attrelid
			UNION ALL SELECT indrelid::regclass::text, i.xmin FROM pg_index i JOIN tables t ON t.oid = i.indrelid
			UNION ALL SELECT inhrelid::regclass::text, i.xmin FROM pg_inherits i JOIN tables t ON t.oid = i.inhrelid
			UNION ALL SELECT enumtypid::regtype::text, xmin FROM pg_enum
			UNION ALL SELECT quote_ident(nspname), xmin FROM pg_namespace WHERE nspname !~ '^pg_' -- which sessions make
			UNION ALL SELECT quote_ident(pubname), xmin FROM pg_publication
			UNION ALL SELECT prrelid::regclass::text, xmin FROM pg_publication_rel
			-- A catalog that Postgres 14 does not have.
			UNION ALL SELECT refobjid::regnamespace::text, xmin FROM pg_depend
				WHERE classid = to_regclass('pg_catalog.pg_publication_namespace') AND refclassid = 'pg_namespace'::regclass)
		SELECT DISTINCT name FROM changes
		WHERE (xmin::text::bigint - $1::bigint) & 4294967295 < pg_snapshot_xmax(pg_current_snapshot())::text::bigint - $1::bigint
		ORDER BY name LIMIT 10`, next)
	if err != nil {
		return nil, fmt.Errorf("look for tables that changed: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for tables that changed: %w", err)
	}
	return names, nil
}

// undecodable reports whether the server cannot decode what a slot keeps, and
// never will. Where a transaction is sent in progress it may when that has
// committed. The text of the error depends on lc_messages.
func undecodable(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "XX000" && pg.Routine == "ReorderBufferProcessTXN"
}
