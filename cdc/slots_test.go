package cdc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// slotOf returns the slot of this name, and fails the test if there is none.
func slotOf(t *testing.T, databaseURL, name string) cdc.SlotStatus {
	t.Helper()
	slots, err := cdc.Slots(t.Context(), databaseURL)
	if err != nil {
		t.Fatalf("Slots() = %v", err)
	}
	i := slices.IndexFunc(slots, func(s cdc.SlotStatus) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("Slots() = %+v, want one named %s", slots, name)
	}
	return slots[i]
}

func TestSlotsTellsWhatEachKeeps(t *testing.T) {
	one, other := newBench(t), newBench(t)
	one.exec(t, `SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')`)
	other.exec(t, seats, `INSERT INTO seats SELECT i, i FROM generate_series(1, 5000) i`,
		`SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')`,
		`SELECT pg_create_physical_replication_slot('{slot}_p')`)
	defer other.exec(t, `SELECT pg_drop_replication_slot('{slot}_p')`)

	// Another database's, and without any privilege.
	name := one.words.Replace("{slot}")
	got := slotOf(t, other.as(t, other.role), name)
	if got.Database != one.words.Replace("{db}") || got.Plugin != "pgoutput" || got.Active || got.Temporary ||
		got.WALStatus != "reserved" || got.Invalidation != "" || got.Failover || got.Synced {
		t.Errorf("Slots()[%s] = %+v; want an idle pgoutput slot of database %s", name, got, one.words.Replace("{db}"))
	}
	if got.Confirmed < got.Restart || got.Restart == 0 || got.LagBytes < 5000 || got.RetainedBytes < got.LagBytes {
		t.Errorf("Slots()[%s] = %+v; want a lag of the rows written since, within what is kept", name, got)
	}
	if got := slotOf(t, one.url, other.words.Replace("{slot}")); got.Plugin != "test_decoding" {
		t.Errorf("Slots()[…].Plugin = %q, want test_decoding", got.Plugin)
	}
	slots, err := cdc.Slots(t.Context(), one.url)
	if err != nil || !slices.IsSortedFunc(slots, func(a, b cdc.SlotStatus) int { return strings.Compare(a.Name, b.Name) }) ||
		slices.ContainsFunc(slots, func(s cdc.SlotStatus) bool { return strings.HasSuffix(s.Name, "_p") }) {
		t.Errorf("Slots() = %+v, %v; want logical ones by name", slots, err)
	}

	text, err := json.Marshal(got)
	if want := fmt.Sprintf(`"confirmed":"%s"`, got.Confirmed); err != nil || !strings.Contains(string(text), want) {
		t.Errorf("json.Marshal(%+v) = %s, %v; want %s in it", got, text, err, want)
	}
	var back cdc.SlotStatus
	if err := json.Unmarshal(text, &back); err != nil || back != got {
		t.Errorf("json.Unmarshal(%s) = %+v, %v; want %+v", text, back, err, got)
	}
}

func TestSlotsOfALostSlot(t *testing.T) {
	t.Parallel()
	s := pgtest.Own(t, map[string]string{"max_slot_wal_keep_size": "1MB"})
	u := s.URL("postgres")
	if slots, err := cdc.Slots(t.Context(), u); err != nil || len(slots) != 0 {
		t.Errorf("Slots() = %v, %v; want none", slots, err)
	}
	pgtest.Exec(t, u, `SELECT pg_create_logical_replication_slot('s', 'pgoutput')`, `CREATE TABLE junk (n int)`)
	for range 3 {
		pgtest.Exec(t, u, `INSERT INTO junk VALUES (1)`, `SELECT pg_switch_wal()`)
	}
	pgtest.Exec(t, u, `CHECKPOINT`)
	got := slotOf(t, u, "s")
	if named := serverVersion(t, u) >= 170000; got.WALStatus != "lost" || (got.Invalidation == "wal_removed") != named {
		t.Errorf("Slots()[s] = %+v; want a lost slot, with the reason from 17 on", got)
	}
	if err := cdc.DropSlot(t.Context(), u, "s", nil); err != nil {
		t.Errorf("DropSlot(lost slot) = %v", err)
	}
}

// hold reads a slot as somebody else would, until the test ends, and returns
// its PID and the channel that is closed when the server hangs up.
func hold(t *testing.T, databaseURL, slot string) (pid uint32, gone <-chan struct{}) {
	t.Helper()
	config, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"], config.RuntimeParams["application_name"] = "database", "other_reader"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	err = pglogrepl.StartReplication(t.Context(), conn, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + slot + "'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := conn.ReceiveMessage(ctx); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = conn.Close(context.WithoutCancel(t.Context()))
	})
	return conn.PID(), ended
}

func TestDropSlotLeavesASlotThatIsRead(t *testing.T) {
	b := newBench(t)
	b.exec(t, seats, `CREATE PUBLICATION {slot} FOR ALL TABLES`, `SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')`)
	slot := b.words.Replace("{slot}")
	pid, gone := hold(t, b.url, slot)
	err := cdc.DropSlot(t.Context(), b.url, slot, nil)
	var refused *cdc.SlotError
	if want := fmt.Sprintf("PID %d (other_reader", pid); !errors.As(err, &refused) || !errors.Is(err, cdc.ErrSlotInUse) ||
		refused.Slot != slot || !strings.Contains(err.Error(), want) {
		t.Errorf("DropSlot(slot in use) = %v; want a SlotError about %s with %q", err, slot, want)
	}
	if got := slotOf(t, b.url, slot); !got.Active || got.HolderPID != int32(pid) || !strings.HasPrefix(got.Holder, "other_reader") {
		t.Errorf("Slots()[…] = %+v after a refusal, want it read by PID %d (other_reader, …)", got, pid)
	}

	// A role that may drop slots, but not end a superuser's process.
	b.exec(t, `ALTER ROLE {role} REPLICATION`)
	err = cdc.DropSlot(t.Context(), b.as(t, b.role), slot, &cdc.DropOptions{Force: true})
	if !errors.Is(err, cdc.ErrSlotInUse) || !strings.Contains(err.Error(), b.words.Replace(`which role "{role}" may not end`)) {
		t.Errorf("DropSlot(slot in use, Force) as {role} = %v; want that it may not end the reader", err)
	}

	if err := cdc.DropSlot(t.Context(), b.url, slot, &cdc.DropOptions{Force: true}); err != nil {
		t.Errorf("DropSlot(slot in use, Force) = %v", err)
	}
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("the holder lives after a forced drop")
	}
}

func TestDropSlotRefusals(t *testing.T) {
	b := newBench(t)
	b.exec(t, `SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')`, `SELECT pg_create_physical_replication_slot('{slot}_p')`)
	defer b.exec(t, `SELECT pg_drop_replication_slot('{slot}_p')`)
	slot := b.words.Replace("{slot}")
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Host, u.User = "127.0.0.1:1", url.UserPassword("app", "hunter2")
	for name, tc := range map[string]struct{ url, slot, want string }{
		"unknown":      {b.url, slot + "s", `slot "` + slot + `s": nothing to drop: the slot does not exist; did you mean ` + slot},
		"physical":     {b.url, slot + "_p", "it is a physical one, which serves a standby; SELECT pg_drop_replication_slot('" + slot + "_p')"},
		"no privilege": {b.as(t, b.role), slot, `role "` + b.role + `" lacks the REPLICATION privilege; ALTER ROLE "` + b.role + `" REPLICATION`},
		"not a name":   {b.url, "Big;", `slot "Big;": a slot's name has 1 to 63 of a-z, 0-9 and _`},
		"no name":      {b.url, "", "the name is missing"},
		"no server":    {u.String(), slot, "the connection was refused"},
	} {
		t.Run(name, func(t *testing.T) {
			err := cdc.DropSlot(t.Context(), tc.url, tc.slot, &cdc.DropOptions{Force: true})
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("DropSlot(%q) = %v; want %q", tc.slot, err, tc.want)
			}
		})
	}
	if got := slotOf(t, b.url, slot); got.Name != slot {
		t.Errorf("Slots() has %+v after refusals, want %s", got, slot)
	}
	if err := cdc.DropSlot(t.Context(), b.url, slot, nil); err != nil {
		t.Errorf("DropSlot(idle slot) = %v", err)
	}
	if err := cdc.DropSlot(t.Context(), b.url, slot, nil); !errors.Is(err, cdc.ErrNoSlot) {
		t.Errorf("DropSlot(dropped slot) = %v, want ErrNoSlot", err)
	}
}

// TestForcedDropEndsARunningSource drops the slot of a source that would come
// back for it.
func TestForcedDropEndsARunningSource(t *testing.T) {
	u := pgtest.Database(t)
	pgtest.Exec(t, u, seats)
	var rec listenertest.Recorder
	src := run(t, u, nil, record(t, &rec, nil))
	src.caughtUp()
	if err := cdc.DropSlot(t.Context(), u, src.Slot(), &cdc.DropOptions{Force: true}); err != nil {
		t.Fatalf("DropSlot(Force) = %v", err)
	}
	var lost *cdc.SlotError
	if err := src.ended(); !errors.As(err, &lost) {
		t.Errorf("Run returned %v after its slot was dropped, want a SlotError", err)
	}
}

// A logBook is an [io.Writer] that several goroutines may use.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestMaxRetainedWALWarns lets a slot fall behind while nobody reads it: the
// next run's first look-up finds what it keeps.
func TestMaxRetainedWALWarns(t *testing.T) {
	u := pgtest.Database(t)
	pgtest.Exec(t, u, seats)
	for _, tc := range []struct {
		limit int64
		warns bool
	}{{0, false}, {1 << 40, false}, {100_000, true}} {
		var rec listenertest.Recorder
		src := run(t, u, nil, record(t, &rec, nil))
		src.caughtUp()
		src.stop()
		pgtest.Exec(t, u, `TRUNCATE seats; INSERT INTO seats SELECT i, i FROM generate_series(1, 5000) i`)
		var log logBook
		src = run(t, u, &cdc.Options{MaxRetainedWAL: tc.limit, Logger: slog.New(slog.NewTextHandler(&log, nil))}, record(t, &rec, nil))
		src.caughtUp()
		if tc.warns {
			pgtest.Eventually(t, time.Minute, func() error {
				if !strings.Contains(log.String(), `level=WARN msg="the slot keeps much WAL" slot=`+src.Slot()+" kept=") {
					return fmt.Errorf("no warning in the log:\n%s", &log)
				}
				return nil
			})
		}
		src.stop()
		if got := strings.Count(log.String(), "keeps much WAL"); (got == 1) != tc.warns {
			t.Errorf("MaxRetainedWAL %d: %d warnings, want %t", tc.limit, got, tc.warns)
		}
	}
}
