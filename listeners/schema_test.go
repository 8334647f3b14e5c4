package listeners_test

import (
	"fmt"
	"testing"

	"github.com/rowcall/rowcall/listeners"
)

func TestSchemaVersion(t *testing.T) {
	version := func(table string, columns ...listeners.Column) uint64 {
		return listeners.NewSchema("shop", "public", table, columns).Version()
	}
	id := listeners.Column{Name: "id", Type: "integer", TypeID: 23, Key: true}
	note := listeners.Column{Name: "note", Type: "text", TypeID: 25}
	first := version("seats", id, note)
	// A literal, for other processes and later versions have to agree.
	if got, want := fmt.Sprintf("%016x", first), "d50c3a886dda0e05"; got != want {
		t.Errorf("Version() = %s, want %s", got, want)
	}
	for name, v := range map[string]uint64{
		"another table":      version("rows", id, note),
		"the type's name":    version("seats", id, listeners.Column{Name: "note", Type: "?", TypeID: 25}),
		"in another process": version("seats", id, note),
	} {
		if v != first {
			t.Errorf("%s: Version() = %016x, want %016x", name, v, first)
		}
	}
	seen := map[uint64]string{first: "as it was"}
	for name, columns := range map[string][]listeners.Column{
		"none":                {},
		"added":               {id, note, {Name: "price", TypeID: 1700}},
		"dropped":             {id},
		"other order":         {note, id},
		"renamed":             {id, {Name: "remark", TypeID: 25}},
		"other type":          {{Name: "id", TypeID: 20, Key: true}, note},
		"other key":           {id, {Name: "note", TypeID: 25, Key: true}},
		"no key":              {{Name: "id", TypeID: 23}, note},
		"by the name of type": {id, {Name: "note", Type: "text"}},
		"another name":        {id, {Name: "note", Type: "string"}},
		"no type":             {id, {Name: "note"}},
		"glued":               {{Name: "idnote", TypeID: 23, Key: true}},
	} {
		v := version("seats", columns...)
		if twin, ok := seen[v]; ok {
			t.Errorf("%s: Version() = %016x, as for %q", name, v, twin)
		}
		seen[v] = name
	}
}
