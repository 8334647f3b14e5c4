package cdc

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

func (d *decoding) liveColumns(_ context.Context, relation uint32) ([]liveColumn, error) {
	return d.live[relation], d.keysErr
}

func (d *decoding) keyLost(_ context.Context, _ uint32, table, reason string) {
	d.lost = append(d.lost, table+": "+reason)
}

// liveTable describes columns as msgRelation does; "*" marks the primary key
// and "=" a generated column.
func liveTable(columns ...string) (live []liveColumn, key []string) {
	for _, c := range columns {
		name, isKey := strings.CutPrefix(c, "*")
		name, generated := strings.CutPrefix(name, "=")
		typ := uint32(25)
		if before, ok := strings.CutSuffix(name, ":23"); ok {
			name, typ = before, 23
		}
		live = append(live, liveColumn{name: name, typeID: typ, generated: generated, key: isKey})
		if isKey {
			key = append(key, name)
		}
	}
	return live, key
}

// The catalog knows the key of now. A row of before has the names of then.
func TestKeyOfAFullIdentityAfterTheTableWasAltered(t *testing.T) {
	for name, tc := range map[string]struct {
		then, now []string
		want      string
		lost      string
	}{
		"nothing changed":            {then: []string{"a", "b"}, now: []string{"*a", "b"}, want: "[a]"},
		"key renamed":                {then: []string{"a", "b"}, now: []string{"*id", "b"}, want: "[a]"},
		"all renamed":                {then: []string{"a:23", "b"}, now: []string{"*x:23", "y"}, want: "[a]"},
		"a part of the key renamed":  {then: []string{"a", "b", "c"}, now: []string{"*a", "b", "*x"}, want: "[a c]"},
		"beside a generated column":  {then: []string{"a", "b"}, now: []string{"=g", "*id", "b"}, want: "[a]"},
		"with a generated column":    {then: []string{"g", "a"}, now: []string{"=g", "*id"}, want: "[a]"},
		"column added, key kept":     {then: []string{"a", "b"}, now: []string{"*a", "b", "c"}, want: "[a]"},
		"column added, key renamed":  {then: []string{"a", "b"}, now: []string{"*id", "b", "c"}, want: "[]", lost: `public.t: the key is now ["id"], and the columns do not tell what it was`},
		"type changed, key renamed":  {then: []string{"a", "b"}, now: []string{"*id:23", "b"}, want: "[]", lost: `public.t: the key is now ["id"], and the columns do not tell what it was`},
		"another column takes over":  {then: []string{"a", "b"}, now: []string{"b", "*id"}, want: "[]", lost: `public.t: the key is now ["id"], and the columns do not tell what it was`},
		"table gone":                 {then: []string{"a", "b"}, want: "[]", lost: "public.t: the table is gone"},
		"no primary key":             {then: []string{"a", "b"}, now: []string{"a", "b"}, want: "[]"},
		"names swapped with another": {then: []string{"a", "b"}, now: []string{"*c", "a"}, want: "[]", lost: `public.t: the key is now ["c"], and the columns do not tell what it was`},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, whole)
			live, key := liveTable(tc.now...)
			d.live, d.keys = map[uint32][]liveColumn{5: live}, map[uint32][]string{5: key}
			d.send(msgRelation(5, "t", 'f', tc.then...))
			got := []string{}
			for _, c := range d.decoder.relations[5].schema.Columns {
				if c.Key {
					got = append(got, c.Name)
				}
			}
			if lost := strings.Join(d.lost, "; "); fmt.Sprint(got) != tc.want || lost != tc.lost {
				t.Errorf("key = %v, warning %q; want %s and %q", got, lost, tc.want, tc.lost)
			}
		})
	}
}
