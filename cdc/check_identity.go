package cdc

import "fmt"

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
					Text:   fmt.Sprintf("%s has no primary key: its events have no key", t),
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
		switch t.identity {
		case 'i':
			why = "a replica identity whose index is gone"
		case 'd':
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
