package cdc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
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

// parsePattern reads table, schema.table or schema.*, each part as it is or
// double-quoted with "" for a quote. Unlike in SQL, unquoted names keep their
// case, as a publication lists them.
func parsePattern(s string) (pattern, error) {
	var parts []string
	var quoted []bool
	rest := s
	for {
		part, after, q, err := cutName(rest)
		if err != nil {
			return pattern{}, fmt.Errorf("table %q: %w; write schema.table or schema.*", s, err)
		}
		parts, quoted = append(parts, part), append(quoted, q)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch len(parts) {
	case 1:
		return pattern{schema: "public", table: parts[0], all: parts[0] == "*" && !quoted[0]}, nil
	case 2:
		return pattern{schema: parts[0], table: parts[1], all: parts[1] == "*" && !quoted[1]}, nil
	}
	return pattern{}, fmt.Errorf("table %q: more than two parts; write schema.table or schema.*", s)
}

// cutName reads one part and returns what follows: "" or "." and more.
func cutName(s string) (part, after string, quoted bool, err error) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexByte(s, '.')
		if i < 0 {
			i = len(s)
		}
		part, after = strings.TrimSpace(s[:i]), s[i:]
	} else {
		quoted = true
		var b strings.Builder
		i := 1
		for ; ; i++ {
			if i >= len(s) {
				return "", "", true, errors.New("the quote is not closed")
			}
			if s[i] == '"' {
				if i++; i >= len(s) || s[i] != '"' {
					break
				}
			}
			b.WriteByte(s[i])
		}
		part, after = b.String(), s[i:]
		if after != "" && after[0] != '.' {
			return "", "", true, errors.New("text after the closing quote")
		}
	}
	switch {
	case part == "":
		return "", "", quoted, errors.New("an empty name")
	case len(part) > 63:
		return "", "", quoted, fmt.Errorf("%q is longer than 63 bytes", part)
	case strings.ContainsRune(part, 0):
		return "", "", quoted, errors.New("a name cannot hold a zero byte")
	}
	return part, after, quoted, nil
}

// quote writes a possibly qualified name for SQL.
func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }
