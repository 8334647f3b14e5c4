package sinks_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
)

// decode encodes the messages of batches and decodes them again.
func decode(t testing.TB, c *sinks.Encoder, d *sinks.Decoder, batches ...*listeners.Batch) []sinks.Part {
	t.Helper()
	var parts []sinks.Part
	for _, b := range batches {
		n := sinks.Len(b)
		if b.Kind == listeners.Live {
			n = 1
		}
		for i := range n {
			f := c.Encode(b, i)
			attributes := map[string]string{
				"id": f.ID, "source": f.Source, "sequence": f.Sequence, "time": f.Time, "txid": f.TxID, "cause": f.Cause,
			}
			if f.TxEnd {
				attributes["txend"] = "true"
			}
			p, err := d.Decode(f.Address, func(name string) string { return attributes[name] }, append([]byte(nil), f.Body...))
			if err != nil {
				t.Fatalf("Decode(%s, %s): %v", f.Address, f.Body, err)
			}
			parts = append(parts, p)
		}
	}
	return parts
}

// assemble returns what an assembler makes of parts.
func assemble(t testing.TB, a *sinks.Assembler, parts []sinks.Part) []listenertest.Batch {
	t.Helper()
	r := new(listenertest.Recorder)
	for i := range parts {
		if err := a.Add(&parts[i], func(b *listeners.Batch) error { return r.OnBatch(t.Context(), b) }); err != nil {
			t.Fatalf("Add: %v", err)
		}
	}
	return r.Batches()
}

func described(t testing.TB, batches ...*listeners.Batch) []listenertest.Batch {
	t.Helper()
	r := new(listenertest.Recorder)
	for _, b := range batches {
		if err := r.OnBatch(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	return r.Batches()
}

func TestDecodedEventsAreThoseThatWereEncoded(t *testing.T) {
	full := changes("shop", 3,
		listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 7, "12A", nil)},
		listeners.Event{Op: listeners.Update, Schema: seats, After: record(seats, 7, "12\"B\n", unsent), OldKey: record(seats, 6, unsent, unsent)},
		listeners.Event{Op: listeners.Update, Schema: seats, Before: record(seats, 7, "ü", "x"), After: record(seats, 7, "12C", "")},
		listeners.Event{Op: listeners.Update, Schema: seats, Before: record(seats, 7, "ü", "x"), After: record(seats, 8, "12C", unsent)},
		listeners.Event{Op: listeners.Delete, Schema: seats, OldKey: record(seats, 7, unsent, unsent)},
		listeners.Event{Op: listeners.Delete, Schema: seats, Before: record(seats, 9, "a", "b")},
		listeners.Event{Op: listeners.Truncate, Schema: seats},
		listeners.Event{Op: listeners.Create, Schema: odd, After: record(odd, "a/b", "ü%", nil)},
		listeners.Event{Op: listeners.Create, Schema: keyless, After: record(keyless, "line")},
		listeners.Event{Op: listeners.Delete, Cause: listeners.CauseExpire, Schema: seats, Before: record(seats, 1, nil, nil)},
	)
	full.Tx.Time = full.Tx.Time.Truncate(time.Microsecond).UTC() // as much as the wire has
	full.Events[7].Schema = odd
	d := sinks.NewDecoder()
	for range 2 { // with known schemas, too
		got := assemble(t, new(sinks.Assembler), decode(t, sinks.NewEncoder(4), d, full))
		if diff := cmp.Diff(described(t, full), got); diff != "" {
			t.Errorf("batches (-encoded +decoded):\n%s", diff)
		}
	}
}

func TestSchemaIsTheSameForTheSameColumns(t *testing.T) {
	wide := listeners.NewSchema("shop", "public", "seats", []listeners.Column{
		{Name: "id", Key: true}, {Name: "seat"}, {Name: "notes"}, {Name: "price"},
	})
	b := changes("shop", 3,
		listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 7, "12A", nil)},
		listeners.Event{Op: listeners.Update, Schema: seats, After: record(seats, 7, unsent, "x")},
		listeners.Event{Op: listeners.Delete, Schema: seats, OldKey: record(seats, 7, unsent, unsent)},
		listeners.Event{Op: listeners.Create, Schema: wide, After: record(wide, 7, "12A", nil, 5)},
	)
	parts := decode(t, sinks.NewEncoder(4), sinks.NewDecoder(), b)
	first := parts[0].Event.Schema
	if first.Source != "shop" || first.Namespace != "public" || first.Name != "seats" || len(first.Key()) != 1 {
		t.Errorf("schema = %+v", first)
	}
	for i, p := range parts[:3] {
		if p.Event.Schema != first {
			t.Errorf("event %d has a schema of its own, %+v", i, p.Event.Schema)
		}
	}
	if s := parts[3].Event.Schema; s == first || len(s.Columns) != 4 {
		t.Errorf("the schema with another column = %+v", s)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const at = "0000000000000007-000000000000002a-00000000"
	for name, tc := range map[string]struct{ address, source, sequence, body string }{
		"sequence":     {"cdc.shop.public.seats.create.001", "postgres/shop", "7", `{"op":"create","key":{},"after":{}}`},
		"source":       {"cdc.shop.public.seats.create.001", "shop", at, `{"op":"create","key":{},"after":{}}`},
		"address":      {"hello", "postgres/shop", at, `{"op":"create","key":{},"after":{"a":1}}`},
		"operation":    {"cdc.shop.public.seats.create.001", "postgres/shop", at, `{"op":"shout","key":{},"after":{"a":1}}`},
		"cut body":     {"cdc.shop.public.seats.create.001", "postgres/shop", at, `{"op":"create","key":{},"after":{"a":1`},
		"more behind":  {"cdc.shop.public.seats.create.001", "postgres/shop", at, `{"op":"create"}}`},
		"no object":    {"cdc.shop.public.seats.create.001", "postgres/shop", at, `7`},
		"after a list": {"cdc.shop.public.seats.create.001", "postgres/shop", at, `{"op":"create","key":{},"after":[1]}`},
		"nothing":      {"cdc.shop.public.seats.create.001", "postgres/shop", at, ``},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := sinks.NewDecoder().Decode(tc.address, func(a string) string {
				return map[string]string{"source": tc.source, "sequence": tc.sequence}[a]
			}, []byte(tc.body))
			if err == nil {
				t.Errorf("Decode(%s, %s) = %+v, want an error", tc.address, tc.body, p)
			}
		})
	}
}

type money int64

// scanned is a place for whatever comes.
type scanned struct{ got any }

func (s *scanned) Scan(v any) error {
	s.got = v
	return nil
}

func TestScanOfJSON(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 30, 0, 123456000, time.UTC)
	uuid := [16]byte{0x12, 0x34, 0x56, 0x78, 0x90, 0xab, 0xcd, 0xef, 0x12, 0x34, 0x56, 0x78, 0x90, 0xab, 0xcd, 0xef}
	for name, tc := range map[string]struct {
		json string
		want any // of which dst has the type
	}{
		"int":                {`7`, 7},
		"int of a numeric":   {`7.00`, 7},
		"int of an exponent": {`1e3`, int32(1000)},
		"int of a string":    {`"7"`, int16(7)},
		"largest int":        {`9223372036854775807`, int64(math.MaxInt64)},
		"unsigned":           {`18446744073709551615`, uint64(math.MaxUint64)},
		"named":              {`-5`, money(-5)},
		"float":              {`1.5e300`, 1.5e300},
		"not a number":       {`"Infinity"`, math.Inf(1)},
		"small float":        {`0.5`, float32(0.5)},
		"bool":               {`true`, true},
		"string":             {`"a\"\u00fc\n"`, "a\"ü\n"},
		"numeric as string":  {`12345678901234567890.0100`, "12345678901234567890.0100"},
		"document as string": {`{"a": [1, "}"]}`, `{"a": [1, "}"]}`},
		"bytea":              {`"\\x00ff"`, []byte{0, 0xff}},
		"text as bytes":      {`"abcd"`, []byte("abcd")},
		"timestamptz":        {`"2026-11-23T09:30:00.123456+00:00"`, at},
		"timestamp":          {`"2026-11-23T09:30:00.123456"`, at},
		"date":               {`"2026-11-23"`, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)},
		"before Christ":      {`"0044-03-15 BC"`, time.Date(-43, 3, 15, 0, 0, 0, 0, time.UTC)},
		"uuid":               {`"12345678-90ab-cdef-1234-567890abcdef"`, uuid},
		"array":              {`[1, 2]`, []int{1, 2}},
		"map":                {`{"a": 1}`, map[string]int{"a": 1}},
		"pointer":            {`"x"`, new("x")},
		"null pointer":       {`null`, (*int)(nil)},
		"null list":          {`null`, []int(nil)},
		"sql.Null":           {`7`, sql.Null[int64]{V: 7, Valid: true}},
		"sql null":           {`null`, sql.NullString{}},
		"sql time":           {`"2026-11-23T09:30:00.123456+00:00"`, sql.NullTime{Time: at, Valid: true}},
		"scanner":            {`12.50`, scanned{"12.50"}},
		"scanner of bytea":   {`"\\x01"`, scanned{[]byte{1}}},
		"raw":                {`{"a" : 1}`, json.RawMessage(`{"a" : 1}`)},
		"text unmarshaler":   {`"0000000000000007-000000000000002a-00000000"`, listeners.Position{Epoch: 7, Commit: 42}},
	} {
		t.Run(name, func(t *testing.T) {
			v := column(t, "cdc.shop.public.t.create.000", "postgres/shop", tc.json)
			if err := scanAs(v, tc.want); err != nil {
				t.Error(err)
			}
		})
	}
	for name, tc := range map[string]struct {
		json string
		dst  any
	}{
		"null":              {`null`, new(int)},
		"fraction":          {`7.5`, new(int)},
		"too large":         {`300`, new(int8)},
		"negative":          {`-1`, new(uint)},
		"word for a number": {`"seven"`, new(int)},
		"number for a bool": {`1`, new(bool)},
		"infinite time":     {`"infinity"`, new(time.Time)},
		"short uuid":        {`"1234"`, new([16]byte)},
		"list for a struct": {`[1]`, new(struct{ A int })},
		"no pointer":        {`1`, 1},
	} {
		t.Run("not "+name, func(t *testing.T) {
			if err := column(t, "cdc.shop.public.t.create.000", "postgres/shop", tc.json).Scan(tc.dst); err == nil {
				t.Errorf("Scan of %s into %T = nil, want an error", tc.json, tc.dst)
			}
		})
	}
	t.Run("bytes of a region", func(t *testing.T) {
		v := column(t, "grid.trains.t.create.000", "grid/trains", `"AP9ceA=="`)
		if err := scanAs(v, []byte{0, 0xff, '\\', 'x'}); err != nil {
			t.Error(err)
		}
	})
}

func column(t testing.TB, address, source, value string) listeners.Value {
	t.Helper()
	p, err := sinks.NewDecoder().Decode(address, func(a string) string {
		return map[string]string{"source": source, "sequence": at(1, 0).String()}[a]
	}, []byte(`{"op":"create","key":{},"before":null,"after":{"v":`+value+`}}`))
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	return p.Event.After.Get("v")
}

// scanAs scans into a variable of want's type.
func scanAs(v listeners.Value, want any) error {
	dst := reflect.New(reflect.TypeOf(want))
	if err := v.Scan(dst.Interface()); err != nil {
		return fmt.Errorf("scan of %s into %T: %w", v, want, err)
	}
	if got := dst.Elem().Interface(); !cmp.Equal(got, want, cmp.AllowUnexported(scanned{})) {
		return fmt.Errorf("scan of %s into %T = %v, want %v", v, want, got, want)
	}
	return nil
}

// A second record of the same shape costs the event's own memory and no maps.
func TestDecodeAllocatesLittle(t *testing.T) {
	b := changes("shop", 3, listeners.Event{Op: listeners.Create, Schema: seats, After: record(seats, 7, "12A", nil)})
	f := sinks.NewEncoder(4).Encode(b, 0)
	d := sinks.NewDecoder()
	attribute := func(name string) string {
		switch name {
		case "source":
			return f.Source
		case "sequence":
			return f.Sequence
		case "txid":
			return f.TxID
		case "time":
			return f.Time
		}
		return ""
	}
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := d.Decode(f.Address, attribute, f.Body); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 8 {
		t.Errorf("Decode of a known shape makes %.0f allocations, want 8 at most", allocs)
	}
}
