package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// exact decodes JSON without rounding numbers. Nothing gives nil, and what is
// no JSON gives an error, which equals nothing.
func exact(text []byte) any {
	if len(text) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("decode %s: %w", text, err)
	}
	return v
}

// readStream returns all messages of the firehose of a database.
func readStream(t *testing.T, nc *nats.Conn, database string) []sinks.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var messages []sinks.Message
	for m, err := range jetstream.Read(ctx, nc, jetstream.StreamName(database), nil) {
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m.Message)
	}
	return messages
}

// compare returns an error unless the messages hold every committed change
// exactly once, per key in commit order, and what was there before in their
// last snapshot.
//
// A transaction is either in the snapshot or streamed after it. So those whose
// changes are in the stream must equal their part of the ledger, change by
// change, and all others together must make exactly the snapshot's rows.
func compare(messages []sinks.Message, ledger []entry) error {
	s, err := sift(messages)
	if err != nil {
		return err
	}
	before := make(map[string]any) // what the snapshot has to be
	streamed := make(map[uint64][]entry)
	for _, e := range ledger {
		if _, found := s.changes[e.xid]; found {
			streamed[e.xid] = append(streamed[e.xid], e)
			continue
		}
		if e.lsn > s.at {
			return fmt.Errorf("transaction %d is not in the stream, although it was made after the snapshot: %+v", e.xid, e)
		}
		if err := e.apply(before); err != nil {
			return fmt.Errorf("transactions outside the stream do not fit together: %w", err)
		}
	}
	if !reflect.DeepEqual(before, s.snapshot) {
		return fmt.Errorf("the snapshot is not what the transactions outside the stream left (-ledger +snapshot):\n%.4000s",
			cmp.Diff(before, s.snapshot))
	}
	latest := make(map[string]int64) // ledger number of the last change, by table and key
	for _, xid := range s.order {
		got, want := s.changes[xid], streamed[xid]
		if len(got) != len(want) {
			return fmt.Errorf("transaction %d has %d changes in the stream, %d in the ledger", xid, len(got), len(want))
		}
		for i, e := range want {
			if err := e.differs(&got[i]); err != nil {
				return fmt.Errorf("transaction %d, change %d: %w\nstream: %+v\nledger: %+v", xid, i, err, got[i], e)
			}
			if got[i].TxEnd != (i == len(want)-1) {
				return fmt.Errorf("transaction %d, change %d of %d: txend = %t", xid, i+1, len(want), got[i].TxEnd)
			}
			for _, key := range []any{e.oldKey, e.newKey} {
				if key == nil {
					continue
				}
				if name := e.name(key); latest[name] > e.seq {
					return fmt.Errorf("%s: change %d of the ledger is in the stream after change %d", name, e.seq, latest[name])
				}
				latest[e.name(key)] = e.seq
			}
		}
	}
	return nil
}

// A sifted stream: the rows of its last snapshot by table and key, the LSN
// where it was taken, and the changes after it by transaction.
type sifted struct {
	snapshot map[string]any
	at       uint64
	changes  map[uint64][]sinks.Message
	order    []uint64 // of the transactions
}

func sift(messages []sinks.Message) (*sifted, error) {
	s := &sifted{snapshot: make(map[string]any), changes: make(map[uint64][]sinks.Message)}
	var last listeners.Position
	for i, m := range messages {
		if m.Position.Compare(last) <= 0 {
			return nil, fmt.Errorf("message %d has position %s, not above %s before it", i, m.Position, last)
		}
		last = m.Position
		switch {
		case m.Reset:
			s.begin(m.Collections)
		case m.Op == listeners.Read:
			if before := messages[max(0, i-1)]; !before.Reset && before.Op != listeners.Read || before.Position.Commit != m.Position.Commit {
				return nil, fmt.Errorf("message %d is of a snapshot, without a reset before it", i)
			}
			name := m.Collection + " " + string(m.Key)
			if _, twice := s.snapshot[name]; twice {
				return nil, fmt.Errorf("message %d: %s is in the snapshot twice", i, name)
			}
			s.snapshot[name] = exact(m.After)
			s.at = m.Position.Commit + 1
		default:
			if !slices.Contains(s.order[max(0, len(s.order)-1):], m.TxID) {
				if _, seen := s.changes[m.TxID]; seen {
					return nil, fmt.Errorf("message %d: transaction %d comes in two pieces, or twice", i, m.TxID)
				}
				s.order = append(s.order, m.TxID)
			}
			s.changes[m.TxID] = append(s.changes[m.TxID], m)
		}
	}
	return s, nil
}

// begin takes a Reset. Changes before it are those of tables that an interrupted
// snapshot had stored; what they come to is part of the snapshot.
func (s *sifted) begin(collections []string) {
	for _, xid := range s.order {
		for i := range s.changes[xid] {
			m := &s.changes[xid][i]
			name := m.Collection + " " + string(m.Key)
			old, _ := s.snapshot[name].(map[string]any)
			if m.OldKey != nil {
				was := m.Collection + " " + string(m.OldKey)
				old, _ = s.snapshot[was].(map[string]any)
				delete(s.snapshot, was)
			}
			row, exists := exact(m.After).(map[string]any)
			if !exists {
				delete(s.snapshot, name)
				continue
			}
			for _, column := range m.Unchanged {
				row[column] = old[column]
			}
			s.snapshot[name] = row
		}
	}
	s.order = nil
	clear(s.changes)
	if collections == nil {
		clear(s.snapshot)
	}
	for _, c := range collections {
		maps.DeleteFunc(s.snapshot, func(name string, _ any) bool { return strings.HasPrefix(name, c+" ") })
	}
}

// An entry is one row of the ledger. Its JSON is decoded with exact numbers.
type entry struct {
	seq            int64
	lsn            uint64 // of the log's end when the change was made, so before its commit
	xid            uint64
	table, op      string
	oldKey, newKey any
	oldRow, newRow any
}

// name identifies a row, as a stream's key does.
func (e *entry) name(key any) string {
	var text bytes.Buffer
	text.WriteString(e.table + " ")
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(key); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(text.String())
}

// apply makes the change in a map of rows by name.
func (e *entry) apply(rows map[string]any) error {
	var old any
	if e.oldKey != nil {
		old = rows[e.name(e.oldKey)]
		delete(rows, e.name(e.oldKey))
	}
	if !reflect.DeepEqual(old, e.oldRow) {
		return fmt.Errorf("change %d found %v, not %v", e.seq, e.oldRow, old)
	}
	if e.newKey != nil {
		rows[e.name(e.newKey)] = e.newRow
	}
	return nil
}

// differs says what of a message is not as the ledger has it.
func (e *entry) differs(m *sinks.Message) error {
	if m.Collection != e.table || m.Op.String() != e.op {
		return fmt.Errorf("it is %s of %s, want %s of %s", m.Op, m.Collection, e.op, e.table)
	}
	key, oldKey := e.newKey, any(nil)
	switch {
	case e.newKey == nil:
		key = e.oldKey
	case e.oldKey != nil && !reflect.DeepEqual(e.oldKey, e.newKey):
		oldKey = e.oldKey
	}
	after := e.newRow
	if len(m.Unchanged) > 0 {
		sent := make(map[string]any)
		old, _ := e.oldRow.(map[string]any)
		row, _ := after.(map[string]any)
		for column, value := range row {
			if !slices.Contains(m.Unchanged, column) {
				sent[column] = value
			} else if !reflect.DeepEqual(old[column], value) {
				return fmt.Errorf("column %s is not unchanged", column)
			}
		}
		after = sent
	}
	before := any(nil)
	if e.table == "public.whole" { // REPLICA IDENTITY FULL
		before = e.oldRow
	}
	for _, part := range []struct {
		name      string
		got, want any
	}{
		{"key", exact(m.Key), key},
		{"oldkey", exact(m.OldKey), oldKey},
		{"before", exact(m.Before), before},
		{"after", exact(m.After), after},
	} {
		if !reflect.DeepEqual(part.got, part.want) {
			return fmt.Errorf("%s differs (-ledger +stream):\n%.2000s", part.name, cmp.Diff(part.want, part.got))
		}
	}
	return nil
}

// TestCompareNotices proves that compare can fail.
func TestCompareNotices(t *testing.T) {
	t.Parallel()
	row := func(id, n string) []byte { return []byte(`{"id":` + id + `,"n":` + n + `}`) }
	key := func(id string) []byte { return []byte(`{"id":` + id + `}`) }
	stream := func() []sinks.Message {
		at := func(commit uint64, index uint32) listeners.Position {
			return listeners.Position{Epoch: 1, Commit: commit, Index: index}
		}
		const table = "public.plain"
		return []sinks.Message{
			{Reset: true, Position: at(4, 0)},
			{Op: listeners.Read, Collection: table, Position: at(4, 1), Key: key("1"), After: row("1", "1.0")},
			{Reset: true, Position: at(5, 0)}, // the first one was cut off
			{Op: listeners.Read, Collection: table, Position: at(5, 1), Key: key("1"), After: row("1", "1.0"), TxEnd: true},
			{Op: listeners.Create, Collection: table, Position: at(6, 1), TxID: 12, Key: key("2"), After: row("2", "2.50")},
			{Op: listeners.Update, Collection: table, Position: at(6, 2), TxID: 12, TxEnd: true, Key: key("3"), OldKey: key("2"), After: row("3", "2.50")},
			{Op: listeners.Delete, Collection: table, Position: at(7, 1), TxID: 13, TxEnd: true, Key: key("3")},
			{Op: listeners.Update, Collection: table, Position: at(8, 1), TxID: 11, TxEnd: true, Key: key("1"), After: key("1"), Unchanged: []string{"n"}},
		}
	}
	e := func(seq int64, lsn, xid uint64, op string, oldKey, newKey, oldRow, newRow []byte) entry {
		return entry{
			seq: seq, lsn: lsn, xid: xid, table: "public.plain", op: op,
			oldKey: exact(oldKey), newKey: exact(newKey), oldRow: exact(oldRow), newRow: exact(newRow),
		}
	}
	ledger := []entry{
		e(1, 3, 10, "create", nil, key("1"), nil, row("1", "1.0")),
		e(2, 4, 11, "update", key("1"), key("1"), row("1", "1.0"), row("1", "1.0")),
		e(3, 7, 12, "create", nil, key("2"), nil, row("2", "2.50")),
		e(4, 7, 12, "update", key("2"), key("3"), row("2", "2.50"), row("3", "2.50")),
		e(5, 7, 13, "delete", key("3"), nil, row("3", "2.50"), nil),
	}
	if err := compare(stream(), ledger); err != nil {
		t.Fatalf("compare of what is right = %v", err)
	}
	for name, spoil := range map[string]func([]sinks.Message) []sinks.Message{
		"a lost change":        func(m []sinks.Message) []sinks.Message { return slices.Delete(m, 4, 5) },
		"a lost transaction":   func(m []sinks.Message) []sinks.Message { return slices.Delete(m, 6, 7) },
		"a lost round trip":    func(m []sinks.Message) []sinks.Message { return slices.Delete(m, 4, 7) },
		"a lost row":           func(m []sinks.Message) []sinks.Message { return slices.Delete(m, 3, 4) },
		"a doubled message":    func(m []sinks.Message) []sinks.Message { return slices.Insert(m, 7, m[6]) },
		"a doubled change":     func(m []sinks.Message) []sinks.Message { m[7].TxID, m[7].Op = 13, listeners.Delete; return m },
		"a transaction again":  func(m []sinks.Message) []sinks.Message { m[7].TxID = 12; return m },
		"a swapped key":        func(m []sinks.Message) []sinks.Message { m[4].TxID, m[5].TxID, m[6].TxID = 13, 13, 12; return m },
		"another value":        func(m []sinks.Message) []sinks.Message { m[4].After = row("2", "2.5"); return m },
		"a missing old key":    func(m []sinks.Message) []sinks.Message { m[5].OldKey = nil; return m },
		"a null for unchanged": func(m []sinks.Message) []sinks.Message { m[7].After = row("1", "null"); return m },
		"an end too early":     func(m []sinks.Message) []sinks.Message { m[4].TxEnd = true; return m },
		"a stale snapshot":     func(m []sinks.Message) []sinks.Message { m[3].After = row("1", "0.9"); return m },
		"a twin in a snapshot": func(m []sinks.Message) []sinks.Message { m[2] = m[1]; m[2].Position.Index = 2; return m },
		"a snapshot in between": func(m []sinks.Message) []sinks.Message {
			m[7] = sinks.Message{Reset: true, Position: m[7].Position}
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := compare(spoil(stream()), ledger); err == nil {
				t.Errorf("compare with %s = nil, want an error", name)
			}
		})
	}

	// The same key in the wrong order.
	swapped := slices.Clone(ledger)
	swapped[2].seq, swapped[4].seq = 5, 3
	if err := compare(stream(), swapped); err == nil {
		t.Error("compare with a key's changes in another order = nil, want an error")
	}
}
