package cdc

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
)

func msgMessage(transactional bool, lsn uint64, prefix, content string) []byte {
	b := []byte{'M', 0}
	if transactional {
		b[1] = 1
	}
	b = append(binary.BigEndian.AppendUint64(b, lsn), prefix+"\x00"...)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(content))), content...)
}

func TestPrefixes(t *testing.T) {
	for _, tc := range []struct {
		wanted prefixes
		prefix string
		want   bool
	}{
		{nil, "audit", false},
		{prefixes{"audit"}, "audit", true},
		{prefixes{"audit"}, "audits", false},
		{prefixes{"x", "orders.*"}, "orders.paid", true},
		{prefixes{"orders.*"}, "orders.", true},
		{prefixes{"orders.*"}, "orders", false},
		{prefixes{"*"}, "", true},
		{prefixes{"*"}, "rowcall.backfill.s", false},
		{prefixes{"row*"}, "rowcall.", false},
		{prefixes{"*"}, "rowcalls", true},
	} {
		if got := tc.wanted.want(tc.prefix); got != tc.want {
			t.Errorf("%q.want(%q) = %t, want %t", tc.wanted, tc.prefix, got, tc.want)
		}
	}
}

// A message of no transaction is confirmed up to its end, and what the
// server sends again is not delivered again.
func TestMessageOfNoTransaction(t *testing.T) {
	d := newDecoding(t, 1000)
	d.decoder.messages.prefixes = prefixes{"*"}
	send := func(messages ...[]byte) {
		t.Helper()
		for _, m := range messages {
			if err := d.decoder.message(t.Context(), 0, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(msgMessage(false, 100, "a", "1"), msgMessage(false, 200, "rowcall.x", "ours"))
	if got := d.batches[0]; len(d.batches) != 1 || got.Position != (listeners.Position{Epoch: 7, Commit: 99, Index: 1}) || got.Tx != (listeners.Tx{}) || !got.First || !got.Last {
		t.Fatalf("arrived %d batches, the first %+v", len(d.batches), got)
	}
	if _, confirmed := d.tracker.stored(listeners.Position{}); confirmed != 0 {
		t.Errorf("%s is confirmed before the message is stored", confirmed)
	}
	if _, confirmed := d.tracker.stored(d.batches[0].Position); confirmed != 200 {
		t.Errorf("%s is confirmed, want 0/C8, up to where there is nothing else", confirmed)
	}
	d.connect()
	d.decoder.messages.prefixes = prefixes{"*"}
	send(msgMessage(false, 100, "a", "1"), msgMessage(false, 300, "", "2"))
	if len(d.batches) != 2 || d.batches[1].Position.Commit != 299 || d.batches[1].Events[0].Schema.Name != "_" {
		t.Errorf("after a reconnect arrived %d batches in all, the last at %s", len(d.batches), d.batches[len(d.batches)-1].Position)
	}
	// The record of a commit may begin where that of a message ends, also after
	// a lost connection.
	d.connect()
	d.decoder.messages.prefixes = prefixes{"*"}
	send(msgBegin(300, 1), seats, msgInsert(1, "7"), msgCommit(300, 308))
	if got := d.batches[len(d.batches)-1]; len(d.batches) != 3 || len(got.Events) != 1 || !got.First || got.Position.Compare(d.batches[1].Position) <= 0 {
		t.Errorf("a transaction whose commit begins at the end of a message: %d batches in all, the last %+v", len(d.batches), got)
	}
	send(msgBegin(400, 1))
	if err := d.decoder.message(t.Context(), 0, msgMessage(false, 350, "a", "")); err == nil {
		t.Error("a message of no transaction inside one is taken")
	}
	for name, bad := range map[string][]byte{
		"truncated": msgMessage(true, 1, "a", "content")[:18],
		"longer":    append(msgMessage(true, 1, "a", "content"), 0),
	} {
		if err := d.decoder.message(t.Context(), 0, bad); err == nil {
			t.Errorf("a message that is %s is taken", name)
		}
	}
}

// Names come from the application, so what is remembered of them is bounded.
func TestMessageSchemasAreBounded(t *testing.T) {
	var m messenger
	o := outbox{database: "shop"}
	for i := range 3 * maxMessageSchemas {
		name := fmt.Sprint(i)
		if a, b := m.relation("shop", name), m.relation("shop", name); a != b || a.schema.Collection() != "_messages."+name {
			t.Fatalf("the schema of %s is %s, and another one the next time: %t", name, a.schema.Collection(), a != b)
		}
		o.relation(name)
	}
	if diff := cmp.Diff([]int{maxMessageSchemas, maxMessageSchemas}, []int{len(m.known), len(o.known)}); diff != "" {
		t.Errorf("remembered schemas (-want +got):\n%s", diff)
	}
}
