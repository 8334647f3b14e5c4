package cdc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
)

func TestCheckNamesTheHolderOfTheSlot(t *testing.T) {
	b := newBench(t)
	b.exec(t, seats, `CREATE PUBLICATION {slot} FOR ALL TABLES`, `SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')`)
	var address string
	if err := pgtest.Connect(t, b.url).QueryRow(t.Context(), `SELECT coalesce(', ' || host(inet_client_addr()), '')`).Scan(&address); err != nil {
		t.Fatal(err)
	}
	config, err := pgconn.ParseConfig(b.url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"], config.RuntimeParams["application_name"] = "database", "other_reader"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	err = pglogrepl.StartReplication(t.Context(), conn, b.words.Replace("{slot}"), 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", b.words.Replace("publication_names '{slot}'")},
	})
	if err != nil {
		t.Fatal(err)
	}
	holder := fmt.Sprintf("PID %d (other_reader%s)", conn.PID(), address)
	want := b.expand([]cdc.Finding{{
		Check: "slot", Level: cdc.Fatal, Object: "{slot}",
		Text:   `slot "{slot}" is in use by ` + holder,
		Remedy: fmt.Sprintf("stop that process, choose another slot name, or SELECT pg_terminate_backend(%d)", conn.PID()),
	}})
	if diff := cmp.Diff(want, atLeast(cdc.Warning, check(t, b.url, nil))); diff != "" {
		t.Errorf("Check while the slot is read (-want +got):\n%s", diff)
	}
	// An unprivileged role sees less of another's session.
	b.exec(t, `ALTER ROLE {role} REPLICATION`)
	want[0].Text = b.words.Replace(`slot "{slot}" is in use by PID `) + fmt.Sprintf("%d (other_reader)", conn.PID())
	opts := &cdc.Options{Snapshot: cdc.SnapshotNever}
	if diff := cmp.Diff(want, atLeast(cdc.Warning, check(t, b.as(t, b.role), opts))); diff != "" {
		t.Errorf("Check as an unprivileged role while the slot is read (-want +got):\n%s", diff)
	}
}

func TestCheckSlotOfAnotherDatabase(t *testing.T) {
	one, other := newBench(t), newBench(t)
	one.exec(t, seats, other.words.Replace(`CREATE PUBLICATION {slot} FOR ALL TABLES`))
	other.exec(t, `SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')`)
	slot := other.words.Replace("{slot}")
	want := []cdc.Finding{{
		Check: "slot", Level: cdc.Fatal, Object: slot,
		Text:   other.words.Replace(`slot "{slot}" belongs to database "{db}", not to `) + one.words.Replace(`"{db}"`),
		Remedy: "choose another slot name",
	}}
	if diff := cmp.Diff(want, atLeast(cdc.Warning, check(t, one.url, &cdc.Options{Slot: slot}))); diff != "" {
		t.Errorf("Check(slot of another database) (-want +got):\n%s", diff)
	}
}

// TestCheckLostSlot lets the server remove WAL that a slot still needs.
func TestCheckLostSlot(t *testing.T) {
	t.Parallel()
	s := pgtest.Own(t, map[string]string{"max_slot_wal_keep_size": "1MB"})
	u := s.URL("postgres")
	pgtest.Exec(t, u, seats, `CREATE PUBLICATION s FOR ALL TABLES`, `SELECT pg_create_logical_replication_slot('s', 'pgoutput')`)
	for range 5 {
		pgtest.Exec(t, u, `INSERT INTO seats SELECT coalesce(max(id), 0) + 1, 1 FROM seats`, `SELECT pg_switch_wal()`)
	}
	opts := &cdc.Options{Slot: "s"}
	got := atLeast(cdc.Warning, check(t, u, opts))
	if len(got) != 1 || got[0].Level != cdc.Warning || !strings.Contains(got[0].Text, `slot "s" is about to be lost: it needs `) {
		t.Errorf("Check before a checkpoint = %v; want one warning that the slot is about to be lost", got)
	}
	pgtest.Exec(t, u, `CHECKPOINT`)
	got = atLeast(cdc.Warning, check(t, u, opts))
	if len(got) != 1 || got[0].Level != cdc.Fatal || !strings.Contains(got[0].Text, `slot "s" is lost: `) ||
		!strings.HasPrefix(got[0].Remedy, `SELECT pg_drop_replication_slot('s') and start again: a new snapshot is taken`) {
		t.Fatalf("Check after it = %v; want one fatal finding that the slot is lost, and what to do", got)
	}
	pgtest.Exec(t, u, `SELECT pg_drop_replication_slot('s')`)
	if got := atLeast(cdc.Warning, check(t, u, opts)); got != nil {
		t.Errorf("Check after the slot was dropped = %v; want no warning", got)
	}
}
