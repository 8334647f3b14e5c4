package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// minVersion is the oldest server_version_num that is supported.
const minVersion = 140000

// takeInventory asks the catalogs, and changes nothing. It works inside and
// outside a transaction, with any role that may connect.
func takeInventory(ctx context.Context, conn *pgx.Conn, c *config) (*inventory, error) {
	inv := new(inventory)
	for _, step := range []struct {
		what string
		take func(context.Context, *pgx.Conn, *config) error
	}{
		{"version", inv.takeVersion},
		{"settings", inv.takeServer},
		{"system identifier", inv.takeSystem},
		{"standby settings", inv.takeStandby},
		{"publication", inv.takePublication},
		{"slot", inv.takeSlot},
		{"tables", inv.takeTables},
		{"similar names", inv.takeSimilar},
		{"outboxes", inv.takeOutboxes},
	} {
		if inv.version != 0 && inv.version < minVersion {
			break // its catalogs differ
		}
		if err := unlessRaced(func() error { return step.take(ctx, conn, c) }); err != nil {
			return nil, fmt.Errorf("cdc: read the %s of database %q: %w", step.what, c.database, err)
		}
	}
	return inv, nil
}

func (inv *inventory) takeVersion(ctx context.Context, conn *pgx.Conn, _ *config) error {
	return conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_database()::text, current_user::text,
		       coalesce((SELECT min(rolname::text) FROM pg_roles WHERE rolname IN
		                 ('rdsadmin', 'cloudsqladmin', 'alloydbadmin', 'azure_pg_admin', 'neon_superuser')), '')`,
	).Scan(&inv.version, &inv.database, &inv.user, &inv.provider)
}

func (inv *inventory) takeServer(ctx context.Context, conn *pgx.Conn, c *config) error {
	// Members of rds_replication may replicate without the role attribute.
	// Other users' rows in pg_stat_replication are blank to an unprivileged
	// role, but they are there.
	return conn.QueryRow(ctx, `
		SELECT r.rolsuper,
		       r.rolreplication OR EXISTS (
		         SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'MEMBER')),
		       has_database_privilege(current_database(), 'CREATE'),
		       pg_is_in_recovery(),
		       current_setting('wal_level'),
		       current_setting('synchronous_commit'),
		       current_setting('wal_writer_delay'),
		       current_setting('max_slot_wal_keep_size'),
		       current_setting('max_replication_slots')::int,
		       (SELECT count(*) FROM pg_replication_slots WHERE slot_name <> $1)::int,
		       current_setting('max_wal_senders')::int,
		       (SELECT count(*) FROM pg_stat_replication)::int
		FROM pg_roles r WHERE r.rolname = current_user`, c.ownKeeper(),
	).Scan(&inv.superuser, &inv.replication, &inv.createDB, &inv.recovery,
		&inv.walLevel, &inv.synchronousCommit, &inv.walWriterDelay, &inv.maxWALKeep,
		&inv.maxSlots, &inv.usedSlots, &inv.maxSenders, &inv.usedSenders)
}

// takeSystem leaves zeros where a service has revoked the functions, which are
// everyone's by default. IDENTIFY_SYSTEM on a replication connection tells the
// same.
func (inv *inventory) takeSystem(ctx context.Context, conn *pgx.Conn, _ *config) error {
	var control, walfile bool
	err := conn.QueryRow(ctx, `
		SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
		       has_function_privilege('pg_catalog.pg_walfile_name(pg_lsn)', 'EXECUTE')`,
	).Scan(&control, &walfile)
	if err != nil {
		return err
	}
	if control {
		var id int64 // the server prints the unsigned number as a bigint
		if err := conn.QueryRow(ctx, `SELECT system_identifier FROM pg_control_system()`).Scan(&id); err != nil {
			return err
		}
		inv.systemID = uint64(id)
	}
	if walfile && !inv.recovery {
		// The control file may still tell the timeline before a promotion.
		var timeline int64
		err := conn.QueryRow(ctx, `
			SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint`,
		).Scan(&timeline)
		if err != nil {
			return err
		}
		inv.timeline = uint32(timeline)
	}
	return nil
}

func (inv *inventory) takePublication(ctx context.Context, conn *pgx.Conn, c *config) error {
	var p publicationInfo
	err := conn.QueryRow(ctx, `
		SELECT puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate
		FROM pg_publication WHERE pubname = $1`, c.Publication,
	).Scan(&p.allTables, &p.viaRoot, &p.inserts, &p.updates, &p.deletes, &p.truncates)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	inv.publication = &p
	return err
}

func (inv *inventory) takeSlot(ctx context.Context, conn *pgx.Conn, c *config) error {
	s, err := lookUpSlot(ctx, conn, c.Slot)
	inv.slot = s
	return err
}
