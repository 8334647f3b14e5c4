package expression_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/expression"
)

var seats = listeners.NewSchema("shop", "public", "seats", []listeners.Column{
	{Name: "id", Type: "bigint", Key: true}, {Name: "price", Type: "numeric(10,2)"}, {Name: "buyer", Type: "text"}, {Name: "notes", Type: "text"},
})

// row holds texts; nil is NULL, and "…" was not sent.
type row []any

func (r row) Schema() *listeners.Schema { return seats }

func (r row) State(i int) listeners.State {
	switch r[i] {
	case nil:
		return listeners.Null
	case "…":
		return listeners.Unchanged
	}
	return listeners.Present
}

func (r row) Text(i int) []byte { return fmt.Append(nil, r[i]) }

func (r row) AppendJSON(dst []byte, i int) []byte {
	text, err := json.Marshal(r[i])
	if err != nil {
		panic(err)
	}
	return append(dst, text...)
}

func (r row) Scan(i int, dst any) error {
	out, ok := dst.(*any)
	if !ok {
		return errors.New("not used here")
	}
	if *out = r[i]; i == 0 {
		*out = int64(r[i].(int))
	}
	return nil
}

func record(values ...any) listeners.Record { return listeners.NewRecord(row(values)) }

func event(op listeners.Op, before, after listeners.Record) *listeners.Event {
	return &listeners.Event{Op: op, Schema: seats, Position: listeners.Position{Epoch: 1, Commit: 2}, Before: before, After: after}
}

var (
	none    listeners.Record
	created = event(listeners.Create, none, record(9007199254740993, "30.50", nil, "by the window"))
	updated = event(listeners.Update, none, record(7, "30", "Ann", "…"))
	whole   = event(listeners.Update, record(7, "30", nil, "x"), record(7, "30", "Ann", "x"))
	deleted = event(listeners.Delete, record(7, "30", nil, "x"), none)
)

func TestMatch(t *testing.T) {
	tx := listeners.Tx{ID: 42, Tag: "import", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for text, tc := range map[string]struct {
		event *listeners.Event
		want  bool
	}{
		`op == "create"`:                                  {created, true},
		`op in ["update", "delete"]`:                      {created, false},
		`collection == "public.seats" && cause=="write"`:  {created, true},
		`key.id == 9007199254740993`:                      {created, true},
		`key.id == 9007199254740992`:                      {created, false},
		`after["id"] > 5`:                                 {updated, true},
		`after.price > 30`:                                {created, true},
		`after.price > 30 `:                               {updated, false},
		`after.price == 30`:                               {updated, true},
		`after.buyer == nil`:                              {created, true},
		`after.buyer startsWith "A"`:                      {updated, true},
		`before.price == nil`:                             {created, true},
		`before.buyer == nil and after.buyer == "Ann"`:    {whole, true},
		`after.notes == nil and unchanged("notes")`:       {updated, true},
		`unchanged("notes")`:                              {whole, false},
		`changed("notes")`:                                {updated, false},
		`changed("buyer")`:                                {updated, true},
		`changed("id")`:                                   {updated, false},
		`changed("price")`:                                {whole, false},
		`changed("buyer") `:                               {whole, true},
		`changed("buyer")  `:                              {deleted, true},
		`op == "delete" and before.price >= 30`:           {deleted, true},
		`key.id == 7`:                                     {deleted, true},
		`txid == 42 and tag == "import"`:                  {created, true},
		`time.Year() == 2026`:                             {created, true},
		`collection != "public.seats" and after.size > 1`: {created, false},
		"op == \"create\" and\n  after.price < 31":        {created, true},
	} {
		t.Run(text, func(t *testing.T) {
			f, err := expression.Compile(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := f.Match(tc.event, tx); err != nil || got != tc.want {
				t.Errorf("Match(%s) = %t, %v; want %t", tc.event.Op, got, err, tc.want)
			}
		})
	}
}

func TestWhatIsWrongIsToldWithItsPlace(t *testing.T) {
	for text, want := range map[string]struct {
		line, column int
		message      string
	}{
		`op = "create"`:                     {1, 4, "unexpected token"},
		`ops == "create"`:                   {1, 1, "unknown name ops"},
		"op == \"create\" and\n  colection": {2, 3, "unknown name colection"},
		`txid == "7"`:                       {1, 6, "mismatched types"},
		`changed(7)`:                        {1, 9, "cannot use"},
		``:                                  {1, 1, "unexpected"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := expression.Compile(text)
			wrong, ok := errors.AsType[*expression.SyntaxError](err)
			if !ok || wrong.Line != want.line || wrong.Column != want.column || !strings.Contains(wrong.Message, want.message) {
				t.Errorf("Compile() = %v, want line %d, column %d: %s", err, want.line, want.column, want.message)
			}
		})
	}
}

func TestWhatOnlyAnEventShowsIsAnError(t *testing.T) {
	for text, want := range map[string]string{
		`after.prize > 3`:      `public.seats has no column "prize", but id, price, buyer, notes`,
		`after.buyer`:          "column 1: invalid operation: bool(string)",
		`key.price > 3`:        `the column "price" is not in the key`,
		`after.buyer > 3`:      "column 13: ",
		`changed("prize")`:     `no column "prize"`,
		`unchanged("prize")`:   `no column "prize"`,
		`after.buyer + 1 == 2`: "column 13: ",
	} {
		t.Run(text, func(t *testing.T) {
			f, err := expression.Compile(text)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Match(updated, listeners.Tx{})
			if wrong, ok := errors.AsType[*expression.MatchError](err); !ok || wrong.Collection != "public.seats" || !strings.Contains(err.Error(), want) {
				t.Errorf("Match() = %v, want a MatchError with %q", err, want)
			}
		})
	}
}

func TestAnErrorEndsTheSubscription(t *testing.T) {
	f, err := expression.Compile("after.prize > 3")
	if err != nil {
		t.Fatal(err)
	}
	feed := listeners.NewFeed(nil)
	heard := listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
		t.Error("the listener was called")
		return nil
	})
	sub, err := feed.Subscribe("s", heard, &listeners.SubscribeOptions{Filter: f.Keep}, nil)
	if err != nil {
		t.Fatal(err)
	}
	feed.Append(&listeners.Batch{Kind: listeners.Changes, Events: []listeners.Event{*created}, Position: created.Position, First: true, Last: true})
	<-sub.Done()
	if sub.Err() == nil || !strings.Contains(sub.Err().Error(), `no column "prize"`) {
		t.Errorf("Err() = %v, want the expression's", sub.Err())
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, text := range []string{`op == "update"`, `after.price > 3`, `collection == "public.seats" and changed("buyer")`} {
		b.Run(text, func(b *testing.B) {
			f, err := expression.Compile(text)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.Match(whole, listeners.Tx{}); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
