package cdc

import (
	"fmt"
	"slices"
	"strings"
)

// tableFindings are about what the options ask for and whether it can be read.
func (inv *inventory) tableFindings(c *config) []Finding {
	var out []Finding
	for _, p := range inv.unmatched {
		f := Finding{
			Check: "tables", Level: Fatal, Object: p,
			Text:   fmt.Sprintf("no table matches %s", p),
			Remedy: fmt.Sprintf("check the name, and that it is in database %q", inv.database),
		}
		if names := inv.similar[p]; len(names) > 0 {
			f.Remedy = "did you mean " + strings.Join(names, ", ") + "?"
		}
		out = append(out, f)
	}
	var names, unreadable, policed []string
	var grants []string
	for i := range inv.tables {
		t := &inv.tables[i]
		if t.refusal != "" {
			out = append(out, Finding{
				Check: "tables", Level: Fatal, Object: t.String(),
				Text:   fmt.Sprintf("%s %s, and Postgres cannot publish it", t, t.refusal),
				Remedy: refusalRemedy(t),
			})
			continue
		}
		names = append(names, t.String())
		if !t.readable {
			unreadable, grants = append(unreadable, t.String()), append(grants, t.sql())
		}
		if t.rowSecurity {
			policed = append(policed, t.String())
		}
	}
	if len(inv.skipped) > 0 {
		var skipped []string
		for i := range inv.skipped {
			skipped = append(skipped, inv.skipped[i].String())
		}
		out = append(out, Finding{
			Check: "tables", Level: Info,
			Text:   "left out, since Postgres does not publish unlogged tables: " + some(skipped),
			Remedy: "ALTER TABLE … SET LOGGED for those whose changes are wanted",
		})
	}
	switch {
	case len(names) > 0:
		out = append(out, Finding{Check: "tables", Text: fmt.Sprintf("%s: %s", count(len(names), "table"), some(names))})
	case len(out) > 0 && out[0].Level == Fatal:
	case streams(c) && inv.forAllTables(c):
		out = append(out, Finding{
			Check: "tables", Level: Warning,
			Text:   fmt.Sprintf("database %q has no tables yet", inv.database),
			Remedy: "check the database in the URL; tables that are created later are read",
		})
	default:
		out = append(out, Finding{
			Check: "tables", Level: Fatal,
			Text:   fmt.Sprintf("there is no table to read in database %q", inv.database),
			Remedy: "check the database in the URL and the publication, or name tables",
		})
	}
	if !inv.takesSnapshot(c) {
		return out
	}
	if len(unreadable) > 0 {
		out = append(out, Finding{
			Check: "select_privilege", Level: Fatal, Object: inv.user,
			Text: fmt.Sprintf("role %q may not read %s, which a snapshot needs", inv.user, some(unreadable)),
			Remedy: fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s; or take no snapshot",
				strings.Join(inv.schemasOf(func(t *tableInfo) bool { return !t.readable && t.refusal == "" }), ", "), quote(inv.user),
				strings.Join(grants, ", "), quote(inv.user)),
		})
	}
	if len(policed) > 0 {
		out = append(out, Finding{
			Check: "row_security", Level: Warning, Object: inv.user,
			Text:   fmt.Sprintf("row security policies apply to role %q in %s: a snapshot misses the rows they hide", inv.user, some(policed)),
			Remedy: fmt.Sprintf("ALTER ROLE %s BYPASSRLS, or take no snapshot", quote(inv.user)),
		})
	}
	return out
}

func refusalRemedy(t *tableInfo) string {
	switch t.kind {
	case 'v', 'm':
		return "ask for the tables it reads from"
	case 'f':
		return "read it from the database that holds it"
	case 'S':
		return "leave it out"
	}
	if t.refusal == "is an unlogged table" {
		return fmt.Sprintf("ALTER TABLE %s SET LOGGED, or leave it out", t.sql())
	}
	return "leave it out"
}

// schemasOf returns the quoted schemas of the tables that f picks, each once.
func (inv *inventory) schemasOf(f func(*tableInfo) bool) []string {
	var schemas []string
	for i := range inv.tables {
		if t := &inv.tables[i]; f(t) && !slices.Contains(schemas, quote(t.schema)) {
			schemas = append(schemas, quote(t.schema))
		}
	}
	return schemas
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// maxWarned bounds the findings of one kind that name a table each.
const maxWarned = 20

// identityFindings are about what updates and deletes carry, and whether
// Postgres lets the application do them at all once the table is published.
func (inv *inventory) identityFindings(c *config) []Finding {
	p := inv.publication
	if !streams(c) {
		return nil
	}
	guarded := p == nil || p.updates || p.deletes
	var out []Finding
	var full, keyOnly []string
	for i := range inv.tables {
		t := &inv.tables[i]
		if t.refusal != "" {
			continue
		}
		bare, example := t.unidentified()
		switch {
		case bare > 0:
			if len(out) < maxWarned {
				out = append(out, bareFinding(t, bare, example, guarded))
			} else if len(out) == maxWarned {
				out = append(out, Finding{
					Check: "replica_identity", Level: Warning,
					Text:   "more tables have no replica identity",
					Remedy: "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relreplident IN ('d', 'n') lists candidates",
				})
			}
		case t.identity == 'f':
			full = append(full, t.String())
			if len(t.primaryKey) == 0 {
				out = append(out, Finding{
					Check: "primary_key", Level: Info, Object: t.String(),
					Text:   fmt.Sprintf("%s has no primary key: all of its columns together are the key of an event", t),
					Remedy: fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…)", t.sql()),
				})
			}
		default:
			keyOnly = append(keyOnly, t.String())
		}
	}
	if len(full) > 0 {
		out = append(out, Finding{
			Check: "replica_identity",
			Text:  "updates and deletes carry the whole old row, and write more WAL (REPLICA IDENTITY FULL): " + some(full),
		})
	}
	if len(keyOnly) > 0 && guarded {
		out = append(out, Finding{
			Check: "replica_identity", Level: Info,
			Text:   "updates and deletes carry only the key of the old row: " + some(keyOnly),
			Remedy: "ALTER TABLE … REPLICA IDENTITY FULL where a listener needs the other old values",
		})
	}
	return out
}

// unidentified counts the tables behind t, its leaves if it is partitioned, whose
// updates and deletes have no identity, and returns the first.
func (t *tableInfo) unidentified() (n int, example string) {
	if !t.partitioned {
		if t.identified {
			return 0, ""
		}
		return 1, t.sql()
	}
	for _, p := range t.parts {
		if !p.identified {
			if n == 0 {
				example = quote(p.schema, p.name)
			}
			n++
		}
	}
	return n, example
}

// bareFinding is about a table without a replica identity. Postgres checks it
// only once the table is in a publication, so that the application breaks at the
// moment the reader is set up (Postgres manual, "Publication").
func bareFinding(t *tableInfo, n int, example string, guarded bool) Finding {
	f := Finding{Check: "replica_identity", Level: Warning, Object: t.String()}
	keyless := len(t.primaryKey) == 0
	consequence := ""
	if guarded {
		consequence = "UPDATE and DELETE on it fail in Postgres, for every application, once it is published" +
			` (cannot update table "` + t.name + `" because it does not have a replica identity)`
	} else if !keyless {
		f.Level, consequence = Info, "updates and deletes could not be published"
	}
	full := fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL", example)
	switch {
	case t.partitioned:
		f.Text = fmt.Sprintf("%d of %s of %s have no replica identity, such as %s", n, count(len(t.parts), "partition"), t, example)
		if consequence != "" {
			f.Text += ": " + consequence
		}
		f.Remedy = fmt.Sprintf("add a primary key to %s, or %s, and so for each partition", t.sql(), full)
	case keyless && t.identity == 'd':
		f.Check = "primary_key"
		f.Text = fmt.Sprintf("%s has no primary key: its inserts arrive without a key", t)
		if consequence != "" {
			f.Text += ", and " + consequence
		}
		f.Remedy = fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…), or %s", t.sql(), full)
	default:
		why := "REPLICA IDENTITY NOTHING"
		switch {
		case t.identity == 'i':
			why = "a replica identity whose index is gone"
		case t.identity == 'd':
			why = "a deferrable primary key, which cannot be a replica identity"
		}
		f.Text = fmt.Sprintf("%s has %s", t, why)
		if consequence != "" {
			f.Text += ": " + consequence
		}
		f.Remedy = full
		if !keyless && t.identity != 'd' {
			f.Remedy = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT, or FULL", t.sql())
		}
	}
	return f
}
