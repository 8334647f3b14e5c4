package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/listeners"
)

// An exported snapshot is the database as it was at one LSN. It lives as long
// as the connection that made it, and so does its temporary slot: nothing else
// hands out a consistent pair of the two, and after a crash nothing is left.
type exported struct {
	conn     *pgconn.PgConn
	slot     string
	snapshot string
	at       LSN
	server   identity
	brief    bool // of no more use once all workers have the snapshot
}

// A slotUse says what a snapshot's slot is for, beside the snapshot.
type slotUse int

const (
	passing slotUse = iota // nothing; it is temporary
	copied                 // the source's slot becomes a copy of it; it is temporary, too
	keeping                // it keeps the changes for a snapshot that another run may go on with
)

// export creates a slot with a snapshot. It waits for the transactions that are
// running, as the server does for every new slot.
func (s *Source) export(ctx context.Context, use slotUse) (*exported, error) {
	conn, id, err := s.c.connectIdentified(ctx)
	if err != nil {
		return nil, err
	}
	if system, _ := s.reading(); id.system != system {
		return nil, errors.Join(fmt.Errorf("the server is another cluster now (system identifier %d, was %d)", id.system, system), conn.Close(ctx))
	}
	if s.c.Snapshot != SnapshotOnly {
		if err := s.recognise(ctx, conn, id); err != nil {
			return nil, errors.Join(err, conn.Close(ctx))
		}
	}
	e := &exported{conn: conn, server: id, slot: keeperSlot(s.c.Slot)}
	if use != keeping {
		e.slot = temporarySlot(s.c.Slot, "_snap", conn.PID())
	}
	create := s.createSlot
	if use != passing {
		create = s.createSoundSlot
	}
	made, err := create(ctx, conn, e.slot, pglogrepl.CreateReplicationSlotOptions{
		Temporary: use != keeping, SnapshotAction: "EXPORT_SNAPSHOT",
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create slot %q for a snapshot: %w", e.slot, err), conn.Close(ctx))
	}
	e.snapshot = made.SnapshotName
	if e.at, err = ParseLSN(made.ConsistentPoint); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return e, nil
}

func (e *exported) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	_ = e.conn.Close(ctx) // which drops the temporary slot
}

// initial delivers the first snapshot through the feed and makes the slot
// permanent once all of it is stored. So a slot that exists says that its
// snapshot was delivered; after a crash before that, the next run begins
// again.
func (s *Source) initial(ctx context.Context, inv *inventory, b *batcher) (err error) {
	if s.keepsSnapshot() {
		return s.initialKept(ctx, inv, b)
	}
	if made, err := s.madeBefore(ctx); err != nil || made {
		return err
	}
	use := copied
	if s.c.Snapshot == SnapshotOnly {
		use = passing
	}
	e, err := s.export(ctx, use)
	if err != nil {
		return err
	}
	defer e.close(ctx)
	ctx, release := s.guardSnapshot(ctx, e.slot)
	defer release(&err)
	s.c.Logger.InfoContext(ctx, "snapshot begins", "at", e.at.String())
	end, err := s.readSnapshot(ctx, e, snapshotScope{inv: inv}, b)
	if err != nil {
		return err
	}
	s.c.Logger.InfoContext(ctx, "snapshot read", "rows", s.Stats().Reads)
	if s.c.Snapshot == SnapshotOnly {
		return s.waitStored(ctx, end, s.passed)
	}
	if err = s.waitStored(ctx, end, s.storedBy); err != nil {
		return err
	}
	if err := s.making(e.server, e.at); err != nil {
		return err
	}
	conn, err := s.c.connect(ctx)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2, false)", e.slot, s.c.Slot)
	hangUp(ctx, conn.PgConn())
	switch {
	case sqlState(err) == "42704":
		// The server restarted, and the temporary slot is gone with what was
		// written since: not a matter of a name that is wrong, as elsewhere.
		return fmt.Errorf("the snapshot's temporary slot is gone: %v", err) //nolint:errorlint // to be tried again
	case err != nil:
		return fmt.Errorf("create slot %q: %w", s.c.Slot, err)
	}
	s.c.Logger.InfoContext(ctx, "created slot", "slot", s.c.Slot, "at", e.at.String())
	return s.made(ctx, e.conn, e.server, e.at.String())
}

func (s *Source) waitStored(ctx context.Context, p listeners.Position, stored func(listeners.Position) bool) error {
	for !stored(p) {
		if err := s.failed(); err != nil {
			return err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// join brings one subscription up to the present. See [Source.Subscribe].
func (s *Source) join(ctx context.Context, early bool, collections []string, emit func(*listeners.Batch) error) (listeners.Position, error) {
	select {
	case <-s.ready:
	case <-s.ended:
		return listeners.Position{}, listeners.ErrClosed
	case <-ctx.Done():
		return listeners.Position{}, context.Cause(ctx)
	}
	if early && s.shared {
		return listeners.Position{}, nil // the feed brings it
	}
	var end listeners.Position
	_, epoch := s.reading()
	err := s.persist(ctx, "snapshot", func() (bool, error) {
		e, err := s.export(ctx, passing)
		if err != nil {
			return false, err
		}
		defer e.close(ctx)
		b := &batcher{
			emit:   func(_ context.Context, b *listeners.Batch) error { return emit(b) },
			source: s.c.database, epoch: epoch, maxBytes: s.c.MaxBatchBytes,
		}
		end, err = s.readSnapshot(ctx, e, snapshotScope{collections: collections}, b)
		return false, err
	})
	return end, err
}

// A snapshotScope says what a snapshot reads.
type snapshotScope struct {
	inv         *inventory // its tables are read where there is no publication
	collections []string   // nil for all
	// rest is set if only those tables are read that are not in done: an
	// interrupted snapshot goes on.
	rest bool
	done map[string]uint32
	// finished is called when a table has been handed over, up to a position.
	finished func(*snapshotTable, listeners.Position)
}

// readSnapshot emits Reset, the rows of the tables, and Live, whose position
// it returns. The tables are those of the publication, or of the inventory
// where there is none, as far as they were asked for and the scope says.
// If nothing is left to read, it emits Live alone.
func (s *Source) readSnapshot(ctx context.Context, e *exported, scope snapshotScope, b *batcher) (listeners.Position, error) {
	conn, now, err := e.join(ctx, s.c)
	if err != nil {
		return listeners.Position{}, err
	}
	defer hangUp(ctx, conn.PgConn())
	tables, err := s.snapshotTables(ctx, conn, scope.inv, scope.collections)
	if err != nil {
		return listeners.Position{}, err
	}
	if err := settle(ctx, conn, tables); err != nil {
		return listeners.Position{}, err
	}
	var names []string
	if scope.rest {
		tables = slices.DeleteFunc(tables, func(t snapshotTable) bool { return scope.done[t.schema+"."+t.name] == t.oid })
		for _, t := range tables {
			names = append(names, t.schema+"."+t.name)
		}
	}
	b.abandon()
	// The last LSN before the consistent point is no record's, so it is not
	// that of any commit, and every later commit is at the point or after it.
	b.begin(listeners.Snapshot, listeners.CauseSnapshot, uint64(e.at)-1, listeners.Tx{Time: now})
	if !scope.rest || len(tables) > 0 {
		if err := b.mark(ctx, listeners.Reset, 0, names...); err != nil {
			return listeners.Position{}, err
		}
		if err := s.readTables(ctx, e, conn, tables, b, scope.finished); err != nil {
			return listeners.Position{}, err
		}
	}
	end := listeners.Position{Epoch: b.epoch, Commit: b.commit, Index: math.MaxUint32}
	return end, b.mark(ctx, listeners.Live, end.Index)
}

// errImport is in the error when a snapshot cannot be used, or not any more.
var errImport = errors.New("import snapshot")

// join opens a connection whose transaction sees the snapshot, and returns the
// time at which that began.
func (e *exported) join(ctx context.Context, c *config) (*pgx.Conn, time.Time, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	var now time.Time
	if _, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err == nil {
		if _, err = conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+literal(e.snapshot)); err == nil {
			err = conn.QueryRow(ctx, "SELECT now()").Scan(&now)
		}
	}
	if err != nil {
		hangUp(ctx, conn.PgConn())
		switch sqlState(err) {
		case "22023", "42704", "55000": // invalid parameter value (until 17), undefined object, not in prerequisite state
			err = fmt.Errorf("it is gone: %v", err) //nolint:errorlint // to be tried again
		}
		return nil, time.Time{}, fmt.Errorf("%w %q: %w", errImport, e.snapshot, err)
	}
	return conn, now.UTC(), nil
}

// A snapshotTable is a table as the snapshot shows it.
type snapshotTable struct {
	schema, name string
	columns      []listeners.Column // owned by relation as soon as there is one
	relation     *relation
	filter       string // the publication's row filter, "" for none
	only         string // "ONLY" unless it is partitioned
	rows         float64
	oid          uint32
	size         tableSize // once measured
}

// snapshotTables lists the tables with the columns and rows that their
// changes will have, too.
func (s *Source) snapshotTables(ctx context.Context, conn *pgx.Conn, inv *inventory, collections []string) ([]snapshotTable, error) {
	lists := "attnames, rowfilter"
	if v, _ := strconv.Atoi(strings.SplitN(conn.PgConn().ParameterStatus("server_version"), ".", 2)[0]); v < 15 {
		lists = "NULL::name[] AS attnames, NULL::text AS rowfilter"
	}
	published := "SELECT schemaname, tablename, " + lists + " FROM pg_publication_tables WHERE pubname = $1"
	args := []any{s.c.Publication}
	if inv != nil && inv.publication == nil && s.c.Snapshot == SnapshotOnly {
		oids := make([]uint32, len(inv.tables))
		for i, t := range inv.tables {
			oids[i] = t.oid
		}
		published = `SELECT n.nspname AS schemaname, c.relname AS tablename, NULL::name[] AS attnames, NULL::text AS rowfilter
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1)`
		args = []any{oids}
	}
	rows, err := conn.Query(ctx, `
		SELECT p.schemaname, p.tablename, coalesce(p.rowfilter, ''), c.relkind = 'p', c.reltuples, c.oid,
			array_agg(a.attname ORDER BY a.attnum), array_agg(a.atttypid ORDER BY a.attnum),
			array_agg(coalesce(a.attnum = ANY (i.indkey), false) ORDER BY a.attnum)
		FROM (`+published+`) p
		JOIN pg_namespace n ON n.nspname = p.schemaname
		JOIN pg_class c ON c.relname = p.tablename AND c.relnamespace = n.oid
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			AND (p.attnames IS NULL OR a.attname = ANY (p.attnames))
			AND (a.attgenerated = '' OR (p.attnames IS NOT NULL AND current_setting('server_version_num')::int >= 180000))
		LEFT JOIN pg_index i ON i.indrelid = c.oid
			AND CASE WHEN c.relreplident = 'i' THEN i.indisreplident ELSE i.indisprimary END
		GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2`, args...)
	if err != nil {
		return nil, err
	}
	tables, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (snapshotTable, error) {
		var (
			t           snapshotTable
			partitioned bool
			names       []string
			types       []uint32
			keys        []bool
		)
		if err := r.Scan(&t.schema, &t.name, &t.filter, &partitioned, &t.rows, &t.oid, &names, &types, &keys); err != nil {
			return t, err
		}
		if !partitioned {
			t.only = "ONLY "
		}
		columns := make([]listeners.Column, len(names))
		for i := range names {
			columns[i] = listeners.Column{Name: names[i], TypeID: types[i], Key: keys[i]}
		}
		t.columns = columns
		return t, nil
	})
	if raced(err) {
		return nil, fmt.Errorf("list the tables of publication %q: %v", s.c.Publication, err) //nolint:errorlint // to be tried again
	}
	if err != nil {
		return nil, fmt.Errorf("list the tables of publication %q: %w", s.c.Publication, err)
	}
	tables = slices.DeleteFunc(tables, func(t snapshotTable) bool {
		return !s.c.wanted(t.schema, t.name) ||
			(len(collections) > 0 && !slices.Contains(collections, t.schema+"."+t.name) &&
				(!s.c.isOutbox(t.schema, t.name) || !aboutMessages(collections)))
	})
	var oids []uint32
	for _, t := range tables {
		oids = append(oids, foreign(t.columns)...)
	}
	var described types
	if len(oids) > 0 {
		if described, err = describeTypes(ctx, conn, oids); err != nil {
			return nil, err
		}
	}
	for i, t := range tables {
		tables[i].relation = newRelation(listeners.NewSchema(s.c.database, t.schema, t.name, t.columns), described)
		if tables[i].relation.outbox, err = outboxOf(s.c.outboxes, tables[i].relation.schema, described); err != nil {
			return nil, err
		}
	}
	return tables, nil
}
