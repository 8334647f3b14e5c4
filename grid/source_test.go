package grid_test

import (
	"context"
	"database/sql"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A table is a source whose batches the test makes by hand, as a reader of a
// database would.
type table struct {
	feed   *listeners.Feed
	schema *listeners.Schema
	// state is what the table holds at the snapshot that a subscription with
	// Current gets, each row as row takes it.
	state []string
	at    listeners.Position
}

// newTable returns a source of one table. Names of key columns begin with "*".
func newTable(name string, columns ...string) *table {
	t := &table{feed: listeners.NewFeed(nil), at: listeners.Position{Epoch: 5, Commit: 100}}
	t.schema = newSchema(name, columns...)
	return t
}

func newSchema(name string, columns ...string) *listeners.Schema {
	list := make([]listeners.Column, len(columns))
	for i, c := range columns {
		list[i] = listeners.Column{Name: strings.TrimPrefix(c, "*"), Type: "text", Key: strings.HasPrefix(c, "*")}
	}
	return listeners.NewSchema("shop", "public", name, list)
}

func (t *table) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	var join listeners.Join
	if opts != nil && opts.Current {
		at, state := t.at, t.snapshot()
		join = func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			for _, b := range state {
				if err := emit(b); err != nil {
					return listeners.Position{}, err
				}
			}
			return at, nil
		}
	}
	return t.feed.Subscribe(name, l, opts, join)
}

// snapshot returns the state as Reset, one batch for each row, and Live.
func (t *table) snapshot() []*listeners.Batch {
	all := []*listeners.Batch{{Kind: listeners.Reset, Position: t.at, First: true, Last: true}}
	for i, r := range t.state {
		all = append(all, &listeners.Batch{
			Kind: listeners.Snapshot, Position: t.at, First: i == 0, Last: i == len(t.state)-1,
			Events: []listeners.Event{t.event(listeners.Read, "", "", r)},
		})
	}
	return append(all, &listeners.Batch{Kind: listeners.Live, Position: t.at, First: true, Last: true})
}

// commit sends one transaction and returns it.
func (t *table) commit(events ...listeners.Event) *listeners.Batch {
	t.at.Commit++
	t.at.Index = 0
	return t.part(true, true, events...)
}

// part sends one part of a transaction.
func (t *table) part(first, last bool, events ...listeners.Event) *listeners.Batch {
	for i := range events {
		events[i].Position = t.at
		t.at.Index++
	}
	b := &listeners.Batch{
		Kind: listeners.Changes, Source: "shop", Events: events, First: first, Last: last, Position: events[len(events)-1].Position,
		Tx: listeners.Tx{ID: 7000 + t.at.Commit, Time: time.Unix(int64(t.at.Commit), 0).UTC()},
	}
	t.feed.Append(b)
	return b
}

// event returns an event with records as row takes them; "" is absent.
func (t *table) event(op listeners.Op, before, oldKey, after string) listeners.Event {
	e := listeners.Event{Op: op, Schema: t.schema, Position: t.at}
	if op == listeners.Read {
		e.Cause = listeners.CauseSnapshot
	}
	e.Before, e.OldKey, e.After = t.row(before), t.row(oldKey), t.row(after)
	return e
}

// row makes a record of values joined by "|"; "?" is unchanged, "-" null.
func (t *table) row(s string) listeners.Record {
	if s == "" {
		return listeners.Record{}
	}
	return listeners.NewRecord(&row{t.schema, strings.Split(s, "|")})
}

type row struct {
	schema *listeners.Schema
	values []string
}

func (r *row) Schema() *listeners.Schema { return r.schema }

func (r *row) State(i int) listeners.State {
	switch r.values[i] {
	case "?":
		return listeners.Unchanged
	case "-":
		return listeners.Null
	}
	return listeners.Present
}

func (r *row) Text(i int) []byte {
	if r.State(i) != listeners.Present {
		return nil
	}
	return []byte(r.values[i])
}

func (r *row) AppendJSON(dst []byte, i int) []byte {
	if r.State(i) != listeners.Present {
		return append(dst, "null"...)
	}
	text, err := json.Marshal(r.values[i])
	if err != nil {
		panic(err)
	}
	return append(dst, text...)
}

func (r *row) Scan(i int, dst any) error {
	if s, ok := dst.(sql.Scanner); ok {
		if r.State(i) == listeners.Null {
			return s.Scan(nil)
		}
		return s.Scan(r.values[i])
	}
	d := reflect.ValueOf(dst).Elem()
	switch {
	case r.State(i) == listeners.Null:
		return fmt.Errorf("null into %T", dst)
	case reflect.PointerTo(d.Type()).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return d.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(r.values[i])) //nolint:forcetypeassert // it does
	case d.Kind() == reflect.String:
		d.SetString(r.values[i])
		return nil
	case d.CanInt():
		n, err := strconv.ParseInt(r.values[i], 10, 64)
		d.SetInt(n)
		return err
	}
	return fmt.Errorf("unknown type %T", dst)
}
