package listeners_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

type unsentType struct{}

// unsent is the value of a column that the source did not send.
var unsent unsentType

// A row is a [listeners.Row] of Go values; nil is NULL.
type row struct {
	schema *listeners.Schema
	values []any
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
	return fmt.Append([]byte{}, r.values[i])
}

func (r row) AppendJSON(dst []byte, i int) []byte {
	if r.State(i) != listeners.Present {
		return append(dst, "null"...)
	}
	text, err := json.Marshal(r.values[i])
	if err != nil {
		return fmt.Appendf(dst, "%q", err)
	}
	return append(dst, text...)
}

func (r row) Scan(i int, dst any) error {
	v := r.values[i]
	if s, ok := dst.(sql.Scanner); ok {
		return s.Scan(v)
	}
	target := reflect.ValueOf(dst).Elem()
	if v == nil {
		if target.Kind() != reflect.Pointer {
			return fmt.Errorf("column is NULL, use *%s", target.Type())
		}
		target.SetZero()
		return nil
	}
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.New(target.Type().Elem()))
		target = target.Elem()
	}
	from := reflect.ValueOf(v)
	if from.Kind() != target.Kind() && (!from.CanInt() || !target.CanInt()) {
		return fmt.Errorf("%T does not fit %s", v, target.Type())
	}
	target.Set(from.Convert(target.Type()))
	return nil
}

// A native row holds a Go value besides its columns.
type native struct {
	row
	value any
}

func (n native) Native() any { return n.value }

var (
	seats = listeners.NewSchema("shop", "public", "seats", []listeners.Column{
		{Name: "id", Type: "bigint", Key: true},
		{Name: "seat", Type: "text"},
		{Name: "price", Type: "integer"},
		{Name: "note", Type: "text"},
	})
	trains = listeners.NewSchema("shop", "public", "trains", []listeners.Column{{Name: "id", Type: "bigint", Key: true}})
	// A region has no namespace.
	prices = listeners.NewSchema("shop", "", "prices", []listeners.Column{{Name: "id", Key: true}, {Name: "value"}})
)

func record(s *listeners.Schema, values ...any) listeners.Record {
	return listeners.NewRecord(row{schema: s, values: values})
}

func seat(id int, values ...any) listeners.Record {
	return record(seats, append([]any{id}, values...)...)
}

func created(s *listeners.Schema, id int) listeners.Event {
	values := make([]any, len(s.Columns))
	values[0] = id
	return listeners.Event{Op: listeners.Create, Schema: s, After: record(s, values...)}
}

func at(commit uint64) listeners.Position { return listeners.Position{Epoch: 1, Commit: commit} }

// batch is a whole transaction of 1 byte.
func batch(commit uint64, events ...listeners.Event) *listeners.Batch {
	return part(commit, 0, true, true, events...)
}

// part is one batch of a transaction; its position has the index.
func part(commit uint64, index uint32, first, last bool, events ...listeners.Event) *listeners.Batch {
	p := at(commit)
	p.Index = index
	for i := range events {
		events[i].Position = p
	}
	return &listeners.Batch{
		Source: "shop", Tx: listeners.Tx{ID: commit, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
		Events: events, Position: p, First: first, Last: last, Size: 1,
	}
}

// marker is a step of a snapshot.
func marker(kind listeners.Kind, commit uint64, events ...listeners.Event) *listeners.Batch {
	b := batch(commit, events...)
	b.Kind = kind
	return b
}
