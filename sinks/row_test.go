package sinks_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// unsent marks a column that the source did not send.
const unsent = "\x00unsent"

// row is a listeners.Row of texts: nil is NULL, unsent is unchanged.
type row struct {
	schema *listeners.Schema
	values []any
}

func record(s *listeners.Schema, values ...any) listeners.Record {
	return listeners.NewRecord(row{schema: s, values: values})
}

func (r row) Schema() *listeners.Schema { return r.schema }

func (r row) State(i int) listeners.State {
	switch r.values[i] {
	case unsent:
		return listeners.Unchanged
	case nil:
		return listeners.Null
	}
	return listeners.Present
}

func (r row) Text(i int) []byte {
	if r.State(i) != listeners.Present {
		return nil
	}
	return fmt.Append(nil, r.values[i])
}

func (r row) AppendJSON(dst []byte, i int) []byte {
	b, err := json.Marshal(r.values[i])
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, b...)
}

func (r row) Scan(int, any) error { return fmt.Errorf("not used here") }

var (
	seats = listeners.NewSchema("shop", "public", "seats", []listeners.Column{
		{Name: "id", Type: "bigint", Key: true}, {Name: "seat", Type: "text"}, {Name: "notes", Type: "text"},
	})
	odd = listeners.NewSchema("Müller & Co", "my schema", "a/b%", []listeners.Column{
		{Name: "k", Key: true}, {Name: "l", Key: true}, {Name: "quoted \"name\""},
	})
	keyless = listeners.NewSchema("shop", "public", "log", []listeners.Column{{Name: "line"}})
	region  = listeners.NewSchema("trains", "", "seats", []listeners.Column{{Name: "id", Key: true}, {Name: "free"}})
)

var committed = time.Date(2026, 11, 23, 10, 30, 0, 123456789, time.FixedZone("", 3600))

func at(commit uint64, index uint32) listeners.Position {
	return listeners.Position{Epoch: 7, Commit: commit, Index: index}
}

// changes returns a transaction of these events, with positions.
func changes(source string, commit uint64, events ...listeners.Event) *listeners.Batch {
	for i := range events {
		events[i].Position = at(commit, uint32(i))
	}
	return &listeners.Batch{
		Kind: listeners.Changes, Source: source, Tx: listeners.Tx{ID: 4711, Time: committed},
		Events: events, Position: at(commit, uint32(max(len(events)-1, 0))), First: true, Last: true,
	}
}
