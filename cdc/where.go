package cdc

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// checkWhere accepts a condition over a row's columns, and nothing that could
// do more than compare: whoever can connect to the database can ask for a
// backfill, and the source evaluates its condition with the source's own
// privileges. So there are no subqueries, no functions but harmless ones, and
// no names with a dot; the search path of the source's sessions, pg_catalog
// alone, keeps operators, types and functions of others out.
func checkWhere(where string) error {
	var depth int
	var word string // the last token, if it is a name
	for rest := where; rest != ""; {
		m := whereToken.FindStringSubmatch(rest)
		if m == nil {
			return fmt.Errorf("where: cannot take %q; write a simple condition over columns, such as price > 10 AND class = 'first'", clip(rest))
		}
		rest = rest[len(m[0]):]
		token, last := m[0], word
		switch {
		case m[1] != "": // space: the word before it still counts
			continue
		case token == "(":
			if depth++; last != "" && !whereCalls[last] {
				return fmt.Errorf("where: %s(…) is not allowed; of functions there are only %s", last, strings.Join(whereFunctions, ", "))
			}
		case token == ")":
			if depth--; depth < 0 {
				return errors.New("where: a parenthesis closes that was not opened")
			}
		case strings.Contains(token, "--"), strings.Contains(token, "/*"):
			return errors.New("where: comments are not allowed")
		}
		if word = ""; m[2] != "" {
			word = strings.ToLower(token)
			if whereRefused[word] {
				return fmt.Errorf("where: %s is not allowed; write a simple condition over columns", token)
			}
		}
	}
	if depth != 0 {
		return errors.New("where: a parenthesis is not closed")
	}
	return nil
}

// whereToken matches one token: space, a name, a number, a string without
// backslashes, an operator, or a mark of punctuation. Bytes outside ASCII are
// letters, as they are to the server.
var whereToken = regexp.MustCompile(`^(?:([ \t\r\n]+)|([A-Za-z_\x{80}-\x{10FFFF}][A-Za-z0-9_\x{80}-\x{10FFFF}]*|"(?:[^"\x00\\]|"")+")` +
	`|[0-9]+(?:\.[0-9]+)?|'(?:[^'\x00\\]|\'\')*'|::|[=<>!+*/%|~-]+|[(),])`)

var whereFunctions = []string{"abs", "coalesce", "length", "lower", "nullif", "now", "upper"}

// whereCalls are the words that a parenthesis may follow.
var whereCalls = words(append([]string{
	"and", "or", "not", "in", "between", "like", "ilike", "when", "then", "else", "case", "from",
}, whereFunctions...)...)

// whereRefused are the words that begin a subquery.
var whereRefused = words("select", "with", "table", "values", "exists")

func words(list ...string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, w := range list {
		set[w] = true
	}
	return set
}

func clip(s string) string { return s[:min(len(s), 20)] }
