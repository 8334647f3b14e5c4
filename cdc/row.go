package cdc

import (
	"encoding/binary"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/cdc/internal/pgvalue"
	"github.com/rowcall/rowcall/listeners"
)

// A relation is what the decoder knows of a table at one version of it.
type relation struct {
	schema *listeners.Schema
	types  []*pgvalue.Type // by column
	skip   bool            // published, but not asked for
}

func newRelation(schema *listeners.Schema) *relation {
	r := &relation{schema: schema, types: make([]*pgvalue.Type, len(schema.Columns))}
	for i := range schema.Columns {
		c := &schema.Columns[i]
		r.types[i] = pgvalue.Of(c.TypeID)
		c.Type = r.types[i].Name()
	}
	return r
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
