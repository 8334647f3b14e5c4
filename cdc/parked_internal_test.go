package cdc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// An unreadable message is kept where an operator sees it, what refers to it
// too, and everything else is delivered.
func TestUndecodableMessagesAreParked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	c, err := newConfig("postgres://host/shop", &Options{StateDir: dir, Undecodable: UndecodablePark})
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoding(t, whole)
	d.decoder.park = c.park
	cut := msgInsert(1, "2")
	cut = cut[:len(cut)-1]
	d.send(nil, []byte("?what"),
		msgBegin(100, 42), seats, msgInsert(1, "1"), cut, msgRelation(2, "trains", 'd')[:12], msgInsert(1, "3"), seats, msgInsert(1, "4"), msgCommit(100, 108),
		streamStart(43, 1), in(43, seats), in(43, msgInsert(1, "5")), []byte("?"), in(43, cut), in(43, msgInsert(1, "6")), streamStop, streamCommit(43, 110, 118))
	d.expect(t, "batch first last", `100.1 create public.seats/1 after {"id":"1"}`, `100.2 create public.seats/4 after {"id":"4"}`,
		"batch first last", `110.1 create public.seats/5 after {"id":"5"}`, `110.2 create public.seats/6 after {"id":"6"}`)

	data, err := os.ReadFile(filepath.Join(dir, "rowcall_shop.parked.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range bytes.Lines(data) {
		var p Parked
		if err := json.Unmarshal(line, &p); err != nil {
			t.Fatal(err)
		}
		msg, err := hex.DecodeString(p.Message)
		if err != nil || p.LSN != 0xABC || p.Error == "" || p.Time.IsZero() {
			t.Errorf("parked %s: %v", line, err)
		}
		got = append(got, p.Type+" "+string(msg[:min(len(msg), 1)]))
	}
	if want := []string{"\x00 ", "? ?", "I I", "R R", "I I", "? ?", "I I"}; !slices.Equal(got, want) {
		t.Errorf("parked %q, want %q", got, want)
	}
}

func TestParkingThatFailsEndsTheRun(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := newConfig("postgres://host/shop", &Options{StateDir: filepath.Join(dir, "file", "below"), Undecodable: UndecodablePark})
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoding(t, whole)
	d.decoder.park = c.park
	if err := d.try([]byte("?")); err == nil || transient(err) {
		t.Errorf("message() = %v, transient %t; want an error that ends the run", err, transient(err))
	}
}

// What begins or ends a transaction cannot be missed: the rows that follow would
// be taken for another one's.
func TestATransactionWithoutAnEndStops(t *testing.T) {
	park := func([]byte, *DecodeError) error { return nil }
	for name, messages := range map[string][][]byte{
		"begin":         {msgBegin(100, 42)[:9]},
		"commit":        {msgBegin(100, 42), msgCommit(100, 108)[:9]},
		"stream start":  {[]byte("S\x00")},
		"stream commit": {streamStart(42, 1), streamStop, streamCommit(42, 100, 108)[:9]},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecoding(t, whole)
			d.decoder.park = park
			if _, ok := errors.AsType[*DecodeError](d.try(messages...)); !ok {
				t.Error("message() parked it, want a DecodeError")
			}
		})
	}
}

func TestADescriptionThatCannotBeReadWithinAStreamedTransaction(t *testing.T) {
	d := newDecoding(t, whole)
	parked := 0
	d.decoder.park = func([]byte, *DecodeError) error { parked++; return nil }
	d.send(msgBegin(90, 41), seats, msgInsert(1, "1"), msgCommit(90, 98),
		streamStart(42, 1), in(42, seats[:12]), in(42, msgInsert(1, "2")), streamStop, streamCommit(42, 100, 108))
	if d.expect(t, "batch first last", `90.1 create public.seats/1 after {"id":"1"}`); parked != 2 {
		t.Errorf("%d messages parked, want the description and the row", parked)
	}
}
