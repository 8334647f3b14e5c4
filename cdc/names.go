package cdc

import (
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/internal/tablename"
)

// A pattern is one entry of Options.Tables.
type pattern struct {
	schema string
	table  string
	all    bool // schema.*
}

func (p pattern) String() string {
	if p.all {
		return p.schema + ".*"
	}
	return p.schema + "." + p.table
}

func (p pattern) matches(schema, table string) bool {
	return p.schema == schema && (p.all || p.table == table)
}

// parsePattern reads table, schema.table or schema.*; see package tablename.
func parsePattern(s string) (pattern, error) {
	p, err := tablename.Parse(s)
	return pattern{schema: p.Schema, table: p.Table, all: p.All}, err
}

// quote writes a possibly qualified name for SQL.
func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }
