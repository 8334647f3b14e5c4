package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// exact decodes JSON without rounding numbers; nil stays nil.
func exact(t *testing.T, text json.RawMessage) any {
	t.Helper()
	if text == nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("decode %s: %v", text, err)
	}
	return v
}

// readStream returns all messages of the only firehose.
func readStream(t *testing.T, nc *nats.Conn, database string) []jetstream.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var messages []jetstream.Message
	for m, err := range jetstream.Read(ctx, nc, jetstream.StreamName(database), nil) {
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}

// compare checks that the stream holds every committed change exactly once, per
// key in commit order, and what was there before in its last snapshot.
//
// A transaction is either in the snapshot or in the stream after it. So those
// whose changes are in the stream must equal their part of the ledger, change
// by change, and all others together must make exactly the snapshot's rows.
func compare(t *testing.T, messages []jetstream.Message, ledger []entry) {
	t.Helper()
	snapshot := make(map[string]any) // the rows of the last one, by table and key
	changes := make(map[uint64][]jetstream.Message)
	var order []uint64 // of the transactions
	var last listeners.Position
	for i, m := range messages {
		if m.Position.Compare(last) <= 0 {
			t.Fatalf("message %d has position %s, not above %s before it", m.Sequence, m.Position, last)
		}
		last = m.Position
		switch {
		case m.Reset:
			clear(snapshot)
		case m.Op == listeners.Read:
			if i > 0 && messages[i-1].Op == listeners.Read && messages[i-1].Position.Commit != m.Position.Commit {
				clear(snapshot) // the one before was cut off
			}
			if len(order) > 0 {
				t.Fatalf("message %d is a snapshot's row, after changes", m.Sequence)
			}
			snapshot[name(m.Collection, m.Key)] = exact(t, m.After)
		default:
			if !slices.Contains(order[max(0, len(order)-1):], m.TxID) {
				if _, seen := changes[m.TxID]; seen {
					t.Fatalf("message %d: transaction %d comes in two pieces, or twice", m.Sequence, m.TxID)
				}
				order = append(order, m.TxID)
			}
			changes[m.TxID] = append(changes[m.TxID], m)
		}
	}

	before := make(map[string]any) // what the snapshot has to be
	streamed := make(map[uint64][]entry)
	for _, e := range ledger {
		if _, found := changes[e.xid]; found {
			streamed[e.xid] = append(streamed[e.xid], e)
			continue
		}
		if e.oldKey != nil {
			delete(before, keyName(t, e.table, e.oldKey))
		}
		if e.newKey != nil {
			before[keyName(t, e.table, e.newKey)] = e.newRow
		}
	}
	if diff := cmp.Diff(before, snapshot); diff != "" {
		t.Errorf("the snapshot is not what the transactions outside the stream left (-ledger +snapshot):\n%.4000s", diff)
	}

	latest := make(map[string]int64) // ledger number of the last change, by table and key
	for _, xid := range order {
		got, want := changes[xid], streamed[xid]
		if len(got) != len(want) {
			t.Fatalf("transaction %d has %d changes in the stream, %d in the ledger", xid, len(got), len(want))
		}
		for i, e := range want {
			if problem := differs(t, got[i], e); problem != "" {
				t.Fatalf("transaction %d, change %d: %s\nstream: %s\nledger: %+v", xid, i, problem, got[i].Body, e)
			}
			if got[i].TxEnd != (i == len(want)-1) {
				t.Errorf("transaction %d, change %d of %d: txend = %t", xid, i+1, len(want), got[i].TxEnd)
			}
			for _, key := range []any{e.oldKey, e.newKey} {
				if key == nil {
					continue
				}
				name := keyName(t, e.table, key)
				if latest[name] > e.seq {
					t.Fatalf("%s: change %d of the ledger is in the stream after change %d", name, e.seq, latest[name])
				}
				latest[name] = e.seq
			}
		}
	}
	t.Logf("%d messages: %d rows in the snapshot, %d transactions; %d changes in the ledger", len(messages), len(snapshot), len(order), len(ledger))
}

// differs says what of a message is not as the ledger has it.
func differs(t *testing.T, m jetstream.Message, e entry) string {
	t.Helper()
	if m.Collection != e.table || m.Op.String() != e.op {
		return fmt.Sprintf("it is %s of %s, want %s of %s", m.Op, m.Collection, e.op, e.table)
	}
	key, oldKey := e.newKey, any(nil)
	if e.newKey == nil {
		key = e.oldKey
	} else if e.oldKey != nil && !cmp.Equal(e.oldKey, e.newKey) {
		oldKey = e.oldKey
	}
	after := e.newRow
	if row, ok := after.(map[string]any); ok {
		for _, column := range m.Unchanged {
			if _, found := row[column]; !found || !cmp.Equal(row[column], member2(e.oldRow, column)) {
				return fmt.Sprintf("column %s is not unchanged", column)
			}
			delete(row, column)
		}
	}
	before := any(nil)
	if e.table == "public.whole" { // REPLICA IDENTITY FULL
		before = e.oldRow
	}
	for _, part := range []struct {
		name string
		got  json.RawMessage
		want any
	}{{"key", m.Key, key}, {"oldkey", m.OldKey, oldKey}, {"before", m.Before, before}, {"after", m.After, after}} {
		if diff := cmp.Diff(part.want, exact(t, part.got)); diff != "" {
			return fmt.Sprintf("%s differs (-ledger +stream):\n%.2000s", part.name, diff)
		}
	}
	return ""
}

func member2(row any, column string) any {
	object, _ := row.(map[string]any)
	return object[column]
}

func name(table string, key json.RawMessage) string {
	var compact bytes.Buffer
	_ = json.Compact(&compact, key) // it has been decoded before
	return table + " " + compact.String()
}

func keyName(t *testing.T, table string, key any) string {
	t.Helper()
	text, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return name(table, text)
}
