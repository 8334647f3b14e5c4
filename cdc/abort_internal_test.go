package cdc

import "testing"

// Version 18 sends Stream Abort messages although no streaming was asked for:
// for savepoints and transactions that were rolled back before the server
// decoded all of them. They concern nothing that was sent.
func TestAnAbortOfWhatWasNotStreamedIsNothing(t *testing.T) {
	d := newDecoding(t, whole)
	d.send(msgRelation(1, "seats", 'd', "*id"), []byte("A\x00\x00\x06\x24\x00\x00\x06\x26"))
	d.send(msgBegin(100, 1), msgInsert(1, "7"), msgCommit(100, 120), []byte("A\x00\x00\x06\x24\x00\x00\x06\x24"))
	d.expect(t, "batch first last", `100.1 create public.seats/7 after {"id":"7"}`)
	if got := d.confirmed(everything); got != 120 {
		t.Errorf("confirmed = %s, want the end of the transaction", got)
	}
}
