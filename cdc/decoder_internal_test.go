package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/listeners"
)

// What a column of a synthetic tuple is if it is no text.
const (
	colNull  = "\x00null"
	colToast = "\x00unchanged"
)

func msgBegin(commit uint64, xid uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'B'}, commit)
	b = binary.BigEndian.AppendUint64(b, uint64(pgoutput.Micros(txTime)))
	return binary.BigEndian.AppendUint32(b, xid)
}

var txTime = time.Date(2026, time.March, 4, 5, 6, 7, 8000, time.UTC)

func msgCommit(commit, end uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'C', 0}, commit)
	b = binary.BigEndian.AppendUint64(b, end)
	return binary.BigEndian.AppendUint64(b, uint64(pgoutput.Micros(txTime)))
}

// msgRelation describes a table of schema public. A column with a "*" is part
// of the replica identity; "v:123" is of the type with OID 123, others are text.
func msgRelation(id uint32, name string, identity byte, columns ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, id)
	b = append(b, "public\x00"+name+"\x00"...)
	b = append(b, identity)
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for _, c := range columns {
		name, key := strings.CutPrefix(c, "*")
		typ := uint64(25)
		if named, oid, ok := strings.Cut(name, ":"); ok {
			name = named
			typ, _ = strconv.ParseUint(oid, 10, 32)
		}
		b = append(b, 0)
		if key {
			b[len(b)-1] = 1
		}
		b = append(b, name+"\x00"...)
		b = binary.BigEndian.AppendUint32(b, uint32(typ))
		b = binary.BigEndian.AppendUint32(b, math.MaxUint32)
	}
	return b
}

func msgInsert(id uint32, values ...string) []byte {
	return appendTuple(binary.BigEndian.AppendUint32([]byte{'I'}, id), 'N', values)
}

func msgDelete(id uint32, kind byte, old ...string) []byte {
	return appendTuple(binary.BigEndian.AppendUint32([]byte{'D'}, id), kind, old)
}

// msgUpdate has an old tuple if kind is 'K' or 'O'.
func msgUpdate(id uint32, kind byte, old, values []string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'U'}, id)
	if kind != 'N' {
		b = appendTuple(b, kind, old)
	}
	return appendTuple(b, 'N', values)
}

func msgTruncate(ids ...uint32) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{'T'}, uint32(len(ids))), 0)
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

func appendTuple(b []byte, kind byte, values []string) []byte {
	b = binary.BigEndian.AppendUint16(append(b, kind), uint16(len(values)))
	for _, v := range values {
		switch v {
		case colNull:
			b = append(b, 'n')
		case colToast:
			b = append(b, 'u')
		default:
			b = append(binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(v))), v...)
		}
	}
	return b
}

// fataler is what testing.TB and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A decoding is a decoder with its neighbours: batches are what reached the
// feed. Tables whose name begins with "other" were not asked for.
type decoding struct {
	t       fataler
	batcher *batcher
	tracker tracker
	decoder *decoder
	batches []*listeners.Batch
	refuse  error               // of the feed
	keys    map[uint32][]string // primary keys
	keysErr error

	described types // the catalog's
	typesErr  error
	asked     [][]uint32 // for the types with these OIDs

	live map[uint32][]liveColumn // the catalog's
	lost []string                // warnings
}

func newDecoding(t fataler, maxBytes int) *decoding {
	d := &decoding{t: t}
	d.batcher = &batcher{
		source: "shop", epoch: 7, maxBytes: maxBytes,
		emit: func(_ context.Context, b *listeners.Batch) error {
			if d.refuse == nil {
				d.batches = append(d.batches, b)
			}
			return d.refuse
		},
	}
	d.connect()
	return d
}

// connect begins a new connection.
func (d *decoding) connect() {
	d.decoder = newDecoder(d.batcher, &d.tracker,
		func(_, table string) bool { return !strings.HasPrefix(table, "other") },
		d, newSpools(&config{Options: Options{MaxSpoolBytes: 1 << 20}}))
}

func (d *decoding) primaryKey(_ context.Context, relation uint32) ([]string, error) {
	return d.keys[relation], d.keysErr
}

func (d *decoding) types(_ context.Context, oids []uint32) (types, error) {
	d.asked = append(d.asked, oids)
	return d.described, d.typesErr
}

// try sends messages until one fails.
func (d *decoding) try(messages ...[]byte) error {
	for _, m := range messages {
		if err := d.decoder.message(context.Background(), 0xABC, m); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoding) send(messages ...[]byte) {
	d.t.Helper()
	for i, m := range messages {
		if err := d.try(m); err != nil {
			d.t.Fatalf("message %d, %q: %v", i, m, err)
		}
	}
}

// confirmed returns what may be confirmed once everything up to p is stored.
func (d *decoding) confirmed(p listeners.Position) LSN {
	_, confirmed := d.tracker.stored(p)
	return confirmed
}

var everything = listeners.Position{Epoch: math.MaxUint64}

// lines are the batches in a line each, and their events in a line each.
func (d *decoding) lines() []string {
	var out []string
	for _, b := range d.batches {
		part := "batch"
		if b.First {
			part += " first"
		}
		if b.Last {
			part += " last"
		}
		out = append(out, part)
		for i := range b.Events {
			out = append(out, eventLine(&b.Events[i]))
		}
	}
	return out
}

func eventLine(e *listeners.Event) string {
	line := fmt.Sprintf("%d.%d %s %s/%s", e.Position.Commit, e.Position.Index, e.Op, e.Schema.Collection(), e.Key())
	for _, r := range []struct {
		name   string
		record listeners.Record
	}{{"oldkey", e.OldKey}, {"before", e.Before}, {"after", e.After}} {
		if !r.record.Exists() {
			continue
		}
		line += fmt.Sprintf(" %s %s", r.name, r.record.AppendJSON(nil))
		if unchanged := r.record.Unchanged(); unchanged != nil {
			line += fmt.Sprintf(" without %v", unchanged)
		}
	}
	return line
}

func (d *decoding) expect(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.lines()); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

const whole = 1 << 20 // a batch size that no test here reaches

func TestATransactionIsOneBatch(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(msgBegin(100, 42), msgRelation(1, "seats", 'd', "*id", "no"), msgInsert(1, "1", "A1"), msgInsert(1, "2", colNull),
		msgRelation(2, "trains", 'd', "*id"), []byte("Y"), []byte("O"), msgInsert(2, "9"))
	d.expect(t)
	d.send(msgCommit(100, 108))
	d.expect(t, "batch first last",
		`100.1 create public.seats/1 after {"id":"1","no":"A1"}`,
		`100.2 create public.seats/2 after {"id":"2","no":null}`,
		`100.3 create public.trains/9 after {"id":"9"}`)

	b := d.batches[0]
	if b.Kind != listeners.Changes || b.Source != "shop" || b.Tx.ID != 42 || !b.Tx.Time.Equal(txTime) {
		t.Errorf("batch is %s of %q with %+v, want changes of shop in transaction 42 at %s", b.Kind, b.Source, b.Tx, txTime)
	}
	if want := (listeners.Position{Epoch: 7, Commit: 100, Index: 3}); b.Position != want || b.Events[2].Position != want {
		t.Errorf("batch is at %s and its last event at %s, want both at %s", b.Position, b.Events[2].Position, want)
	}
	if b.Events[0].Cause != listeners.CauseWrite || b.Size < 3*eventOverhead {
		t.Errorf("cause %s, size %d; want write and at least %d", b.Events[0].Cause, b.Size, 3*eventOverhead)
	}
	if s := b.Events[2].Schema; s.Source != "shop" || s.Columns[0].Type != "text" || s.Columns[0].TypeID != 25 {
		t.Errorf("schema %+v; want one of shop with a column of type text", s)
	}
}

func TestTuples(t *testing.T) {
	byKey := msgRelation(1, "t", 'd', "*id", "no", "*kind", "note")
	byRow := msgRelation(1, "t", 'f', "*id", "*no", "*kind", "*note")
	for name, tc := range map[string]struct {
		relation, message []byte
		want              string
	}{
		"insert": {
			byKey, msgInsert(1, "1", "a", "k", colNull),
			`100.1 create public.t/1/k after {"id":"1","no":"a","kind":"k","note":null}`,
		},
		"update without an old tuple": {
			byKey, msgUpdate(1, 'N', nil, []string{"1", colNull, "k", colToast}),
			`100.1 update public.t/1/k after {"id":"1","no":null,"kind":"k"} without [note]`,
		},
		"update of the key": {
			byKey, msgUpdate(1, 'K', []string{"1", colNull, "k", colNull}, []string{"2", "a", "k", colToast}),
			`100.1 update public.t/2/k oldkey {"id":"1","kind":"k"} without [no note] after {"id":"2","no":"a","kind":"k"} without [note]`,
		},
		"update that leaves a TOASTed key as it is": {
			byKey, msgUpdate(1, 'K', []string{"1", colNull, "long", colNull}, []string{"1", "b", colToast, colToast}),
			`100.1 update public.t/1/long oldkey {"id":"1","kind":"long"} without [no note] after {"id":"1","no":"b","kind":"long"} without [note]`,
		},
		"update with an old row": {
			byRow, msgUpdate(1, 'O', []string{"1", "a", colNull, "long"}, []string{"2", colNull, "k", colToast}),
			`100.1 update public.t/2/k before {"id":"1","no":"a","kind":null,"note":"long"} after {"id":"2","no":null,"kind":"k","note":"long"}`,
		},
		"update with an old row that lacks a value": {
			byRow, msgUpdate(1, 'O', []string{"1", "a", "k", colToast}, []string{"1", "b", "k", colToast}),
			`100.1 update public.t/1/k before {"id":"1","no":"a","kind":"k"} without [note] after {"id":"1","no":"b","kind":"k"} without [note]`,
		},
		"delete with an old key": {
			byKey, msgDelete(1, 'K', "1", colNull, "k", colNull),
			`100.1 delete public.t/1/k oldkey {"id":"1","kind":"k"} without [no note]`,
		},
		"delete with an old row": {
			byRow, msgDelete(1, 'O', "1", colNull, "k", "n"),
			`100.1 delete public.t/1/k before {"id":"1","no":null,"kind":"k","note":"n"}`,
		},
		"truncate": {byKey, msgTruncate(1), `100.1 truncate public.t/`},
		"a table without columns": {
			msgRelation(1, "t", 'f'), msgInsert(1), `100.1 create public.t/ after {}`,
		},
		"delete from a table without columns": {
			msgRelation(1, "t", 'f'), msgDelete(1, 'O'), `100.1 delete public.t/ before {}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, whole)
			d.keys = map[uint32][]string{1: {"id", "kind"}}
			d.send(msgBegin(100, 1), tc.relation, tc.message, msgCommit(100, 108))
			d.expect(t, "batch first last", tc.want)
		})
	}
}

func TestAnUntouchedToastedKeyIsNoChangeOfTheKey(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(msgBegin(100, 1), msgRelation(1, "t", 'd', "*name", "n"),
		msgUpdate(1, 'K', []string{"long", colNull}, []string{colToast, "2"}), msgCommit(100, 108))
	if key, changed := d.batches[0].Events[0].ChangedKey(); changed {
		t.Errorf("ChangedKey() = %s, want none", key)
	}
}

func TestKeysOfReplicaIdentities(t *testing.T) {
	for name, tc := range map[string]struct {
		identity byte
		want     string // key columns
	}{
		"default":   {'d', "[a]"},
		"index":     {'i', "[a]"},
		"full":      {'f', "[b c]"},
		"nothing":   {'n', "[b c]"},
		"full, -":   {'F', "[a]"}, // the server knows no such identity; the message's word counts
		"no answer": {'f', "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, whole)
			if name != "no answer" {
				d.keys = map[uint32][]string{5: {"c", "b"}}
			}
			d.send(msgRelation(5, "t", tc.identity, "*a", "b", "c"))
			got := []string{}
			for _, c := range d.decoder.relations[5].schema.Columns {
				if c.Key {
					got = append(got, c.Name)
				}
			}
			if fmt.Sprint(got) != tc.want {
				t.Errorf("key of a table with identity %q is %v, want %s", tc.identity, got, tc.want)
			}
		})
	}

	t.Run("no question about a table that nobody asked for", func(t *testing.T) {
		d := newDecoding(t, whole)
		d.keysErr = errors.New("no connection")
		d.send(msgRelation(5, "other", 'f', "*a"))
	})
	t.Run("no answer can be had", func(t *testing.T) {
		d := newDecoding(t, whole)
		d.keysErr = errors.New("no connection")
		err := d.try(msgRelation(5, "t", 'f', "*a"))
		var decode *DecodeError
		if !errors.Is(err, d.keysErr) || errors.As(err, &decode) {
			t.Errorf("message = %v, want %v, which is no DecodeError and may be tried again", err, d.keysErr)
		}
	})
}

func TestSkippedTablesCount(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(msgBegin(100, 1), msgRelation(1, "seats", 'd', "*id"), msgRelation(2, "other", 'd', "*id"),
		msgInsert(2, "1"), msgInsert(1, "2"), msgTruncate(2, 1, 2), msgDelete(1, 'K', "3"), msgInsert(2, "4"), msgCommit(100, 108))
	d.expect(t, "batch first last",
		`100.2 create public.seats/2 after {"id":"2"}`,
		`100.4 truncate public.seats/`,
		`100.6 delete public.seats/3 oldkey {"id":"3"}`)
	if got := d.confirmed(listeners.Position{Epoch: 7, Commit: 100, Index: 6}); got != 108 {
		t.Errorf("with the last event stored, %s may be confirmed, want 0/6C", got)
	}
}

func TestTransactionsWithoutEventsAreConfirmed(t *testing.T) {
	d := newDecoding(t, whole)
	none := listeners.Position{}
	d.send(msgBegin(100, 1), msgCommit(100, 108))
	if got := d.confirmed(none); got != 108 {
		t.Errorf("after an empty transaction %s may be confirmed, want 0/6C", got)
	}
	d.send(msgBegin(108, 2), msgRelation(2, "other", 'd', "*id"), msgInsert(2, "1"), msgCommit(108, 116))
	if got := d.confirmed(none); got != 116 {
		t.Errorf("after a transaction that nobody asked for %s may be confirmed, want 0/74", got)
	}
	d.send(msgBegin(116, 3), msgRelation(1, "seats", 'd', "*id"), msgInsert(1, "1"), msgCommit(116, 124),
		msgBegin(124, 4), msgCommit(124, 132))
	if got := d.confirmed(none); got != 116 {
		t.Errorf("with a transaction that is not stored %s may be confirmed, want 0/74", got)
	}
	if got := d.confirmed(d.batches[0].Position); got != 132 {
		t.Errorf("with that stored %s may be confirmed, want 0/84", got)
	}
	if len(d.batches) != 1 {
		t.Errorf("%d batches, want 1: empty transactions have none", len(d.batches))
	}
}

func TestBadMessagesAreDecodeErrors(t *testing.T) {
	relation := msgRelation(1, "seats", 'd', "*id", "no")
	open := [][]byte{msgBegin(100, 1), relation}
	for name, tc := range map[string]struct {
		before  [][]byte
		message []byte
	}{
		"empty":                               {open, nil},
		"unknown":                             {open, []byte("Z1234")},
		"logical message":                     {open, []byte("M\x00\x00\x00\x00\x00\x00\x00\x00\x01p\x00\x00\x00\x00\x00")},
		"row outside of a transaction":        {[][]byte{relation}, msgInsert(1, "1", "a")},
		"truncate outside of a transaction":   {[][]byte{relation}, msgTruncate(1)},
		"row after the commit":                {append(open, msgCommit(100, 108)), msgInsert(1, "1", "a")},
		"row of an unknown table":             {open, msgInsert(2, "1", "a")},
		"truncate of an unknown table":        {open, msgTruncate(2)},
		"row without a table":                 {open, []byte("I\x00")},
		"too few columns":                     {open, msgInsert(1, "1")},
		"too many columns":                    {open, msgInsert(1, "1", "a", "b")},
		"far too many columns":                {open, msgInsert(1, make([]string, 9000)...)},
		"too few columns of an old key":       {open, msgUpdate(1, 'K', []string{"1"}, []string{"1", "a"})},
		"too many columns of an old row":      {open, msgDelete(1, 'O', "1", "2", "3")},
		"no columns":                          {open, msgInsert(1)},
		"truncated row":                       {open, msgInsert(1, "1", "a")[:14]},
		"begin inside a transaction":          {open, msgBegin(108, 2)},
		"truncated begin":                     {nil, msgBegin(100, 1)[:10]},
		"commit of another transaction":       {open, msgCommit(108, 116)},
		"commit outside of a transaction":     {nil, msgCommit(100, 108)},
		"second commit":                       {append(open, msgCommit(100, 108)), msgCommit(100, 108)},
		"truncated commit":                    {open, msgCommit(100, 108)[:10]},
		"truncated relation":                  {open, relation[:20]},
		"truncated truncate":                  {open, msgTruncate(1)[:8]},
		"a type byte alone is no begin":       {nil, []byte("B")},
		"a type byte alone is no transaction": {open, []byte("C")},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, 1)
			d.send(tc.before...)
			err := d.try(tc.message)
			var decode *DecodeError
			if !errors.As(err, &decode) {
				t.Fatalf("message(%q) = %v, want a DecodeError", tc.message, err)
			}
			want := byte(0)
			if len(tc.message) > 0 {
				want = tc.message[0]
			}
			if decode.LSN != 0xABC || decode.Message != want || decode.Err == nil {
				t.Errorf("message(%q) = %+v, want LSN 0/ABC, message %q and a reason", tc.message, decode, want)
			}
			d.expect(t)
		})
	}
}

func TestTheFeedsErrorIsReturnedAsItIs(t *testing.T) {
	d := newDecoding(t, whole)
	d.refuse = errors.New("the feed is closed")
	d.send(msgBegin(100, 1), msgRelation(1, "seats", 'd', "*id"), msgInsert(1, "1"))
	if err := d.try(msgCommit(100, 108)); err != d.refuse { //nolint:errorlint // as it is
		t.Errorf("commit = %v, want %v", err, d.refuse)
	}
	if received, confirmed := d.tracker.stored(everything); received != 0 || confirmed != 0 {
		t.Errorf("received %s, confirmed %s of what the feed refused; want 0/0", received, confirmed)
	}
	d.refuse = nil
	d.connect()
	d.send(msgBegin(100, 1), msgRelation(1, "seats", 'd', "*id"), msgInsert(1, "1"), msgCommit(100, 108))
	d.expect(t, "batch first last", `100.1 create public.seats/1 after {"id":"1"}`)
}

func TestPositionsDoNotRepeat(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(msgBegin(100, 1), msgRelation(1, "seats", 'd', "*id"), msgRelation(2, "other", 'd', "*id"))
	d.decoder.seen = math.MaxUint32 - 2
	d.send(msgInsert(1, "1"), msgInsert(2, "2"), msgInsert(2, "3"), msgInsert(2, "4"))
	if err := d.try(msgInsert(1, "5")); !errors.Is(err, errTooManyEvents) || transient(err) {
		t.Errorf("event 4,294,967,298 = %v, want %v, which is not transient", err, errTooManyEvents)
	}
	d.send(msgCommit(100, 108))
	d.expect(t, "batch first last", `100.4294967294 create public.seats/1 after {"id":"1"}`)
}

func TestASchemaChangeLeavesEarlierRecordsAlone(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(msgBegin(100, 1), msgRelation(1, "seats", 'd', "*id"), msgInsert(1, "1"),
		msgRelation(1, "chairs", 'd', "*id", "no"), msgInsert(1, "2", "b"), msgCommit(100, 108))
	d.expect(t, "batch first last",
		`100.1 create public.seats/1 after {"id":"1"}`,
		`100.2 create public.chairs/2 after {"id":"2","no":"b"}`)
}

func TestTheSystemCatalogHasAName(t *testing.T) {
	d := newDecoding(t, whole)
	msg := msgRelation(1, "t", 'd', "*id")
	d.send([]byte(strings.Replace(string(msg), "public", "", 1)))
	if got := d.decoder.relations[1].schema.Collection(); got != "pg_catalog.t" {
		t.Errorf("collection is %q, want pg_catalog.t", got)
	}
}
