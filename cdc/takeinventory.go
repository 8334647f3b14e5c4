package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

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
		{"publication", inv.takePublication},
		{"slot", inv.takeSlot},
		{"tables", inv.takeTables},
		{"similar names", inv.takeSimilar},
	} {
		if inv.version != 0 && inv.version < minVersion {
			break // its catalogs differ
		}
		if err := step.take(ctx, conn, c); err != nil {
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

func (inv *inventory) takeServer(ctx context.Context, conn *pgx.Conn, _ *config) error {
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
		       (SELECT count(*) FROM pg_replication_slots)::int,
		       current_setting('max_wal_senders')::int,
		       (SELECT count(*) FROM pg_stat_replication)::int
		FROM pg_roles r WHERE r.rolname = current_user`,
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
	var s slotInfo
	var restart, confirmed int64
	// Positions travel as bytes since 0/0. A lost slot has no restart_lsn in
	// some versions.
	err := conn.QueryRow(ctx, `
		WITH now AS (
		  SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn)
		SELECT s.slot_type = 'physical', coalesce(s.plugin::text, ''), coalesce(s.database::text, ''),
		       s.temporary, s.active, coalesce(s.active_pid, 0),
		       concat_ws(', ', nullif(a.application_name, ''), host(a.client_addr)),
		       coalesce(s.restart_lsn - '0/0', 0)::bigint,
		       coalesce(s.confirmed_flush_lsn - '0/0', 0)::bigint,
		       coalesce(s.wal_status, ''), coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),
		       coalesce(now.lsn - s.restart_lsn, 0)::bigint,
		       coalesce(now.lsn - s.confirmed_flush_lsn, 0)::bigint
		FROM now, pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
		WHERE s.slot_name = $1`, c.Slot,
	).Scan(&s.physical, &s.plugin, &s.database, &s.temporary, &s.active, &s.activePID, &s.activeBy,
		&restart, &confirmed, &s.walStatus, &s.reason, &s.retained, &s.lag)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	s.restart, s.confirmed = LSN(restart), LSN(confirmed)
	inv.slot = &s
	return err
}

// tableColumns needs the names c (pg_class), n (pg_namespace) and published.
// Only an immediate primary key can be a replica identity.
const (
	identified = `
		CASE c.relreplident
		  WHEN 'f' THEN true
		  WHEN 'n' THEN false
		  WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
		  ELSE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
		END`
	isPublished = `
		EXISTS (SELECT FROM published p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)`
	withPublished = `
		WITH published AS MATERIALIZED (
		  SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = $1)`
	isSystem     = `(n.nspname LIKE 'pg\_%' OR n.nspname = 'information_schema')`
	tableColumns = `
		c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, ` + isSystem + `,
		c.relreplident::text, ` + identified + `,
		ARRAY(SELECT a.attname::text
		      FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place), pg_attribute a
		      WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
		        AND a.attrelid = c.oid AND a.attnum = k.attnum
		      ORDER BY k.place),
		pg_has_role(c.relowner, 'USAGE'),
		has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'),
		c.relkind = 'r' AND row_security_active(c.oid),
		c.reltuples::float8, ` + isPublished + `,
		CASE WHEN c.relispartition
		     THEN ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS a(relid, place)
		                WHERE place > 1 ORDER BY place)
		     ELSE '{}' END,
		coalesce(CASE WHEN c.relispartition
		     THEN (SELECT p.schemaname || '.' || p.tablename
		           FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS a(relid, place)
		           JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace
		           JOIN published p ON p.schemaname = an.nspname AND p.tablename = ac.relname
		           WHERE place > 1 ORDER BY place DESC LIMIT 1) END, ''),
		EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication pub ON pub.oid = r.prpubid AND pub.pubname = $1
		        WHERE r.prrelid = c.oid
		          AND (to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL))`
)

// What the options ask for: patterns, the publication, or everything.
const (
	wherePatterns = `
		EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS w(schema, name)
		        WHERE w.schema = n.nspname
		          AND (w.name = c.relname OR w.name = '' AND c.relkind IN ('r', 'p') AND NOT ` + isSystem + `))
		AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')`
	wherePublished = isPublished
	whereAll       = `c.relkind IN ('r', 'p') AND NOT ` + isSystem
)

func (inv *inventory) takeTables(ctx context.Context, conn *pgx.Conn, c *config) error {
	where, args := whereAll, []any{c.Publication}
	switch {
	case len(c.patterns) > 0:
		var schemas, names []string
		for _, p := range c.patterns {
			schemas = append(schemas, p.schema)
			if p.all {
				names = append(names, "") // no table has this name
			} else {
				names = append(names, p.table)
			}
		}
		where, args = wherePatterns, append(args, schemas, names)
	case inv.publication != nil:
		where = wherePublished
	}
	rows, err := conn.Query(ctx, withPublished+` SELECT `+tableColumns+`
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE `+where, args...)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, scanTable)
	if err != nil {
		return err
	}
	if err := takePartitions(ctx, conn, c, found); err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b tableInfo) int {
		return cmp.Or(cmp.Compare(a.schema, b.schema), cmp.Compare(a.name, b.name))
	})
	inv.choose(found, c)
	return nil
}

func scanTable(row pgx.CollectableRow) (tableInfo, error) {
	var t tableInfo
	var kind, persistence, identity string
	var system bool
	err := row.Scan(&t.oid, &t.schema, &t.name, &kind, &persistence, &system, &identity, &t.identified,
		&t.primaryKey, &t.owned, &t.readable, &t.rowSecurity, &t.rows, &t.published,
		&t.ancestors, &t.publishedAs, &t.filtered)
	if err != nil {
		return t, err
	}
	t.kind, t.identity = kind[0], identity[0]
	t.partitioned = t.kind == 'p'
	t.refusal = refusal(t.kind, persistence[0], system)
	t.unlogged = t.refusal != ""
	return t, nil
}

// refusal repeats the server's rule of what can be published (Postgres manual,
// CREATE PUBLICATION).
func refusal(kind, persistence byte, system bool) string {
	switch {
	case kind == 'v':
		return "is a view"
	case kind == 'm':
		return "is a materialized view"
	case kind == 'f':
		return "is a foreign table"
	case kind == 'S':
		return "is a sequence"
	case persistence == 't':
		return "is a temporary table"
	case system:
		return "is a system table"
	case persistence == 'u':
		return "is an unlogged table"
	}
	return ""
}

// takePartitions fills in the leaves of the partitioned tables.
func takePartitions(ctx context.Context, conn *pgx.Conn, c *config, found []tableInfo) error {
	roots := make(map[uint32]*tableInfo)
	var oids []uint32
	for i := range found {
		if t := &found[i]; t.partitioned {
			roots[t.oid], oids = t, append(oids, t.oid)
		}
	}
	if len(oids) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, withPublished+`
		SELECT r.oid, n.nspname::text, c.relname::text, c.reltuples::float8, `+identified+`, `+isPublished+`
		FROM unnest($2::oid[]) AS r(oid), pg_partition_tree(r.oid) p
		JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.isleaf ORDER BY n.nspname, c.relname`, c.Publication, oids)
	if err != nil {
		return err
	}
	var root uint32
	var tuples float64
	var part partInfo
	sums := make(map[uint32]float64)
	_, err = pgx.ForEachRow(rows, []any{&root, &part.schema, &part.name, &tuples, &part.identified, &part.published}, func() error {
		roots[root].parts = append(roots[root].parts, part)
		sums[root] += max(tuples, 0)
		return nil
	})
	for oid, sum := range sums {
		roots[oid].rows = sum
	}
	return err
}
