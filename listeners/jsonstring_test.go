package listeners_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rowcall/rowcall/listeners"
)

func TestAppendJSONString(t *testing.T) {
	type named string
	const in, want = "a\"é\xff", "\"a\\\"é\ufffd\""
	for name, got := range map[string][]byte{
		"string": listeners.AppendJSONString(nil, in),
		"bytes":  listeners.AppendJSONString(nil, []byte(in)),
		"named":  listeners.AppendJSONString(nil, named(in)),
	} {
		if string(got) != want {
			t.Errorf("AppendJSONString(nil, %s %q) = %q, want %q", name, in, got, want)
		}
	}
}

func FuzzAppendJSONString(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c", "\b\f\n\r\t\x00\x1f\x7f", "é\u2028\U0001F600", "\xff\xe2\x82", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := listeners.AppendJSONString([]byte("before "), s)
		text, kept := strings.CutPrefix(string(out), "before ")
		var got string
		if err := json.Unmarshal([]byte(text), &got); err != nil || !kept || !utf8.Valid(out) {
			t.Fatalf("AppendJSONString(before, %q) = %q: %v", s, out, err)
		}
		if want := string([]rune(s)); got != want { // with U+FFFD for each invalid byte
			t.Errorf("AppendJSONString(nil, %q) reads back as %q, want %q", s, got, want)
		}
	})
}
