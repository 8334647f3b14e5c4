package sinks

import "github.com/rowcall/rowcall/listeners"

// A jsonRow is a [listeners.Row] over the JSON of a message. Its values are
// parts of the message's body, decoded when they are asked for.
type jsonRow struct {
	schema *listeners.Schema
	values [][]byte // JSON; nil for unchanged
}

var _ listeners.Row = (*jsonRow)(nil)

// Schema implements [listeners.Row].
func (r *jsonRow) Schema() *listeners.Schema { return r.schema }

// State implements [listeners.Row].
func (r *jsonRow) State(i int) listeners.State {
	switch v := r.values[i]; {
	case v == nil:
		return listeners.Unchanged
	case isNull(v):
		return listeners.Null
	}
	return listeners.Present
}

// Text implements [listeners.Row]: what a JSON string says, and the JSON itself
// of everything else.
func (r *jsonRow) Text(i int) []byte {
	v := r.values[i]
	if v == nil || isNull(v) {
		return nil
	}
	return jsonText(v)
}

func jsonText(v []byte) []byte {
	if v[0] != '"' {
		return v
	}
	s, err := unquoteJSON(v)
	if err != nil {
		return v
	}
	return s
}

// AppendJSON implements [listeners.Row].
func (r *jsonRow) AppendJSON(dst []byte, i int) []byte {
	if r.values[i] == nil {
		return append(dst, "null"...)
	}
	return append(dst, r.values[i]...)
}

// Scan implements [listeners.Row].
func (r *jsonRow) Scan(i int, dst any) error {
	return scanJSON(r.values[i], dst, r.schema.Namespace == "")
}
