package sinktest

import (
	"fmt"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// Frames returns what a sink that has nothing yet must have stored of batches,
// by partition, a line for each message. [Line] writes such a line for what was
// read. What concerns all is in every partition; but a reset is not stored where
// nothing is, since nobody has read there what could be stale.
func Frames(batches []*listeners.Batch, partitions int) [][]string {
	encoder := sinks.NewEncoder(partitions)
	lines := make([][]string, partitions)
	for _, b := range batches {
		for i := range sinks.Len(b) {
			f := encoder.Encode(b, i)
			line := Line(f.ID, f.Subject, f.TxEnd, f.Body)
			for p := range partitions {
				if f.Partition != sinks.All && f.Partition != p || b.Kind == listeners.Reset && len(lines[p]) == 0 {
					continue
				}
				lines[p] = append(lines[p], line)
			}
		}
	}
	return lines
}

// Line writes what matters of a message.
func Line(id, subject string, txEnd bool, body []byte) string {
	return fmt.Sprintf("%s %s %t %s", id, subject, txEnd, body)
}
