package sinks_test

import (
	"fmt"
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
		filling bool // what the change says
	}{
		"not yet":            {[]*listeners.Batch{reset, &unended}, "reset", listeners.Position{}, false, false},
		"nothing but reset":  {[]*listeners.Batch{reset}, "reset", listeners.Position{}, false, false},
		"by its last row":    {[]*listeners.Batch{reset, row}, "reset snapshot live", at(5, 1), true, false},
		"by a live marker":   {[]*listeners.Batch{reset, &unended, live}, "reset snapshot live", at(5, 9), true, false},
		"empty, by a marker": {[]*listeners.Batch{reset, live}, "reset live", at(5, 9), true, false},
		"by a change":        {[]*listeners.Batch{reset, &unended, change}, "reset snapshot live changes", at(5, 1), true, false},
		"empty, by a change": {[]*listeners.Batch{reset, change}, "reset live changes", at(5, 0), true, false},
		// No message says that the snapshot will go on, with the changes of the tables that
		// were complete, a reset of the others, and their rows.
		"by a change, and it goes on":                   {[]*listeners.Batch{reset, &unended, change, rest, &restRow}, "reset snapshot live changes reset snapshot live", at(7, 1), true, false},
		"by its last row, behind a change that says so": {[]*listeners.Batch{reset, &unended, change, rest, &restRow}, "reset snapshot changes reset snapshot live", at(7, 1), true, true},
		"not yet, behind a change that says so":         {[]*listeners.Batch{reset, &unended, change}, "reset snapshot changes", listeners.Position{}, false, true},
		"rows read again, and a change that says so":    {[]*listeners.Batch{row, change}, "snapshot changes", listeners.Position{}, true, true},
		"rows read again":                               {[]*listeners.Batch{row, change}, "snapshot changes", listeners.Position{}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := new(sinks.Assembler)
			parts := decode(t, sinks.NewEncoder(4), sinks.NewDecoder(), tc.batches...)
			for i := range parts {
				parts[i].Filling = tc.filling && parts[i].Kind == listeners.Changes
			}
			got := assemble(t, a, parts)
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

// Rows that were stored before a snapshot went on in another run are told: the
// reset before the rest says nothing of their tables.
func TestRowsBeforeAnotherResetAreTold(t *testing.T) {
	row := changes("shop", 5, listeners.Event{Op: listeners.Read, Schema: seats, After: record(seats, 7, "12A", nil)})
	row.Kind, row.Events[0].Position, row.Tx.ID, row.Last = listeners.Snapshot, at(5, 1), 0, false
	reset := func(commit uint64, collections ...string) *listeners.Batch {
		return &listeners.Batch{Kind: listeners.Reset, Source: "shop", Position: at(commit, 0), First: true, Last: true, Collections: collections}
	}
	live := &listeners.Batch{Kind: listeners.Live, Source: "shop", Position: at(7, 9), First: true, Last: true}
	for name, second := range map[string]*listeners.Batch{
		"of other tables": reset(7, "public.trains"),
		"of everything":   reset(7),
	} {
		t.Run(name, func(t *testing.T) {
			got := assemble(t, new(sinks.Assembler), decode(t, sinks.NewEncoder(4), sinks.NewDecoder(), reset(5), row, second, live))
			kinds := ""
			for _, b := range got {
				kinds += fmt.Sprintf("%s %d; ", b.Kind, len(b.Events))
			}
			if want := "reset 0; snapshot 1; reset 0; live 0; "; kinds != want {
				t.Errorf("got %s, want %s", kinds, want)
			}
		})
	}
}
