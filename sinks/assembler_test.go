package sinks_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// What ends a snapshot whose last row has no txend, and where.
func TestSnapshotEnds(t *testing.T) {
	reset := &listeners.Batch{Kind: listeners.Reset, Source: "shop", Position: at(5, 0), First: true, Last: true}
	row := changes("shop", 5, listeners.Event{Op: listeners.Read, Schema: seats, After: record(seats, 7, "12A", nil)})
	row.Kind, row.Events[0].Position, row.Tx.ID = listeners.Snapshot, at(5, 1), 0
	unended := *row
	unended.Last = false
	live := &listeners.Batch{Kind: listeners.Live, Source: "shop", Position: at(5, 9), First: true, Last: true}
	rest := &listeners.Batch{Kind: listeners.Reset, Source: "shop", Position: at(7, 0), First: true, Last: true, Collections: []string{"public.trains"}}
	restRow := *row
	restRow.Events = []listeners.Event{row.Events[0]}
	restRow.Events[0].Position, restRow.Position = at(7, 1), at(7, 1)
	change := changes("shop", 6, listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 8, "12B", nil)})

	for name, tc := range map[string]struct {
		batches []*listeners.Batch
		kinds   string
		live    listeners.Position
		idle    bool
	}{
		"not yet":            {[]*listeners.Batch{reset, &unended}, "reset", listeners.Position{}, false},
		"nothing but reset":  {[]*listeners.Batch{reset}, "reset", listeners.Position{}, false},
		"by its last row":    {[]*listeners.Batch{reset, row}, "reset snapshot live", at(5, 1), true},
		"by a live marker":   {[]*listeners.Batch{reset, &unended, live}, "reset snapshot live", at(5, 9), true},
		"empty, by a marker": {[]*listeners.Batch{reset, live}, "reset live", at(5, 9), true},
		"by a change":        {[]*listeners.Batch{reset, &unended, change}, "reset snapshot live changes", at(5, 1), true},
		"empty, by a change": {[]*listeners.Batch{reset, change}, "reset live changes", at(5, 0), true},
		// No message says that the snapshot will go on, with the changes of the tables that
		// were complete, a reset of the others, and their rows.
		"by a change, and it goes on": {[]*listeners.Batch{reset, &unended, change, rest, &restRow}, "reset snapshot live changes reset snapshot live", at(7, 1), true},
		"rows read again":             {[]*listeners.Batch{row, change}, "snapshot changes", listeners.Position{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := new(sinks.Assembler)
			got := assemble(t, a, decode(t, sinks.NewEncoder(4), sinks.NewDecoder(), tc.batches...))
			kinds, marked := "", listeners.Position{}
			for i, b := range got {
				if i > 0 {
					kinds += " "
				}
				kinds += b.Kind.String()
				if b.Kind == listeners.Live {
					marked = b.Position
				}
			}
			if kinds != tc.kinds || marked != tc.live || a.Idle() != tc.idle {
				t.Errorf("got %s, live at %s, idle %t; want %s, live at %s, idle %t", kinds, marked, a.Idle(), tc.kinds, tc.live, tc.idle)
			}
		})
	}
}

// A transaction's messages that come again, in a reader that begins anew, are
// told once.
func TestAssemblerLeavesOutWhatComesTwice(t *testing.T) {
	b := changes("shop", 6,
		listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 8, "12B", nil)},
		listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 9, "12C", nil)},
	)
	parts := decode(t, sinks.NewEncoder(4), sinks.NewDecoder(), b)
	twice := []sinks.Part{parts[0], parts[0], parts[1], parts[0], parts[1]}
	b.Tx.Time = parts[0].Tx.Time
	if diff := cmp.Diff(described(t, b), assemble(t, new(sinks.Assembler), twice)); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}
