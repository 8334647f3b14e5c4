package jetstream_test

import (
	"fmt"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// The rows and histories are those that every broker is tested with.
var (
	seats       = sinktest.Seats
	seat        = sinktest.Seat
	wide        = sinktest.Wide
	at          = sinktest.At
	transaction = sinktest.Transaction
	parts       = sinktest.Parts
	reset       = sinktest.Reset
	snapshot    = sinktest.Snapshot
	live        = sinktest.Live
	history     = sinktest.History
)

// stored returns what the stream must hold of a history, a line for each
// message.
func stored(batches []*listeners.Batch) []string {
	var lines []string
	for _, b := range batches {
		if b.Kind == listeners.Reset && len(lines) > 0 {
			lines = append(lines, "reset "+b.Position.String())
		}
		for i := range b.Events {
			e := &b.Events[i]
			after := ""
			if e.After.Exists() {
				after = string(e.After.AppendJSON(nil))
			}
			line := fmt.Sprintf("%s %s %s %s", e.Op, e.Position, e.Key(), after)
			if b.Last && i == len(b.Events)-1 {
				line += " end"
			}
			lines = append(lines, line)
		}
	}
	return lines
}
