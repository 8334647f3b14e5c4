package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A Publication is which changes the server sends to those who read it. The
// JSON names do not change between versions.
type Publication struct {
	Name      string   `json:"name"`
	Owner     string   `json:"owner"`
	AllTables bool     `json:"all_tables"`        // future ones too
	Schemas   []string `json:"schemas,omitempty"` // whose tables it sends, future ones too (15 and later)
	// ViaRoot says that changes of partitions carry the name of their root. The
	// publications that a Source creates do.
	ViaRoot bool     `json:"via_root"`
	Sends   []string `json:"sends"` // of insert, update, delete and truncate
	// Tables are sorted by schema and name.
	Tables []PublishedTable `json:"tables"`
}

// A PublishedTable is a table under whose name a publication sends changes.
type PublishedTable struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// Listed says that the table was added by name, so that RemoveTables can
	// remove it. Others come with their schema, their root, or all tables.
	Listed      bool `json:"listed"`
	Partitioned bool `json:"partitioned"`
	Filtered    bool `json:"filtered"` // only some rows or columns are sent
	// Identified says that updates and deletes have a replica identity. Without
	// one Postgres refuses them, as long as the table is published.
	Identified bool `json:"identified"`
}

// PublicationTables returns what a publication sends. The name "" is that of a
// [Source] with default options. A publication that does not exist, and a
// server that cannot be reached, is a [SetupError]. It needs no privilege and
// changes nothing.
func PublicationTables(ctx context.Context, databaseURL, publication string) (*Publication, error) {
	c, err := newConfig(databaseURL, &Options{Publication: publication})
	if err != nil {
		return nil, err
	}
	c.conn.RuntimeParams["default_transaction_read_only"] = "on"
	conn, inv, err := c.visit(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn.PgConn())
	details, err := takeMembers(ctx, conn, c, inv)
	if err != nil {
		return nil, err
	}
	if inv, err = takeInventory(ctx, conn, c); err != nil {
		return nil, err
	}
	if inv.publication == nil {
		return nil, fmt.Errorf("cdc: publication %q was dropped meanwhile", c.Publication)
	}
	p := &Publication{
		Name: c.Publication, Owner: details.owner, AllTables: inv.publication.allTables, Schemas: details.schemas,
		ViaRoot: inv.publication.viaRoot, Sends: inv.publication.sends(), Tables: []PublishedTable{},
	}
	for i := range inv.tables {
		t := &inv.tables[i]
		bare, _ := t.unidentified()
		p.Tables = append(p.Tables, PublishedTable{
			Schema: t.schema, Name: t.name, Listed: details.has(t.oid), Partitioned: t.partitioned,
			Filtered: t.filtered, Identified: bare == 0,
		})
	}
	return p, nil
}

// sends names the operations as CREATE PUBLICATION does.
func (p *publicationInfo) sends() []string {
	sends := []string{}
	for _, k := range []struct {
		name string
		sent bool
	}{{"insert", p.inserts}, {"update", p.updates}, {"delete", p.deletes}, {"truncate", p.truncates}} {
		if k.sent {
			sends = append(sends, k.name)
		}
	}
	return sends
}

// members are what was put into a publication by name.
type members struct {
	owner     string
	owned     bool // by the current user, directly or by membership
	allTables bool
	viaRoot   bool
	tables    []member // by schema and name
	schemas   []string // whose tables are published, sorted (15 and later)
}

type member struct {
	oid uint32
	pattern
}

func (m *members) has(oid uint32) bool {
	for _, t := range m.tables {
		if t.oid == oid {
			return true
		}
	}
	return false
}

// takeMembers returns a SetupError if there is no such publication.
func takeMembers(ctx context.Context, conn *pgx.Conn, c *config, inv *inventory) (*members, error) {
	fail := func(err error) (*members, error) {
		return nil, fmt.Errorf("cdc: read publication %q of database %q: %w", c.Publication, c.database, err)
	}
	m := new(members)
	var id uint32
	err := conn.QueryRow(ctx, `
		SELECT oid, pg_get_userbyid(pubowner)::text, pg_has_role(pubowner, 'USAGE'), puballtables, pubviaroot
		FROM pg_publication WHERE pubname = $1`, c.Publication).Scan(&id, &m.owner, &m.owned, &m.allTables, &m.viaRoot)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noPublication(ctx, conn, c)
	}
	if err != nil {
		return fail(err)
	}
	rows, err := conn.Query(ctx, `
		SELECT c.oid, n.nspname::text, c.relname::text
		FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE r.prpubid = $1 ORDER BY n.nspname, c.relname`, id)
	if err != nil {
		return fail(err)
	}
	var t member
	if _, err := pgx.ForEachRow(rows, []any{&t.oid, &t.schema, &t.table}, func() error {
		m.tables = append(m.tables, t)
		return nil
	}); err != nil {
		return fail(err)
	}
	if inv.version < 150000 {
		return m, nil
	}
	rows, err = conn.Query(ctx, `
		SELECT n.nspname::text FROM pg_publication_namespace p JOIN pg_namespace n ON n.oid = p.pnnspid
		WHERE p.pnpubid = $1 ORDER BY 1`, id)
	if err != nil {
		return fail(err)
	}
	var schema string
	if _, err := pgx.ForEachRow(rows, []any{&schema}, func() error {
		m.schemas = append(m.schemas, schema)
		return nil
	}); err != nil {
		return fail(err)
	}
	return m, nil
}

// noPublication offers the names that may have been meant, or all if they are
// few.
func noPublication(ctx context.Context, conn *pgx.Conn, c *config) error {
	f := Finding{
		Check: "publication", Level: Fatal, Object: c.Publication,
		Text:   fmt.Sprintf("publication %q does not exist in database %q", c.Publication, c.database),
		Remedy: "check the name and the database; there is no publication in it yet, the first run creates one",
	}
	rows, err := conn.Query(ctx, `SELECT pubname::text FROM pg_publication ORDER BY 1`)
	if err != nil {
		return &SetupError{Findings: []Finding{f}}
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	switch near := similarWords(c.Publication, names); {
	case err != nil || len(names) == 0:
	case len(near) > 0:
		f.Remedy = "did you mean " + strings.Join(near, ", ") + "?"
	default:
		f.Remedy = "there is " + some(names)
	}
	return &SetupError{Findings: []Finding{f}}
}
