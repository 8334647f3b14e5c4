package cdc

import (
	"fmt"
	"slices"
	"strings"
)

// forAllTables says whether the publication is for all tables, or would be if
// the source created it. Only a superuser can create such a one.
func (inv *inventory) forAllTables(c *config) bool {
	if inv.publication != nil {
		return inv.publication.allTables
	}
	return len(c.patterns) == 0 && inv.superuser
}

// publicationSQL is the statement that creates the publication: for all tables,
// or for the chosen ones. Changes of a partitioned table carry its own name.
func (inv *inventory) publicationSQL(c *config, allTables bool) string {
	target := "ALL TABLES"
	if !allTables {
		var names []string
		for i := range inv.tables {
			if inv.tables[i].refusal == "" {
				names = append(names, inv.tables[i].sql())
			}
		}
		target = "TABLE " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("CREATE PUBLICATION %s FOR %s WITH (publish_via_partition_root = true)", quote(c.Publication), target)
}

func (inv *inventory) publicationFindings(c *config) []Finding {
	if !streams(c) {
		return nil
	}
	if inv.publication == nil {
		return []Finding{inv.missingPublication(c)}
	}
	finding := func(level Level, text, remedy string) Finding {
		return Finding{
			Check: "publication", Level: level, Object: c.Publication,
			Text: fmt.Sprintf("publication %q %s", c.Publication, text), Remedy: remedy,
		}
	}
	alter := "ALTER PUBLICATION " + quote(c.Publication)
	var out []Finding
	var uncovered, add, leaves, filtered []string
	for i := range inv.tables {
		t := &inv.tables[i]
		switch {
		case t.refusal != "":
		case t.publishedAs != "":
			out = append(out, finding(Fatal, fmt.Sprintf("sends the changes of %s under the name of its root, %s", t, t.publishedAs),
				"ask for "+t.publishedAs))
		case !t.published:
			uncovered, add = append(uncovered, t.String()), append(add, t.sql())
		case t.partitioned && !inv.publication.viaRoot:
			leaves = append(leaves, t.String())
		}
		if t.filtered {
			filtered = append(filtered, t.String())
		}
	}
	if len(uncovered) > 0 {
		out = append(out, finding(Fatal, "does not cover "+some(uncovered),
			fmt.Sprintf("%s ADD TABLE %s, as an owner of both", alter, strings.Join(add, ", "))))
	}
	if len(leaves) > 0 {
		out = append(out, finding(Fatal, "sends the changes of partitioned tables under the names of their partitions: "+some(leaves),
			alter+" SET (publish_via_partition_root = true), or ask for the partitions"))
	}
	if missing := inv.publication.missing(); len(missing) > 0 {
		out = append(out, finding(Warning, "does not send "+strings.Join(missing, ", "),
			alter+" SET (publish = 'insert, update, delete, truncate') if they are wanted"))
	}
	if len(filtered) > 0 {
		out = append(out, finding(Info, "sends only some rows or columns of "+some(filtered),
			alter+" SET TABLE … without WHERE and column list, if all are wanted"))
	}
	if !slices.ContainsFunc(out, func(f Finding) bool { return f.Level == Fatal }) {
		out = append(out, finding(OK, "covers what is asked for", ""))
	}
	return out
}

// missing names the kinds of events that are not sent.
func (p *publicationInfo) missing() []string {
	var kinds []string
	for _, k := range []struct {
		name string
		sent bool
	}{{"inserts", p.inserts}, {"updates", p.updates}, {"deletes", p.deletes}, {"truncates", p.truncates}} {
		if !k.sent {
			kinds = append(kinds, k.name)
		}
	}
	return kinds
}

func (inv *inventory) missingPublication(c *config) Finding {
	f := Finding{
		Check: "publication", Object: c.Publication,
		Text: fmt.Sprintf("publication %q does not exist yet and will be created", c.Publication),
	}
	if inv.recovery {
		f.Level = Fatal
		f.Text = fmt.Sprintf("publication %q does not exist, and cannot be created on a standby", c.Publication)
		f.Remedy = "on the primary: " + inv.publicationSQL(c, inv.forAllTables(c))
		return f
	}
	if inv.slot != nil {
		// The server looks a publication up as of the change that it decodes, so
		// a younger one is not found; from 18 on it skips the change instead.
		f.Level = Fatal
		f.Text = fmt.Sprintf("publication %q does not exist, but slot %q does: a publication must be older than the slot that reads it",
			c.Publication, c.Slot)
		f.Remedy = fmt.Sprintf("name the publication that belongs to the slot, or SELECT pg_drop_replication_slot(%s) for a new start",
			literal(c.Slot))
		return f
	}
	var lacks []string
	if !inv.createDB {
		lacks = append(lacks, fmt.Sprintf("lacks CREATE on database %q", inv.database))
	}
	var foreign []string
	for i := range inv.tables {
		if t := &inv.tables[i]; !t.owned && t.refusal == "" {
			foreign = append(foreign, t.String())
		}
	}
	if len(foreign) > 0 {
		lacks = append(lacks, "does not own "+some(foreign))
	}
	if inv.superuser || len(lacks) == 0 {
		return f
	}
	f.Level = Fatal
	f.Text = fmt.Sprintf("publication %q does not exist, and role %q cannot create it: it %s",
		c.Publication, inv.user, strings.Join(lacks, " and "))
	switch {
	case len(c.patterns) == 0:
		f.Remedy = "as a superuser: " + inv.publicationSQL(c, true)
	case len(inv.tables) == 0:
		f.Remedy = "create it as the owner of the tables"
	default:
		f.Remedy = "as the owner of the tables, with CREATE on the database, or as a superuser: " + inv.publicationSQL(c, false)
	}
	return f
}
