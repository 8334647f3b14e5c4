package cdc_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestMessagesArriveAsEvents(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Messages: []string{"audit", "orders.*"}}, record(t, &rec, nil))
	src.caughtUp()
	exec(t, conn,
		"BEGIN", "INSERT INTO seats VALUES (1)",
		"SELECT pg_logical_emit_message(true, 'audit', 'Ann sold \"1\"')",
		"SELECT pg_logical_emit_message(true, 'noise', 'counts, but is not wanted')",
		"INSERT INTO seats VALUES (2)", "COMMIT",
		"BEGIN", "SELECT pg_logical_emit_message(true, 'audit', 'never said')",
		"SELECT pg_logical_emit_message(false, 'orders.paid', '\\x0041ff'::bytea)", "ROLLBACK",
		"SELECT pg_logical_emit_message(true, 'audited', 'is another prefix')",
		"SELECT pg_logical_emit_message(false, 'rowcall.other', 'is ours')",
		"SELECT pg_logical_emit_message(false, 'orders.', '')",
	)
	src.caughtUp()
	want := []string{
		"create public.seats/1: null -> {\"id\":1}",
		`message _messages.audit/: null -> {"prefix":"audit","content":"\\x416e6e20736f6c6420223122","text":"Ann sold \"1\""}`,
		"create public.seats/2: null -> {\"id\":2}",
		`message _messages.orders.paid/: null -> {"prefix":"orders.paid","content":"\\x0041ff","text":null}`,
		`message _messages.orders./: null -> {"prefix":"orders.","content":"\\x","text":""}`,
	}
	events := rec.Events()
	if diff := cmp.Diff(want, lines(events)); diff != "" {
		t.Fatalf("the events (-want +got):\n%s", diff)
	}
	var indexes []uint32
	for _, e := range events {
		indexes = append(indexes, e.Position.Index)
	}
	if diff := cmp.Diff([]uint32{1, 2, 4, 1, 1}, indexes); diff != "" {
		t.Errorf("the places within their transactions (-want +got):\n%s", diff)
	}
	if !slices.IsSortedFunc(events, func(a, b listenertest.Event) int { return a.Position.Compare(b.Position) }) {
		t.Errorf("positions are not in order: %v", lines(events))
	}
	for _, b := range rec.Batches() {
		if len(b.Events) > 0 && strings.HasPrefix(b.Events[0].Collection, "_messages.orders") &&
			(b.Tx != listeners.Tx{} || !b.First || !b.Last || len(b.Events) != 1) {
			t.Errorf("a message of no transaction came as %+v", b)
		}
	}
}

// Messages do not repeat after a restart, nor after a lost connection, and none
// is lost.
func TestMessagesGoOnWithoutGapOrTwin(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	n := 0
	say := func() {
		n++
		exec(t, conn, fmt.Sprintf("SELECT pg_logical_emit_message(%t, 'n', '%d')", n%3 == 0, n))
	}
	var all listenertest.Recorder
	for range 3 {
		src := run(t, url, &cdc.Options{Messages: []string{"*"}}, record(t, &all, nil))
		<-src.Ready()
		src.caughtUp()
		for range 4 {
			say()
			exec(t, conn, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active")
			say()
		}
		src.caughtUp()
		src.stop()
		say()
	}
	src := run(t, url, &cdc.Options{Messages: []string{"*"}}, record(t, &all, nil))
	src.caughtUp()
	var got []string
	for _, e := range all.Events() {
		_, text, _ := strings.Cut(e.After, `"text":"`)
		got = append(got, strings.TrimSuffix(text, `"}`))
	}
	wantSequence(t, got, n)
}

// The record of a commit begins where that of the message before it ends.
func TestMessageBeforeACommitHasAPositionOfItsOwn(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	var rec listenertest.Recorder
	src := run(t, url, &cdc.Options{Messages: []string{"*"}}, record(t, &rec, nil))
	src.caughtUp()
	for i := range 3 {
		exec(t, conn, "BEGIN", fmt.Sprintf("INSERT INTO seats VALUES (%d)", i), "SELECT pg_logical_emit_message(false, 'audit', 'looked')", "COMMIT")
	}
	src.caughtUp()
	events := rec.Events()
	if len(events) != 6 {
		t.Fatalf("arrived %q, want 3 rows and 3 messages", lines(events))
	}
	for i := 1; i < len(events); i++ {
		if before, e := events[i-1], events[i]; e.Position.Compare(before.Position) <= 0 {
			t.Errorf("%s %s at %s comes after %s %s at %s", e.Op, e.Collection, e.Position, before.Op, before.Collection, before.Position)
		}
	}
}
