package main

import (
	"fmt"
	"slices"
	"strings"
)

// A choice is a flag that takes one of a few words.
type choice struct {
	value   string
	allowed []string
}

func newChoice(value string, allowed ...string) *choice {
	return &choice{value: value, allowed: allowed}
}

// String implements pflag.Value.
func (c *choice) String() string { return c.value }

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.allowed, ", "))
	}
	c.value = s
	return nil
}

// Type implements pflag.Value.
func (c *choice) Type() string { return strings.Join(c.allowed, "|") }

// A tableList is a flag that holds tables, separated by commas. Unlike pflag's
// lists it leaves double quotes alone: they belong to the names.
type tableList struct {
	tables []string
	set    bool
}

// String implements pflag.Value.
func (l *tableList) String() string { return strings.Join(l.tables, ",") }

// Set implements pflag.Value. The first call replaces the default, later ones
// add to it.
func (l *tableList) Set(s string) error {
	if !l.set {
		l.tables, l.set = nil, s != ""
	}
	for s != "" {
		table, rest := cutTable(s)
		if table = strings.TrimSpace(table); table == "" {
			return fmt.Errorf("an empty name")
		}
		l.tables = append(l.tables, table)
		if s = rest; s == "," {
			return fmt.Errorf("a comma at the end")
		}
		s = strings.TrimPrefix(s, ",")
	}
	return nil
}

// Type implements pflag.Value.
func (l *tableList) Type() string { return "tables" }

// cutTable splits s at the first comma outside double quotes. What follows
// begins with that comma.
func cutTable(s string) (table, rest string) {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return s[:i], s[i:]
		}
	}
	return s, ""
}
