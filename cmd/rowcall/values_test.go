package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTableList(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in   []string
		want []string
		fail bool
	}{
		"one":              {in: []string{"public.seats"}, want: []string{"public.seats"}},
		"several":          {in: []string{"a.b, c.*"}, want: []string{"a.b", "c.*"}},
		"given twice":      {in: []string{"a.b", "c.d"}, want: []string{"a.b", "c.d"}},
		"quotes stay":      {in: []string{`"Odd, one"."a""b",c.d`}, want: []string{`"Odd, one"."a""b"`, "c.d"}},
		"nothing":          {in: []string{""}},
		"empty between":    {in: []string{"a,,b"}, fail: true},
		"comma at the end": {in: []string{"a,"}, fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l tableList
			var err error
			for _, in := range tc.in {
				if err == nil {
					err = l.Set(in)
				}
			}
			if (err != nil) != tc.fail {
				t.Fatalf("Set(%q) = %v, want failure %t", tc.in, err, tc.fail)
			}
			if diff := cmp.Diff(tc.want, l.tables); !tc.fail && diff != "" {
				t.Errorf("Set(%q) (-want +got):\n%s", tc.in, diff)
			}
		})
	}
}

func TestFilterSubjects(t *testing.T) {
	t.Parallel()
	const control = "cdc.*._control.>"
	for name, tc := range map[string]struct {
		in   []string
		want []string
		fail string
	}{
		"all":                  {},
		"public by default":    {in: []string{"seats"}, want: []string{control, "cdc.*.public.seats.>"}},
		"a schema":             {in: []string{"sales.*"}, want: []string{control, "cdc.*.sales.>"}},
		"no overlap":           {in: []string{"sales.a", "sales.*", "b", "public.b"}, want: []string{control, "cdc.*.public.b.>", "cdc.*.sales.>"}},
		"escaped":              {in: []string{`"Odd ones"."a.b"`}, want: []string{control, "cdc.*.Odd-20ones.a-2eb.>"}},
		"a quote in a name":    {in: []string{`"a""b"`}, want: []string{control, "cdc.*.public.a-22b.>"}},
		"three parts":          {in: []string{"a.b.c"}, fail: "more than two parts"},
		"a star alone":         {in: []string{"*"}, fail: "name a schema"},
		"a star as the schema": {in: []string{"*.a"}, fail: "a schema cannot be *"},
		"an open quote":        {in: []string{`"a`}, fail: "the quote is not closed"},
		"nothing":              {in: []string{""}, fail: "an empty name"},
		"no table":             {in: []string{"a."}, fail: "an empty name"},
		"text after a quote":   {in: []string{`"a"b`}, fail: "text after the closing quote"},
		"every fault":          {in: []string{"a.b.c", `"a`}, fail: "2 things are wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := filterSubjects(tc.in)
			if tc.fail != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fail) {
					t.Errorf("filterSubjects(%q) = %v, want an error with %q", tc.in, err, tc.fail)
				}
				return
			}
			slices.Sort(tc.want)
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("filterSubjects(%q) = %v (-want +got):\n%s", tc.in, err, diff)
			}
		})
	}
}

func TestNoPasswordOfAURLIsShown(t *testing.T) {
	t.Parallel()
	for _, urls := range []string{
		"nats://user:secret@host:4222", "user:secret@host", "nats://secret@a,nats://u:secret@b:1",
		"nats://u:secret@[half", "foo://u:secret@host", "nats://u:secret@", "nats://u:secret@host:port", "nats://u:sec%zzret@host",
	} {
		err := checkNATSURL("--nats-url", urls)
		shown := withoutUserInfo(urls)
		if err != nil {
			shown = err.Error()
		}
		if strings.Contains(shown, "secret") || strings.Contains(shown, "sec%zz") {
			t.Errorf("of %q is shown: %s", urls, shown)
		}
	}
}
