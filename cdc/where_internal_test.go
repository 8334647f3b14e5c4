package cdc

import (
	"strings"
	"testing"
)

func TestWhereTakesConditionsOverColumnsOnly(t *testing.T) {
	for where, fault := range map[string]string{
		"":                                     "",
		"price > 10 AND class = 'first'":       "",
		"NOT (a IN (1, 2.5) OR b LIKE 'x''%')": "",
		`"values" IS DISTINCT FROM ("Größe" + 1)`:            "",
		"größe >= 3 AND day < date '2026-01-01'":             "",
		"(at AT TIME ZONE 'UTC')::date = '2026-01-01'::date": "",
		"lower(name) = 'ann' AND coalesce (a, 0) = 0":        "",
		"CASE WHEN a THEN b ELSE c END":                      "",
		"name ~ '^a.*' AND -a < 1":                           "",

		"id IN (SELECT 1)":                 "SELECT is not allowed",
		"id IN (table secrets)":            "table is not allowed",
		"id IN (VALUES (1))":               "VALUES is not allowed",
		"EXISTS (WITH x AS (a) b)":         "EXISTS is not allowed",
		"pg_read_file('/etc/passwd') > ''": "pg_read_file(…) is not allowed",
		"evil (1)":                         "evil(…) is not allowed",
		`"lower"('A') = 'a'`:               `"lower"(…) is not allowed`,
		"public.evil(1)":                   `cannot take ".evil(1)"`,
		"seats.evil":                       `cannot take ".evil"`,
		"a OPERATOR(public.=) b":           "operator(…) is not allowed",
		"a = ANY (b)":                      "any(…) is not allowed",
		"a = 'x'::public.evil":             `cannot take ".evil"`,
		"true; DROP TABLE seats":           `cannot take "; DROP TABLE seats"`,
		"true) OR (true":                   "closes that was not opened",
		"((true)":                          "is not closed",
		"true -- and more":                 "comments",
		"true /* and more":                 "comments",
		"a = $1":                           `cannot take "$1"`,
		"a = $$x$$":                        "cannot take",
		`a = E'\''`:                        "cannot take",
		`U&"\0061" = 1`:                    "cannot take",
		"a = 'x":                           "cannot take",
		"a[1] = 2":                         "cannot take",
		"a\x00":                            "cannot take",
	} {
		err := checkWhere(where)
		if (err == nil) != (fault == "") || (err != nil && !strings.Contains(err.Error(), fault)) {
			t.Errorf("checkWhere(%q) = %v, want a fault with %q", where, err, fault)
		}
	}
}

func FuzzWhereNeverHoldsAStatement(f *testing.F) {
	for _, s := range []string{"a = 1", "a = 'x''y' AND (b)", `"a""b" < 2`, "a; b", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, where string) {
		if checkWhere(where) != nil {
			return
		}
		// Outside of quotes, what could end the condition or call something is gone.
		outside, quote := strings.Builder{}, rune(0)
		for _, r := range where {
			switch {
			case quote == 0 && (r == '\'' || r == '"'):
				quote = r
			case quote == r:
				quote = 0
			case quote == 0:
				outside.WriteRune(r)
			}
		}
		if bare := outside.String(); quote != 0 || strings.ContainsAny(bare, ";$\\&") || strings.Contains(bare, "--") || strings.Contains(bare, "/*") {
			t.Errorf("checkWhere(%q) = nil", where)
		}
	})
}
