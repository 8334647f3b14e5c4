package cdc

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// choose sorts what was found into the tables that changes will be named after,
// those that are skipped, and the patterns that nothing matches.
func (inv *inventory) choose(found []tableInfo, c *config) {
	patterns := c.patterns
	viaRoot := inv.publication == nil || inv.publication.viaRoot
	kept := make(map[uint32]bool)
	matched := make(map[pattern]bool)
	for _, t := range found {
		named := slices.ContainsFunc(patterns, func(p pattern) bool { return !p.all && p.matches(t.schema, t.name) })
		if t.refusal != "" && !named {
			if t.kind == 'r' {
				inv.skipped = append(inv.skipped, t)
			}
			continue
		}
		for _, p := range patterns {
			if p.matches(t.schema, t.name) {
				matched[p] = true
			}
		}
		if t.partitioned && !viaRoot {
			t.published = len(t.parts) > 0 && !slices.ContainsFunc(t.parts, func(p partInfo) bool { return !p.published })
			if !named && !slices.ContainsFunc(t.parts, func(p partInfo) bool { return !c.wanted(p.schema, p.name) }) {
				continue // the partitions stand for it
			}
		}
		if viaRoot && t.publishedAs != "" {
			t.published = true
		} else {
			t.publishedAs = ""
		}
		kept[t.oid] = true
		inv.tables = append(inv.tables, t)
	}
	inv.tables = slices.DeleteFunc(inv.tables, func(t tableInfo) bool {
		return slices.ContainsFunc(t.ancestors, func(oid uint32) bool { return kept[oid] })
	})
	for _, p := range patterns {
		if !matched[p] && !slices.Contains(inv.unmatched, p.String()) {
			inv.unmatched = append(inv.unmatched, p.String())
		}
	}
}

// Bounds for suggestions: names read, and names offered.
const (
	maxSimilarRead  = 20_000
	maxSimilarShown = 3
)

// takeSimilar looks for what the author of an unmatched pattern may have meant.
func (inv *inventory) takeSimilar(ctx context.Context, conn *pgx.Conn, c *config) error {
	if len(inv.unmatched) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE `+whereAll+` AND c.relpersistence = 'p' ORDER BY 1, 2 LIMIT $1`, maxSimilarRead)
	if err != nil {
		return err
	}
	var t pattern
	var tables []pattern
	if _, err := pgx.ForEachRow(rows, []any{&t.schema, &t.table}, func() error {
		tables = append(tables, t)
		return nil
	}); err != nil {
		return err
	}
	inv.similar = make(map[string][]string)
	for _, p := range c.patterns {
		if slices.Contains(inv.unmatched, p.String()) {
			inv.similar[p.String()] = similar(p, tables)
		}
	}
	return nil
}

// similar returns the names nearest to p, best first: the same table in another
// schema or case, then few different letters.
func similar(p pattern, tables []pattern) []string {
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	seen := make(map[string]bool)
	for _, t := range tables {
		// Another schema counts once, however different.
		text, length := t.String(), len(p.table)
		distance := editDistance(p.table, t.table) + min(1, editDistance(p.schema, t.schema))
		if p.all {
			text, length = t.schema+".*", len(p.schema)
			distance = editDistance(p.schema, t.schema)
		}
		if !seen[text] && distance <= max(1, length/3) {
			found = append(found, candidate{text, distance})
		}
		seen[text] = true
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var names []string
	for _, f := range found[:min(len(found), maxSimilarShown)] {
		names = append(names, f.name)
	}
	return names
}

// editDistance is Levenshtein's, over bytes and blind to case.
func editDistance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
