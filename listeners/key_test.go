package listeners_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/listeners"
)

// keySchema has n key columns and, before each, one that is none.
func keySchema(n int) *listeners.Schema {
	columns := make([]listeners.Column, 2*n)
	for i := range n {
		columns[2*i].Name = fmt.Sprintf("other%d", i)
		columns[2*i+1] = listeners.Column{Name: fmt.Sprintf("k%d", i), Key: true}
	}
	return listeners.NewSchema("shop", "public", "keyed", columns)
}

func keyOf(s *listeners.Schema, parts ...any) listeners.Key {
	values := make([]any, 2*len(parts))
	for i, p := range parts {
		values[2*i], values[2*i+1] = "x", p
	}
	e := listeners.Event{Op: listeners.Create, Schema: s, After: record(s, values...)}
	return e.Key()
}

func TestKeyText(t *testing.T) {
	for name, tc := range map[string]struct {
		parts []any
		text  string
		json  string
	}{
		"none":       {nil, "", `{}`},
		"number":     {[]any{7}, "7", `{"k0":7}`},
		"two":        {[]any{7, "A"}, "7/A", `{"k0":7,"k1":"A"}`},
		"slash":      {[]any{"a/b", "c"}, "a%2Fb/c", `{"k0":"a/b","k1":"c"}`},
		"percent":    {[]any{"a%2Fb"}, "a%252Fb", `{"k0":"a%2Fb"}`},
		"space":      {[]any{"a b\n"}, "a%20b%0A", `{"k0":"a b\n"}`},
		"not ASCII":  {[]any{"é\x7f"}, "%C3%A9%7F", "{\"k0\":\"é\x7f\"}"},
		"empty text": {[]any{"", ""}, "/", `{"k0":"","k1":""}`},
		"null":       {[]any{nil, ""}, "%/", `{"k0":null,"k1":""}`},
	} {
		t.Run(name, func(t *testing.T) {
			k := keyOf(keySchema(len(tc.parts)), tc.parts...)
			if got := k.String(); got != tc.text {
				t.Errorf("String() = %q, want %q", got, tc.text)
			}
			if got := string(k.Append([]byte("key "))); got != "key "+tc.text {
				t.Errorf("Append = %q, want it behind what was there", got)
			}
			if got := string(k.AppendJSON(nil)); got != tc.json {
				t.Errorf("AppendJSON = %s, want %s", got, tc.json)
			}
			if k.Len() != len(tc.parts) {
				t.Errorf("Len() = %d, want %d", k.Len(), len(tc.parts))
			}
		})
	}
	k := keyOf(keySchema(2), 7, "A")
	if c, v := k.At(1); c.Name != "k1" || v.String() != "A" {
		t.Errorf("At(1) = %s, %s; want k1, A", c.Name, v)
	}
}

func TestKeyTextsOfTwoKeysDiffer(t *testing.T) {
	// Few characters, so that collisions would be found.
	parts := rapid.SliceOfN(rapid.OneOf(
		rapid.Map(rapid.StringOfN(rapid.RuneFrom([]rune("a/%2F \x00é")), 0, 4, -1), func(s string) any { return s }),
		rapid.Just[any](nil),
	), 2, 2)
	s := keySchema(2)
	rapid.Check(t, func(t *rapid.T) {
		a, b := parts.Draw(t, "a"), parts.Draw(t, "b")
		ka, kb := keyOf(s, a...), keyOf(s, b...)
		same := a[0] == b[0] && a[1] == b[1]
		if (ka.String() == kb.String()) != same {
			t.Fatalf("keys %q and %q have the texts %q and %q", a, b, ka, kb)
		}
		if ka.Equal(kb) != same || kb.Equal(ka) != same {
			t.Fatalf("%q.Equal(%q) = %t", a, b, ka.Equal(kb))
		}
		for _, c := range ka.String() {
			if c <= ' ' || c >= 0x7f {
				t.Fatalf("the text %q of key %q holds %q", ka, a, c)
			}
		}
	})
}

func TestKeysOfDifferentLengthDiffer(t *testing.T) {
	if keyOf(keySchema(1), "a").Equal(keyOf(keySchema(2), "a", "b")) || keyOf(keySchema(1), "").Equal(listeners.Key{}) {
		t.Error("keys of different length are equal")
	}
}

// encoding/json is the judge of our own JSON strings.
func TestKeyJSONIsValidWhateverTheColumnIsCalled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := string(rapid.SliceOfN(rapid.SampledFrom([]byte("a\"\\\n\x00\x1f\x7f\xc3\xa9\xff/")), 0, 8).Draw(t, "name"))
		s := listeners.NewSchema("shop", "", "odd", []listeners.Column{{Name: name, Key: true}})
		e := listeners.Event{Op: listeners.Read, Schema: s, After: record(s, 1)}
		text, err := json.Marshal(e.Key())
		if err != nil {
			t.Fatalf("Marshal of a key with the column %q: %v", name, err)
		}
		var got map[string]int
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("column %q gives %s: %v", name, text, err)
		}
		if want := strings.ToValidUTF8(name, ""); len(want) == len(name) && got[name] != 1 {
			t.Fatalf("column %q gives %s", name, text)
		}
	})
}

func TestEventKey(t *testing.T) {
	old, moved := seat(1, unsent, unsent, unsent), seat(2, "A", 10, nil)
	for name, tc := range map[string]struct {
		e    listeners.Event
		key  string
		was  string
		move bool
	}{
		"create":                    {e: listeners.Event{Op: listeners.Create, After: moved}, key: "2"},
		"update":                    {e: listeners.Event{Op: listeners.Update, After: moved}, key: "2"},
		"update, before":            {e: listeners.Event{Op: listeners.Update, Before: seat(2, "B", 1, nil), After: moved}, key: "2"},
		"update, same old key":      {e: listeners.Event{Op: listeners.Update, OldKey: seat(2, unsent, unsent, unsent), After: moved}, key: "2"},
		"key changed, old key":      {e: listeners.Event{Op: listeners.Update, OldKey: old, After: moved}, key: "2", was: "1", move: true},
		"key changed, before":       {e: listeners.Event{Op: listeners.Update, Before: seat(1, "B", 1, nil), After: moved}, key: "2", was: "1", move: true},
		"delete, old key":           {e: listeners.Event{Op: listeners.Delete, OldKey: old}, key: "1"},
		"delete, before":            {e: listeners.Event{Op: listeners.Delete, Before: seat(1, "B", 1, nil)}, key: "1"},
		"truncate":                  {e: listeners.Event{Op: listeners.Truncate}},
		"read":                      {e: listeners.Event{Op: listeners.Read, After: moved}, key: "2"},
		"no key is no changed key":  {e: listeners.Event{Op: listeners.Update, Before: record(keySchema(0)), After: record(keySchema(0))}},
		"only updates change a key": {e: listeners.Event{Op: listeners.Delete, OldKey: old, Before: moved}, key: "2"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.e.Key().String(); got != tc.key {
				t.Errorf("Key() = %q, want %q", got, tc.key)
			}
			was, move := tc.e.ChangedKey()
			if was.String() != tc.was || move != tc.move {
				t.Errorf("ChangedKey() = %q, %t, want %q, %t", was, move, tc.was, tc.move)
			}
		})
	}
}
