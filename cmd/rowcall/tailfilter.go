package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
		schema, name, err := parseTable(table)
		switch {
		case err != nil:
			faults = append(faults, err)
		case name == "*":
			whole[schema] = true
			subjects = append(subjects, "cdc.*."+sinks.EscapeToken(schema)+".>")
		default:
			names = append(names, [2]string{schema, name})
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

// parseTable reads table, schema.table or schema.*, each part as it is or in
// double quotes, with "" for a quote. The name "*" is only returned unquoted.
func parseTable(s string) (schema, table string, err error) {
	fail := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("table %q: %s; write table, schema.table or schema.*", s, why)
	}
	first, rest, err := cutPart(s)
	if err != nil {
		return fail(err.Error())
	}
	if rest == "" {
		if first == "*" {
			return fail("name a schema")
		}
		return "public", first, nil
	}
	second, rest, err := cutPart(rest[1:])
	switch {
	case err != nil:
		return fail(err.Error())
	case rest != "":
		return fail("more than two parts")
	case first == "*":
		return fail("a schema cannot be *")
	}
	return first, second, nil
}

// cutPart reads one part and returns what follows: "" or "." and more.
func cutPart(s string) (part, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		part = s
		if i := strings.IndexByte(s, '.'); i >= 0 {
			part, rest = s[:i], s[i:]
		}
		if part == "" {
			err = errors.New("an empty name")
		}
		return part, rest, err
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		if rest = s[i+1:]; rest != "" && rest[0] != '.' {
			return "", "", errors.New("text after the closing quote")
		}
		if b.Len() == 0 {
			return "", "", errors.New("an empty name")
		}
		return b.String(), rest, nil
	}
	return "", "", errors.New("the quote is not closed")
}
