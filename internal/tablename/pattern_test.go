package tablename_test

import (
	"strings"
	"testing"

	"github.com/rowcall/rowcall/internal/tablename"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]tablename.Pattern{
		"seats":             {Schema: "public", Table: "seats"},
		"Sales.Orders":      {Schema: "Sales", Table: "Orders"},
		"sales.*":           {Schema: "sales", Table: "*", All: true},
		`sales."*"`:         {Schema: "sales", Table: "*"},
		`"Odd ""one"."a.b"`: {Schema: `Odd "one`, Table: "a.b"},
		" sales . orders ":  {Schema: "sales", Table: "orders"},
	} {
		if got, err := tablename.Parse(text); err != nil || got != want {
			t.Errorf("Parse(%s) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                      "an empty name",
		"sales.":                "an empty name",
		"a.b.c":                 "more than two parts",
		`"a`:                    "the quote is not closed",
		`"a"b`:                  "text after the closing quote",
		strings.Repeat("x", 64): "longer than 63 bytes",
		"a\x00":                 "zero byte",
	} {
		if got, err := tablename.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %+v, %v; want an error with %q", text, got, err, want)
		}
	}
}

func TestMatches(t *testing.T) {
	one, all := tablename.Pattern{Schema: "s", Table: "t"}, tablename.Pattern{Schema: "s", Table: "*", All: true}
	for p, want := range map[tablename.Pattern][3]bool{one: {true, false, false}, all: {true, true, false}} {
		got := [3]bool{p.Matches("s", "t"), p.Matches("s", "u"), p.Matches("r", "t")}
		if got != want {
			t.Errorf("%+v matches s.t, s.u, r.t = %v, want %v", p, got, want)
		}
	}
}
