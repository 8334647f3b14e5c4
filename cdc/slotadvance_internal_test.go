package cdc

import (
	"errors"
	"testing"

	"github.com/rowcall/rowcall/internal/pgtest"
)

// A slot that is ahead of what is stored is lost, whoever notices it first while
// a copy of it is read.
func TestSlotThatIsAheadCannotBeMovedAndIsLost(t *testing.T) {
	url := pgtest.Database(t)
	src, err := New(url, &Options{Slot: "ahead"})
	if err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Connect(t, url)
	var before LSN
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&before); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "CREATE TABLE seats (id int)", "SELECT pg_create_logical_replication_slot('ahead', 'pgoutput')")
	if err := src.state.update(func(st *state) { st.SystemID, st.Confirmed = 1, before }); err != nil {
		t.Fatal(err)
	}
	src.tracker.start(before)
	a := &slotAdvancer{s: src}
	a.catalog.c = src.c
	defer a.catalog.close(t.Context())
	var lost *SlotError
	if err := a.advance(t.Context()); !errors.As(err, &lost) || !lost.Lost {
		t.Errorf("advance = %v, want a SlotError that says that changes were lost", err)
	}
}
