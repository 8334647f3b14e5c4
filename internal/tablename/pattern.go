package tablename

import (
	"errors"
	"fmt"
	"strings"
)

// A Pattern is a table, or all tables of a schema.
type Pattern struct {
	Schema string
	Table  string // "*" if All
	All    bool
}

// Parse reads a pattern. The error quotes it and says how to write one.
func Parse(s string) (Pattern, error) {
	var parts []string
	var quoted []bool
	rest := s
	for {
		part, after, q, err := cut(rest)
		if err != nil {
			return Pattern{}, fmt.Errorf("table %q: %w; write schema.table or schema.*", s, err)
		}
		parts, quoted = append(parts, part), append(quoted, q)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch len(parts) {
	case 1:
		return Pattern{Schema: "public", Table: parts[0], All: parts[0] == "*" && !quoted[0]}, nil
	case 2:
		return Pattern{Schema: parts[0], Table: parts[1], All: parts[1] == "*" && !quoted[1]}, nil
	}
	return Pattern{}, fmt.Errorf("table %q: more than two parts; write schema.table or schema.*", s)
}

// Matches reports whether a table is meant.
func (p Pattern) Matches(schema, table string) bool {
	return p.Schema == schema && (p.All || p.Table == table)
}

// cut reads one part and returns what follows: "" or "." and more.
func cut(s string) (part, after string, quoted bool, err error) {
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
