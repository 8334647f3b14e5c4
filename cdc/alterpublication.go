package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A PublicationChange is what [AddTables] or [RemoveTables] did. Names are
// "schema.table", sorted.
type PublicationChange struct {
	Publication string   `json:"publication"`
	Changed     []string `json:"changed"`   // were added, or removed
	Unchanged   []string `json:"unchanged"` // were in the publication already
	// Findings are what to know now: that Postgres refuses updates of an added
	// table that has no replica identity, above all. None is Fatal.
	Findings []Finding `json:"findings"`
}

// AddTables adds tables to a publication. The patterns are those of
// Options.Tables, exactly: a table that others inherit from is added alone,
// and of a partitioned table the root, which stands for all partitions. The
// publication "" is that of a [Source] with default options.
//
// Rows that are already in the table are not read by a running reader, only
// changes from now on, and only if the reader's own Options.Tables ask for it.
//
// It takes one transaction: after an error, nothing has changed. A [SetupError]
// names every obstacle at once: an unknown table with similar names, one that
// Postgres cannot publish, a publication for all tables, or that the role does
// not own both the publication and the tables. It waits for other statements
// that change the tables, until ctx ends, and blocks no reads or writes. No
// error holds the password.
func AddTables(ctx context.Context, databaseURL, publication string, tables []string) (*PublicationChange, error) {
	return alterPublication(ctx, databaseURL, publication, tables, (*alteration).add)
}

// RemoveTables removes tables that were added to a publication by name. A
// pattern schema.* stands for all of these in the schema. Their changes are no
// longer sent, from now on, to any reader of the publication; a reader whose
// Options.Tables name one refuses its next start. Everything else is as with
// AddTables, except that the role need not own the tables.
func RemoveTables(ctx context.Context, databaseURL, publication string, tables []string) (*PublicationChange, error) {
	return alterPublication(ctx, databaseURL, publication, tables, (*alteration).remove)
}

// An alteration is one ADD TABLE or DROP TABLE in the making.
type alteration struct {
	c       *config
	inv     *inventory
	members *members
	change  *PublicationChange

	tables []pattern // that are to be altered
	fatal  []Finding
}

// alterPublication lets decide choose tables, alters the publication, and
// commits unless something is in the way.
func alterPublication(ctx context.Context, databaseURL, publication string, tables []string, decide func(*alteration) string) (*PublicationChange, error) {
	if len(tables) == 0 {
		return nil, fmt.Errorf("cdc: alter publication %q: no table was given", publication)
	}
	// What a snapshot would need is not asked for.
	c, err := newConfig(databaseURL, &Options{Publication: publication, Tables: tables, Snapshot: SnapshotNever})
	if err != nil {
		return nil, err
	}
	conn, inv, err := c.visit(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn.PgConn())
	if inv.recovery {
		return nil, &SetupError{Findings: []Finding{standbyFinding()}}
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("cdc: alter publication %q: %w", c.Publication, err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // without effect after the commit

	a := &alteration{c: c, change: &PublicationChange{
		Publication: c.Publication, Changed: []string{}, Unchanged: []string{}, Findings: []Finding{},
	}}
	if a.members, err = takeMembers(ctx, conn, c, inv); err != nil {
		return nil, err
	}
	if a.inv, err = takeInventory(ctx, conn, c); err != nil {
		return nil, err
	}
	verb := decide(a)
	a.requireOwnership(verb)
	if len(a.fatal) > 0 {
		return nil, &SetupError{Findings: a.fatal}
	}
	if len(a.tables) > 0 {
		if err := a.execute(ctx, tx, conn, verb); err != nil {
			return nil, err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("cdc: alter publication %q: %w", c.Publication, err)
	}
	return a.change, nil
}

// sql is the statement. ONLY leaves out tables that inherit from one; of a
// partitioned table the partitions are published all the same.
func (a *alteration) sql(verb string) string {
	names := make([]string, len(a.tables))
	for i, t := range a.tables {
		names[i] = "ONLY " + quote(t.schema, t.table)
	}
	return fmt.Sprintf("ALTER PUBLICATION %s %s TABLE %s", quote(a.c.Publication), verb, strings.Join(names, ", "))
}

func (a *alteration) execute(ctx context.Context, tx pgx.Tx, conn *pgx.Conn, verb string) error {
	if _, err := tx.Exec(ctx, a.sql(verb)); err != nil {
		return fmt.Errorf("cdc: alter publication %q: %w", a.c.Publication, err)
	}
	for _, t := range a.tables {
		a.change.Changed = append(a.change.Changed, t.String())
	}
	if verb != "ADD" {
		return nil
	}
	after, err := takeInventory(ctx, conn, a.c)
	if err != nil {
		return err
	}
	after.tables = slices.DeleteFunc(after.tables, func(t tableInfo) bool { return !slices.Contains(a.change.Changed, t.String()) })
	for _, f := range slices.Concat(after.publicationFindings(a.c), after.identityFindings(a.c)) {
		if f.Level >= Warning {
			f.Level = Warning // what a reader would refuse is what was asked for here
			a.change.Findings = append(a.change.Findings, f)
		}
	}
	return nil
}

func (a *alteration) refuse(object, text, remedy string) {
	check := "tables"
	if object == a.c.Publication {
		check = "publication"
	}
	a.fatal = append(a.fatal, Finding{Check: check, Level: Fatal, Object: object, Text: text, Remedy: remedy})
}

// add chooses the tables that match and are not published yet.
func (a *alteration) add() string {
	const verb = "ADD"
	if a.members.allTables {
		a.refuse(a.c.Publication, fmt.Sprintf("publication %q is for all tables, and tables cannot be added to it", a.c.Publication),
			"nothing is to be done: it sends the changes of every table")
		return verb
	}
	for _, f := range a.inv.tableFindings(a.c) {
		if f.Level == Fatal {
			a.fatal = append(a.fatal, f)
		}
	}
	for i := range a.inv.tables {
		t := &a.inv.tables[i]
		switch {
		case t.refusal != "":
		case t.published || a.members.has(t.oid):
			a.change.Unchanged = append(a.change.Unchanged, t.String())
		default:
			a.tables = append(a.tables, pattern{schema: t.schema, table: t.name})
		}
	}
	return verb
}

// remove chooses the tables that match and were added by name.
func (a *alteration) remove() string {
	const verb = "DROP"
	if a.members.allTables {
		a.refuse(a.c.Publication, fmt.Sprintf("publication %q is for all tables, and tables cannot be removed from it", a.c.Publication),
			"create another publication for the tables that are wanted, or ask for them when reading")
		return verb
	}
	for _, p := range a.c.patterns {
		found := false
		for _, m := range a.members.tables {
			if p.matches(m.schema, m.table) {
				found = true
				if !slices.Contains(a.tables, m.pattern) {
					a.tables = append(a.tables, m.pattern)
				}
			}
		}
		if !found {
			a.notListed(p)
		}
	}
	slices.SortFunc(a.tables, func(x, y pattern) int { return strings.Compare(x.String(), y.String()) })
	return verb
}

// notListed says why nothing that matches p can be removed.
func (a *alteration) notListed(p pattern) {
	name := a.c.Publication
	if slices.Contains(a.members.schemas, p.schema) {
		a.refuse(p.String(), fmt.Sprintf("publication %q has all tables of schema %s, and %s cannot be removed alone", name, p.schema, p),
			fmt.Sprintf("ALTER PUBLICATION %s DROP TABLES IN SCHEMA %s, then add the tables that are wanted", quote(name), quote(p.schema)))
		return
	}
	for i := range a.inv.tables {
		t := &a.inv.tables[i]
		if !p.matches(t.schema, t.name) {
			continue
		}
		for _, m := range a.members.tables {
			if slices.Contains(t.ancestors, m.oid) {
				a.refuse(p.String(), fmt.Sprintf("%s is in publication %q as a partition of %s, and cannot be removed alone", t, name, m), "remove "+m.String())
				return
			}
		}
	}
	remedy := fmt.Sprintf("it has no table by name; its tables come with the schemas %s", some(a.members.schemas))
	if len(a.members.schemas) == 0 {
		remedy = "there is nothing to remove: the publication has no table"
	}
	var listed []pattern
	var names []string
	for _, m := range a.members.tables {
		listed, names = append(listed, m.pattern), append(names, m.String())
	}
	if near := similar(p, listed); len(near) > 0 {
		remedy = "did you mean " + strings.Join(near, ", ") + "?"
	} else if len(names) > 0 {
		remedy = "it has " + some(names)
	}
	a.refuse(p.String(), fmt.Sprintf("no table of publication %q matches %s", name, p), remedy)
}

// requireOwnership repeats the server's rule, to name everything that is missing
// at once.
func (a *alteration) requireOwnership(verb string) {
	if len(a.tables) == 0 || a.inv.superuser {
		return
	}
	var lacks []string
	if !a.members.owned {
		lacks = append(lacks, fmt.Sprintf("publication %q, which belongs to %q", a.c.Publication, a.members.owner))
	}
	var foreign []string
	for i := range a.inv.tables {
		t := &a.inv.tables[i]
		if verb == "ADD" && !t.owned && slices.Contains(a.tables, pattern{schema: t.schema, table: t.name}) {
			foreign = append(foreign, t.String())
		}
	}
	if len(foreign) > 0 {
		lacks = append(lacks, some(foreign))
	}
	if len(lacks) == 0 {
		return
	}
	who := "as its owner, or as a superuser: "
	if len(foreign) > 0 {
		who = "as the owner of all of them, or as a superuser: "
	}
	a.fatal = append(a.fatal, Finding{
		Check: "publication", Level: Fatal, Object: a.c.Publication,
		Text:   fmt.Sprintf("role %q does not own %s", a.inv.user, strings.Join(lacks, ", nor ")),
		Remedy: who + a.sql(verb),
	})
}
