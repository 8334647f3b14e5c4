package cdc_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestSnapshotThenEachTransactionAsOneBatch(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn,
		"CREATE TABLE seats (id int PRIMARY KEY, no text, price numeric(10,2))",
		"INSERT INTO seats VALUES (1, 'A1', 10.50), (2, 'A2', NULL)")

	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn,
		"BEGIN", "INSERT INTO seats VALUES (3, 'B1', 7)", "UPDATE seats SET price = 8 WHERE id = 3", "DELETE FROM seats WHERE id = 1", "COMMIT",
		"UPDATE seats SET id = 20 WHERE id = 2",
		"TRUNCATE seats")
	src.caughtUp()
	src.stop()

	want := []string{
		`read public.seats/1: null -> {"id":1,"no":"A1","price":10.50}`,
		`read public.seats/2: null -> {"id":2,"no":"A2","price":null}`,
		`create public.seats/3: null -> {"id":3,"no":"B1","price":7.00}`,
		`update public.seats/3: null -> {"id":3,"no":"B1","price":8.00}`,
		`delete public.seats/1: null -> null`,
		`update public.seats/20: null -> {"id":20,"no":"A2","price":null}`,
		`truncate public.seats/: null -> null`,
	}
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	var kinds []listeners.Kind
	for _, b := range rec.Batches() {
		kinds = append(kinds, b.Kind)
		if !b.First || !b.Last {
			t.Errorf("batch at %s: first %t, last %t; want whole transactions", b.Position, b.First, b.Last)
		}
	}
	wantKinds := []listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Live, listeners.Changes, listeners.Changes, listeners.Changes}
	if diff := cmp.Diff(wantKinds, kinds); diff != "" {
		t.Errorf("kinds of batches (-want +got):\n%s", diff)
	}
	if got := rec.Events()[5].OldKey; got != "2" {
		t.Errorf("old key of the update of the key is %q, want 2", got)
	}
}
