package cdc

import (
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	long := strings.Repeat("n", 63)
	for name, tc := range map[string]struct {
		in   string
		want pattern
		fail string // part of the error
	}{
		"table":                    {in: "seats", want: pattern{schema: "public", table: "seats"}},
		"schema and table":         {in: "shop.seats", want: pattern{schema: "shop", table: "seats"}},
		"case is kept":             {in: "Shop.Seats", want: pattern{schema: "Shop", table: "Seats"}},
		"spaces around":            {in: " shop . seats ", want: pattern{schema: "shop", table: "seats"}},
		"all of a schema":          {in: "shop.*", want: pattern{schema: "shop", table: "*", all: true}},
		"all of public":            {in: "*", want: pattern{schema: "public", table: "*", all: true}},
		"a table named star":       {in: `shop."*"`, want: pattern{schema: "shop", table: "*"}},
		"a public table named *":   {in: `"*"`, want: pattern{schema: "public", table: "*"}},
		"quoted":                   {in: `"shop"."seats"`, want: pattern{schema: "shop", table: "seats"}},
		"dot in quotes":            {in: `"my.shop"."a.b"`, want: pattern{schema: "my.shop", table: "a.b"}},
		"quote in quotes":          {in: `"say ""hi"""."t"`, want: pattern{schema: `say "hi"`, table: "t"}},
		"only a quote":             {in: `""""`, want: pattern{schema: "public", table: `"`}},
		"spaces in quotes":         {in: `" a "`, want: pattern{schema: "public", table: " a "}},
		"mixed":                    {in: `shop."Order Items"`, want: pattern{schema: "shop", table: "Order Items"}},
		"quote inside plain":       {in: `sh"op.t`, want: pattern{schema: `sh"op`, table: "t"}},
		"not ASCII":                {in: "läden.plätze", want: pattern{schema: "läden", table: "plätze"}},
		"longest":                  {in: long, want: pattern{schema: "public", table: long}},
		"too long":                 {in: long + "n", fail: "longer than 63 bytes"},
		"too long in quotes":       {in: `"` + long + `n"`, fail: "longer than 63 bytes"},
		"empty":                    {in: "", fail: "empty name"},
		"blank":                    {in: "  ", fail: "empty name"},
		"empty quotes":             {in: `""`, fail: "empty name"},
		"no schema":                {in: ".seats", fail: "empty name"},
		"no table":                 {in: "shop.", fail: "empty name"},
		"no quoted table":          {in: `"shop".`, fail: "empty name"},
		"three parts":              {in: "db.shop.seats", fail: "more than two parts"},
		"quote not closed":         {in: `shop."seats`, fail: "not closed"},
		"quote closed and doubled": {in: `"seats""`, fail: "not closed"},
		"text after a quote":       {in: `"shop"x.seats`, fail: "after the closing quote"},
		"zero byte":                {in: "a\x00b", fail: "zero byte"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePattern(tc.in)
			switch {
			case tc.fail == "" && (got != tc.want || err != nil):
				t.Errorf("parsePattern(%q) = %+v, %v; want %+v", tc.in, got, err, tc.want)
			case tc.fail != "" && (err == nil || !strings.Contains(err.Error(), tc.fail)):
				t.Errorf("parsePattern(%q) = %+v, %v; want an error with %q", tc.in, got, err, tc.fail)
			}
		})
	}
}

func TestPatternMatches(t *testing.T) {
	for name, tc := range map[string]struct {
		pattern       pattern
		schema, table string
		want          bool
	}{
		"the table":          {pattern{schema: "shop", table: "seats"}, "shop", "seats", true},
		"another table":      {pattern{schema: "shop", table: "seats"}, "shop", "seat", false},
		"another schema":     {pattern{schema: "shop", table: "seats"}, "public", "seats", false},
		"another case":       {pattern{schema: "shop", table: "seats"}, "shop", "Seats", false},
		"all of the schema":  {pattern{schema: "shop", table: "*", all: true}, "shop", "seats", true},
		"not of another":     {pattern{schema: "shop", table: "*", all: true}, "shops", "seats", false},
		"a table named star": {pattern{schema: "shop", table: "*"}, "shop", "seats", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.pattern.matches(tc.schema, tc.table); got != tc.want {
				t.Errorf("%s matches(%q, %q) = %t, want %t", tc.pattern, tc.schema, tc.table, got, tc.want)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for _, tc := range []struct {
		parts []string
		want  string
	}{
		{[]string{"shop", "seats"}, `"shop"."seats"`},
		{[]string{`a"b`}, `"a""b"`},
		{[]string{"a.b", "c;--"}, `"a.b"."c;--"`},
	} {
		if got := quote(tc.parts...); got != tc.want {
			t.Errorf("quote(%q) = %s, want %s", tc.parts, got, tc.want)
		}
	}
}
