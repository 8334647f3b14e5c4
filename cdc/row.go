package cdc

import (
	"encoding/binary"
	"slices"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
	"github.com/rowcall/rowcall/listeners"
)

// A relation is what the decoder knows of a table at one version of it.
type relation struct {
	schema *listeners.Schema
	types  []*pgvalue.Type // by column
	skip   bool            // published, but not asked for
	told   uint64          // its number among those received
	shaped []shapedColumn
	outbox *outbox // whose messages its rows are; nil for most
}

// A shapedColumn is one whose values tell when its type was altered.
type shapedColumn struct {
	index int
	stale bool // the last value did not fit, and a look-up has not helped
}

func newRelation(schema *listeners.Schema, described types) *relation {
	r := &relation{schema: schema, types: make([]*pgvalue.Type, len(schema.Columns))}
	for i := range schema.Columns {
		c := &schema.Columns[i]
		r.types[i] = described.of(c.TypeID)
		c.Type = r.types[i].Name()
		if r.types[i].Shaped() {
			r.shaped = append(r.shaped, shapedColumn{index: i})
		}
	}
	return r
}

// retyped returns the same version of the table with types looked up again.
// Records of r keep theirs.
func (r *relation) retyped(described types) *relation {
	fresh := &relation{schema: r.schema, told: r.told, types: make([]*pgvalue.Type, len(r.types)), shaped: slices.Clone(r.shaped)}
	for i, c := range r.schema.Columns {
		fresh.types[i] = described.of(c.TypeID)
	}
	return fresh
}

// A row is one tuple as it lies in the memory it was received into. It
// implements [listeners.Row] without copying: cols holds, for each column, the
// offset in data of the value's length and text, or pgoutput.Null or
// pgoutput.Unchanged.
type row struct {
	rel  *relation
	data []byte
	cols []uint32
}

func (r *row) Schema() *listeners.Schema { return r.rel.schema }

func (r *row) State(i int) listeners.State {
	switch r.cols[i] {
	case pgoutput.Unchanged:
		return listeners.Unchanged
	case pgoutput.Null:
		return listeners.Null
	}
	return listeners.Present
}

func (r *row) Text(i int) []byte {
	at := r.cols[i]
	if at <= pgoutput.Null {
		return nil
	}
	size := binary.BigEndian.Uint32(r.data[at:])
	return r.data[at+4 : at+4+size : at+4+size]
}

func (r *row) AppendJSON(dst []byte, i int) []byte {
	if r.cols[i] <= pgoutput.Null {
		return append(dst, "null"...)
	}
	return r.rel.types[i].AppendJSON(dst, r.Text(i))
}

func (r *row) Scan(i int, dst any) error {
	switch r.cols[i] {
	case pgoutput.Unchanged:
		return nil
	case pgoutput.Null:
		return r.rel.types[i].ScanNull(dst)
	}
	return r.rel.types[i].Scan(r.Text(i), dst)
}
