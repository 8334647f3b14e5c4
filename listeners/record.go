package listeners

import (
	"iter"
)

// State is one of the three states of a column.
type State uint8

const (
	// Unchanged means that the source did not send the column: an update left
	// a TOASTed value as it was, or only the key of the old row is known. It
	// never means null.
	Unchanged State = iota
	// Null is SQL's NULL.
	Null
	// Present means that the column has a value.
	Present
)

var stateNames = [...]string{"unchanged", "null", "present"}

// String returns the state's name.
func (s State) String() string { return name(stateNames[:], uint8(s), "State") }

// A Row is how a source hands out the columns of one record. Sources implement
// it; listeners use [Record]. All methods are pure reads, may be called from
// several goroutines, and take an index below len(Schema().Columns).
type Row interface {
	// Schema never returns nil.
	Schema() *Schema
	State(i int) State
	// Text returns the value's text as the source writes it; nil unless the
	// column is Present. The caller must not change it.
	Text(i int) []byte
	// AppendJSON appends the value as JSON, "null" unless it is Present.
	AppendJSON(dst []byte, i int) []byte
	// Scan stores a Null or Present value into dst, a pointer. What it stores
	// shares no memory that anybody may change, and it writes into none that
	// dst refers to: dst may be a shallow copy of an older value.
	Scan(i int, dst any) error
}

// Native is implemented by rows that hold a Go value already. It returns a
// pointer to it, which the caller must only read.
type Native interface{ Native() any }

// A Record is one version of a row: a small value that points to memory shared
// with other listeners. Columns are decoded when they are asked for. The zero
// Record is absent.
type Record struct{ row Row }

// NewRecord makes a record of a row.
func NewRecord(r Row) Record { return Record{row: r} }

// Exists reports whether there is a record at all.
func (r Record) Exists() bool { return r.row != nil }

// Row returns what the record was made of, nil if it is absent; for a source
// that wants its own rows back.
func (r Record) Row() Row { return r.row }

// Schema returns the schema the record was written with, nil if it is absent.
func (r Record) Schema() *Schema {
	if r.row == nil {
		return nil
	}
	return r.row.Schema()
}

// Get returns the column with this name. A column that does not exist, like
// every column of an absent record, is [Unchanged].
func (r Record) Get(column string) Value {
	if r.row == nil {
		return Value{}
	}
	i := r.row.Schema().Index(column)
	if i < 0 {
		return Value{}
	}
	return Value{row: r.row, i: i}
}

// At returns column i, in the order of the schema.
func (r Record) At(i int) Value { return Value{row: r.row, i: i} }

// All yields every column with its value.
func (r Record) All() iter.Seq2[*Column, Value] {
	return func(yield func(*Column, Value) bool) {
		if r.row == nil {
			return
		}
		columns := r.row.Schema().Columns
		for i := range columns {
			if !yield(&columns[i], Value{row: r.row, i: i}) {
				return
			}
		}
	}
}

// Unchanged returns the names of the columns that the source did not send, nil
// if it sent all.
func (r Record) Unchanged() []string {
	var names []string
	for c, v := range r.All() {
		if v.State() == Unchanged {
			names = append(names, c.Name)
		}
	}
	return names
}

// AppendJSON appends the record as a JSON object in column order, without its
// unchanged columns, or null if it is absent. For a Postgres row the object
// equals to_jsonb(row).
func (r Record) AppendJSON(dst []byte) []byte {
	if r.row == nil {
		return append(dst, "null"...)
	}
	columns := r.row.Schema().Columns
	dst = append(dst, '{')
	first := true
	for i := range columns {
		if r.row.State(i) == Unchanged {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = AppendJSONString(dst, columns[i].Name)
		dst = append(dst, ':')
		dst = r.row.AppendJSON(dst, i)
	}
	return append(dst, '}')
}

// MarshalJSON implements [encoding/json.Marshaler] with [Record.AppendJSON].
func (r Record) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil), nil }

// A Value is one column of a record, undecoded.
type Value struct {
	row Row
	i   int
}

// State returns the column's state.
func (v Value) State() State {
	if v.row == nil {
		return Unchanged
	}
	return v.row.State(v.i)
}

// IsNull reports whether the column is NULL. An unchanged column is not.
func (v Value) IsNull() bool { return v.State() == Null }

// Bytes returns the value's text as the source writes it, nil unless it is
// [Present]. The caller must not change it.
func (v Value) Bytes() []byte {
	if v.row == nil {
		return nil
	}
	return v.row.Text(v.i)
}

// String returns the value's text as the source writes it, "" unless it is
// [Present].
func (v Value) String() string { return string(v.Bytes()) }

// Scan stores the value into dst, a non-nil pointer. NULL needs a pointer to
// something that can be nil, or a [database/sql.Scanner]. An unchanged column
// leaves dst as it is.
func (v Value) Scan(dst any) error {
	if v.State() == Unchanged {
		return nil
	}
	return v.row.Scan(v.i, dst)
}

// MarshalJSON implements [encoding/json.Marshaler]. An unchanged column is an
// error, since JSON has no word for it.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.State() == Unchanged {
		return nil, errUnchangedJSON
	}
	return v.row.AppendJSON(nil, v.i), nil
}
