package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// takeOutboxes reads the columns of the outboxes, as far as the publication
// sends them.
func (inv *inventory) takeOutboxes(ctx context.Context, conn *pgx.Conn, c *config) error {
	inv.outboxes = make(map[pattern][]string)
	for _, o := range c.outboxes {
		var columns []string
		err := conn.QueryRow(ctx, `
			SELECT coalesce((SELECT array_agg(x) FROM jsonb_array_elements_text(
			                  (SELECT to_jsonb(p) -> 'attnames' FROM pg_publication_tables p
			                   WHERE pubname = $3 AND schemaname = n.nspname AND tablename = c.relname)) x),
			                array_agg(a.attname::text ORDER BY a.attnum))
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
			WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
			  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
			GROUP BY n.nspname, c.relname`, o.table.schema, o.table.table, c.Publication).Scan(&columns)
		if err == pgx.ErrNoRows { //nolint:errorlint // QueryRow returns it as it is
			continue
		}
		if err != nil {
			return err
		}
		inv.outboxes[o.table] = columns
	}
	return nil
}

// outboxFindings are about the tables that Options.Outbox names.
func (inv *inventory) outboxFindings(c *config) []Finding {
	var out []Finding
	for i := range c.outboxes {
		o := &c.outboxes[i]
		name := o.table.String()
		t := slices.IndexFunc(inv.tables, func(t tableInfo) bool { return o.table.matches(t.schema, t.name) })
		columns, exists := inv.outboxes[o.table]
		finding := Finding{Check: "outbox", Object: name, Text: "outbox " + name + " has the columns it needs"}
		switch {
		case !exists && slices.Contains(inv.unmatched, name):
			continue // told already
		case !exists:
			finding.Level, finding.Text = Fatal, fmt.Sprintf("there is no table %s, which is to be an outbox", name)
			finding.Remedy = fmt.Sprintf("create it, or check the name, and that it is in database %q", inv.database)
		case t < 0 && inv.publication == nil:
			finding.Level, finding.Text = Fatal, fmt.Sprintf("Postgres cannot publish the outbox %s", name)
			finding.Remedy = "make it an ordinary table that is logged"
		case t < 0:
			finding.Level, finding.Text = Fatal, fmt.Sprintf("publication %q does not cover the outbox %s", c.Publication, name)
			finding.Remedy = fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s, as an owner of both", quote(c.Publication), quote(o.table.schema, o.table.table))
		default:
			if lacking := o.lacking(columns); lacking != nil {
				finding = *lacking
			}
		}
		out = append(out, finding)
	}
	return out
}

// lacking returns a finding if columns of the outbox are missing.
func (t *outboxTable) lacking(columns []string) *Finding {
	missing := slices.DeleteFunc(t.names(), func(name string) bool { return slices.Contains(columns, name) })
	if len(missing) == 0 {
		return nil
	}
	return &Finding{
		Check: "outbox", Level: Fatal, Object: t.table.String(),
		Text: fmt.Sprintf("the outbox %s has no column %s, or does not publish it; it has %s",
			t.table, strings.Join(missing, ", "), strings.Join(columns, ", ")),
		Remedy: "add what is missing, or say which columns of the table are the outbox's (id, aggregatetype, aggregateid, type, payload)",
	}
}
