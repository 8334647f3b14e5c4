package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rowcall/rowcall/internal/tablename"
	"github.com/rowcall/rowcall/sinks"
)

// filterSubjects returns the subjects of the tables that were named, and of the
// resets that concern them. No subject of the result matches what another one
// does, which JetStream would refuse. Nil stands for everything.
func filterSubjects(tables []string) ([]string, error) {
	if len(tables) == 0 {
		return nil, nil
	}
	subjects := []string{"cdc.*._control.>"}
	whole := make(map[string]bool) // schemas of which all tables are wanted
	var faults []error
	var names [][2]string
	for _, table := range tables {
		p, err := parseTable(table)
		switch {
		case err != nil:
			faults = append(faults, err)
		case p.All:
			whole[p.Schema] = true
			subjects = append(subjects, "cdc.*."+sinks.EscapeToken(p.Schema)+".>")
		default:
			names = append(names, [2]string{p.Schema, p.Table})
		}
	}
	for _, n := range names {
		if !whole[n[0]] {
			subjects = append(subjects, "cdc.*."+sinks.EscapeToken(n[0])+"."+sinks.EscapeToken(n[1])+".>")
		}
	}
	slices.Sort(subjects)
	return slices.Compact(subjects), usage(faults...)
}

// parseTable reads table, schema.table or schema.*; see package tablename.
func parseTable(s string) (tablename.Pattern, error) {
	p, err := tablename.Parse(s)
	switch {
	case err != nil:
		return p, err
	case p.All && !strings.Contains(s, "."):
		return p, fmt.Errorf("table %q: name a schema; write schema.table or schema.*", s)
	case p.Schema == "*" && !strings.HasPrefix(s, `"`):
		return p, fmt.Errorf("table %q: a schema cannot be *; write schema.table or schema.*", s)
	}
	return p, nil
}
