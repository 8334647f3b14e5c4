package sinks_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/sinks"
)

func TestEscapeToken(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"plain":      {"Seats_2026", "Seats_2026"},
		"minus":      {"a-b", "a-2db"},
		"dot":        {"a.b", "a-2eb"},
		"wildcards":  {"*>", "-2a-3e"},
		"space":      {" ", "-20"},
		"not ASCII":  {"ü", "-c3-bc"},
		"not UTF-8":  {"\xff", "-ff"},
		"looks like": {"a-2eb", "a-2d2eb"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sinks.EscapeToken(tc.in); got != tc.want {
				t.Errorf("EscapeToken(%q) = %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

// A function with an inverse is injective.
func TestEscapeTokenIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "name"))
		token := sinks.EscapeToken(in)
		if token == "" || strings.Trim(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			t.Fatalf("EscapeToken(%q) = %q, want letters, digits, _ and - only", in, token)
		}
		if got, err := sinks.UnescapeToken(token); got != in || err != nil {
			t.Fatalf("UnescapeToken(%q) = %q, %v, want %q", token, got, err, in)
		}
	})
}

func TestUnescapeTokenRejects(t *testing.T) {
	for _, in := range []string{"-", "-2", "a-2", "-zz", "-2E", "-61", "a.b", "ü"} {
		if got, err := sinks.UnescapeToken(in); err == nil {
			t.Errorf("UnescapeToken(%q) = %q, want an error", in, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	for name, tc := range map[string]struct{ got, want string }{
		"table":  {sinks.CollectionAddress(seats), "cdc.shop.public.seats"},
		"odd":    {sinks.CollectionAddress(odd), "cdc.M-c3-bcller-20-26-20Co.my-20schema.a-2fb-25"},
		"region": {sinks.CollectionAddress(region), "grid.trains.seats"},
		"reset":  {sinks.ResetAddress("shop"), "cdc.shop._control.reset.reset.all"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %q, want %q", name, tc.got, tc.want)
		}
	}
}

func TestHeaderEscapes(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"plain":      {"public.seats/7", "public.seats/7"},
		"the spec's": {"Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"},
		"quote":      {`a"b`, "a%22b"},
		"percent":    {"a%2Fb", "a%252Fb"},
	} {
		t.Run(name, func(t *testing.T) {
			got := sinks.EscapeHeader(tc.in)
			if got != tc.want {
				t.Errorf("EscapeHeader(%q) = %q, want %q", tc.in, got, tc.want)
			}
			if back, err := sinks.UnescapeHeader(got); back != tc.in || err != nil {
				t.Errorf("UnescapeHeader(%q) = %q, %v, want %q", got, back, err, tc.in)
			}
		})
	}
	// What others may send.
	for in, want := range map[string]string{`"a \"b\" %41"`: `a "b" A`, "%c3%bc": "ü"} {
		if got, err := sinks.UnescapeHeader(in); got != want || err != nil {
			t.Errorf("UnescapeHeader(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"%", "%4", "%zz", "%C0%A0"} {
		if got, err := sinks.UnescapeHeader(in); err == nil {
			t.Errorf("UnescapeHeader(%q) = %q, want an error", in, got)
		}
	}
}
