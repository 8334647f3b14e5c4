package pgoutput_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
)

// FuzzParse gives every parser every message: none panics, and what one
// accepts lies within the message.
func FuzzParse(f *testing.F) {
	for _, m := range messages {
		f.Add([]byte(m.bytes))
	}
	for _, m := range readCapture(f) {
		f.Add(m)
	}
	for _, file := range captures(f) {
		for _, m := range captured(f, file) {
			f.Add(m)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		msg = slices.Clip(msg)
		_, _ = pgoutput.ParseBegin(msg)
		_, _ = pgoutput.ParseCommit(msg)
		if rel, err := pgoutput.ParseRelation(msg); err == nil && 10*len(rel.Columns) > len(msg) {
			t.Errorf("ParseRelation(%q) has %d columns, more than fit", msg, len(rel.Columns))
		}
		if tr, err := pgoutput.ParseTruncate(msg); err == nil && 4*len(tr.Relations)+6 != len(msg) {
			t.Errorf("ParseTruncate(%q) has %d relations", msg, len(tr.Relations))
		}
		given := []uint32{77}
		row, offsets, err := pgoutput.ParseRow(msg, given)
		if len(offsets) == 0 || offsets[0] != 77 {
			t.Errorf("ParseRow(%q) does not append: %v", msg, offsets)
		}
		if err != nil {
			return
		}
		if len(offsets) != 1+len(row.Old)+len(row.New) {
			t.Errorf("ParseRow(%q) appends %d offsets for %d and %d columns", msg, len(offsets)-1, len(row.Old), len(row.New))
		}
		if row.Relation != binary.BigEndian.Uint32(msg[1:]) {
			t.Errorf("ParseRow(%q) is of relation %d", msg, row.Relation)
		}
		checkOffsets(t, msg, row.New, checkOffsets(t, msg, row.Old, 9))
		if (msg[0] == pgoutput.TypeDelete) != (row.New == nil) || (msg[0] == pgoutput.TypeInsert && row.Old != nil) {
			t.Errorf("ParseRow(%q) has tuples %v and %v, which its type has not", msg, row.Old, row.New)
		}
	})
}
