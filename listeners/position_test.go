package listeners_test

import (
	"cmp"
	"encoding/json"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/listeners"
)

func TestPositionText(t *testing.T) {
	for name, tc := range map[string]struct {
		p    listeners.Position
		text string
	}{
		"zero":    {listeners.Position{}, "0000000000000000-0000000000000000-00000000"},
		"padded":  {listeners.Position{Epoch: 1, Commit: 0x16b374d848, Index: 10}, "0000000000000001-00000016b374d848-0000000a"},
		"largest": {listeners.Position{Epoch: math.MaxUint64, Commit: math.MaxUint64, Index: math.MaxUint32}, "ffffffffffffffff-ffffffffffffffff-ffffffff"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.p.String(); got != tc.text {
				t.Errorf("%#v.String() = %q, want %q", tc.p, got, tc.text)
			}
			if got, err := listeners.ParsePosition(tc.text); got != tc.p || err != nil {
				t.Errorf("ParsePosition(%q) = %#v, %v, want %#v", tc.text, got, err, tc.p)
			}
			if got := string(tc.p.Append([]byte("at "))); got != "at "+tc.text {
				t.Errorf("%#v.Append = %q, want it behind what was there", tc.p, got)
			}
			if got := tc.p.IsZero(); got != (name == "zero") {
				t.Errorf("%#v.IsZero() = %t", tc.p, got)
			}
		})
	}
}

func TestParsePositionAcceptsNothingElse(t *testing.T) {
	for name, text := range map[string]string{
		"empty":               "",
		"short":               "0000000000000001-00000016b374d848-0000000",
		"long":                "0000000000000001-00000016b374d848-0000000a0",
		"upper case epoch":    "000000000000000A-00000016b374d848-0000000a",
		"upper case commit":   "0000000000000001-00000016B374D848-0000000a",
		"upper case index":    "0000000000000001-00000016b374d848-0000000A",
		"no first dash":       "0000000000000001000000016b374d848-0000000a",
		"no second dash":      "0000000000000001-00000016b374d84800000000a",
		"not a digit":         "000000000000000g-00000016b374d848-0000000a",
		"sign":                "+000000000000001-00000016b374d848-0000000a",
		"space":               " 000000000000001-00000016b374d848-0000000a",
		"dash within a group": "0000000000000001-00000016-374d848-0000000a",
		"wide characters":     "０00000000000001-00000016b374d848-0000000a",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := listeners.ParsePosition(text); err == nil || !got.IsZero() {
				t.Errorf("ParsePosition(%q) = %v, %v, want an error", text, got, err)
			}
		})
	}
}

func anyPosition() *rapid.Generator[listeners.Position] {
	return rapid.Custom(func(t *rapid.T) listeners.Position {
		return listeners.Position{
			Epoch: rapid.Uint64().Draw(t, "epoch"), Commit: rapid.Uint64().Draw(t, "commit"), Index: rapid.Uint32().Draw(t, "index"),
		}
	})
}

func TestPositionTextSortsLikeCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, q := anyPosition().Draw(t, "p"), anyPosition().Draw(t, "q")
		// Independent numbers hardly ever agree in their higher parts.
		if rapid.Bool().Draw(t, "same epoch") {
			q.Epoch = p.Epoch
		}
		if rapid.Bool().Draw(t, "same commit") {
			q.Commit = p.Commit
		}
		if got, want := cmp.Compare(p.String(), q.String()), p.Compare(q); got != want {
			t.Fatalf("%s and %s compare as text to %d, as positions to %d", p, q, got, want)
		}
		if p.Compare(q) != -q.Compare(p) || (p.Compare(q) == 0) != (p == q) {
			t.Fatalf("%s.Compare(%s) = %d, the other way round %d", p, q, p.Compare(q), q.Compare(p))
		}
		if back, err := listeners.ParsePosition(p.String()); back != p || err != nil {
			t.Fatalf("ParsePosition(%q) = %v, %v", p.String(), back, err)
		}
	})
}

func TestPositionInJSON(t *testing.T) {
	type doc struct {
		At listeners.Position `json:"at"`
	}
	const text = `{"at":"0000000000000001-0000000000000002-00000003"}`
	want := doc{listeners.Position{Epoch: 1, Commit: 2, Index: 3}}
	if got, err := json.Marshal(want); string(got) != text || err != nil {
		t.Errorf("Marshal(%v) = %s, %v, want %s", want, got, err, text)
	}
	var got doc
	if err := json.Unmarshal([]byte(text), &got); got != want || err != nil {
		t.Errorf("Unmarshal(%s) = %v, %v, want %v", text, got, err, want)
	}
	if err := json.Unmarshal([]byte(`{"at":"3"}`), &got); got != want || err == nil {
		t.Errorf("Unmarshal of a bad position = %v, %v, want an error and the old value", got, err)
	}
}
