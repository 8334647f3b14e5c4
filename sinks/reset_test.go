package sinks_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A reader learns which collections a reset concerns.
func TestResetNamesItsCollections(t *testing.T) {
	for name, tc := range map[string]struct {
		collections []string
		body        string
	}{
		"all":  {nil, `{"op":"reset"}`},
		"some": {[]string{"public.seats", `odd."q"`}, `{"op":"reset","collections":["public.seats","odd.\"q\""]}`},
	} {
		t.Run(name, func(t *testing.T) {
			b := &listeners.Batch{
				Kind: listeners.Reset, Source: "shop", Collections: tc.collections, First: true, Last: true,
				Position: listeners.Position{Epoch: 7, Commit: 99},
			}
			f := sinks.NewEncoder(1).Encode(b, 0)
			if string(f.Body) != tc.body {
				t.Errorf("body = %s, want %s", f.Body, tc.body)
			}
			m, err := sinks.Decode(func(name string) string {
				return map[string]string{"id": f.ID, "source": f.Source, "sequence": f.Sequence}[name]
			}, f.Body)
			if err != nil || !m.Reset {
				t.Fatalf("Decode = %+v, %v; want a reset", m, err)
			}
			if diff := cmp.Diff(tc.collections, m.Collections); diff != "" {
				t.Errorf("collections (-want +got):\n%s", diff)
			}
		})
	}
}
