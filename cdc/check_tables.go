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
			Check: "row_security", Level: Fatal, Object: inv.user,
			Text:   fmt.Sprintf("row security policies apply to role %q in %s: a snapshot would miss the rows they hide", inv.user, some(policed)),
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
