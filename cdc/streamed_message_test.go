package cdc_test

import (
	"testing"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// The server sends a message of a savepoint in a transaction in progress as one
// of the whole transaction. What was rolled back with the savepoint must not
// arrive all the same, nor count in the positions of what follows.
func TestAMessageInASavepointOfAStreamedTransactionThatIsRolledBack(t *testing.T) {
	url := eager(pgtest.Database(t))
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, note text)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Messages: []string{"audit"}}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn, "BEGIN", "SELECT pg_logical_emit_message(true, 'audit', 'said')", thousandSeats,
		"SAVEPOINT a", "SELECT pg_logical_emit_message(true, 'audit', 'taken back')", thousandSeats, "ROLLBACK TO a",
		thousandSeats, "COMMIT")
	src.caughtUp()
	said := 0
	events := rec.Events()
	for i, e := range events {
		if e.Op == listeners.Message {
			said++
		}
		if e.Position.Index != uint32(i+1) {
			t.Fatalf("event %d is at %s", i, e.Position)
		}
	}
	if said != 1 || len(events) != 2001 {
		t.Errorf("%d events, %d of them messages; want 2001 and one", len(events), said)
	}
	if n := count(t, conn, "SELECT count(*) FROM pg_stat_replication_slots WHERE stream_txns > 0"); n == 0 {
		t.Error("nothing was streamed: the test proves nothing")
	}
}
