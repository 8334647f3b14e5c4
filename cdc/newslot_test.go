package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// begin opens a transaction that has an id.
func begin(t *testing.T, url string) (pgx.Tx, uint64) {
	t.Helper()
	tx, err := pgtest.Connect(t, url).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var id uint64
	if err := tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&id); err != nil {
		t.Fatal(err)
	}
	return tx, id
}

func inside(t *testing.T, tx pgx.Tx, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// alterWhileASlotIsMade runs ddl in a transaction that begins when the new slot
// already waits for another one, and commits when the slot waits for it. It
// returns a transaction that began beside that and has not ended. Servers
// decode it with the tables as they were before.
func alterWhileASlotIsMade(t *testing.T, url, ddl string, makeSlot func()) pgx.Tx {
	t.Helper()
	conn := pgtest.Connect(t, url)
	waitsFor := func(id uint64) {
		t.Helper()
		pgtest.Eventually(t, time.Minute, func() error {
			var n int
			err := conn.QueryRow(t.Context(), `
				SELECT count(*) FROM pg_locks l JOIN pg_replication_slots s ON s.active_pid = l.pid
				WHERE s.database = current_database() AND l.locktype = 'transactionid' AND NOT l.granted AND l.transactionid::text = $1`,
				fmt.Sprint(uint32(id))).Scan(&n)
			if err == nil && n == 0 {
				err = fmt.Errorf("no slot waits for transaction %d", id)
			}
			return err
		})
	}
	old, oldID := begin(t, url)
	makeSlot()
	waitsFor(oldID)
	alter, alterID := begin(t, url)
	inside(t, alter, ddl)
	inside(t, old, "COMMIT")
	waitsFor(alterID)
	outlives, _ := begin(t, url)
	inside(t, outlives, "INSERT INTO seats VALUES (1)")
	inside(t, alter, "COMMIT")
	return outlives
}

// The server would decode a transaction with a table as it was.
func TestTableThatIsAlteredWhileTheSlotIsMadeIsReadAsItIs(t *testing.T) {
	for name, opts := range map[string]cdc.Options{
		"snapshot":             {},
		"snapshot with state":  {StateDir: "a directory"},
		"without any snapshot": {Snapshot: cdc.SnapshotNever},
	} {
		for _, ddl := range []string{"ALTER TABLE fares ADD cents int DEFAULT 7", "TRUNCATE fares"} {
			t.Run(name+"/"+ddl, func(t *testing.T) {
				opts := opts
				url := pgtest.Database(t)
				pgtest.Exec(t, url, seats, "CREATE TABLE fares (id int PRIMARY KEY)")
				if opts.StateDir != "" {
					opts.StateDir = t.TempDir()
				}
				var log lockedBuffer
				opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
				var rec listenertest.Recorder
				var src *running
				outlives := alterWhileASlotIsMade(t, url, ddl, func() { src = run(t, url, &opts, record(t, &rec, nil)) })
				inside(t, outlives, "INSERT INTO fares (id) VALUES (1)", "COMMIT")
				<-src.Ready()
				pgtest.Exec(t, url, "INSERT INTO fares (id) VALUES (2)")
				src.caughtUp()
				src.stop()

				var got []string
				for _, line := range lines(rec.Events()) {
					if strings.Contains(line, "fares") {
						got = append(got, line)
					}
				}
				for _, line := range got {
					if strings.HasPrefix(ddl, "ALTER") && !strings.Contains(line, `"cents":7`) {
						t.Errorf("%s: without the new column", line)
					}
				}
				if want := map[bool]int{true: 1, false: 2}[opts.Snapshot == cdc.SnapshotNever]; len(got) != want {
					t.Errorf("%d events of the table (%q), want %d", len(got), got, want)
				}
				if text := log.String(); !strings.Contains(text, "making it again") || !strings.Contains(text, "changed=public.fares") {
					t.Errorf("the log does not say that the slot was made again, and why:\n%s", text)
				}
			})
		}
	}
}

// What is said of a row includes its schema and the shape of its values.
func TestTypeThatIsAlteredWhileTheSlotIsMadeIsReadAsItIs(t *testing.T) {
	for ddl, tc := range map[string][2]string{
		"ALTER TYPE address ADD ATTRIBUTE zip text": {"INSERT INTO s.fares VALUES (1, ROW('x', '1234'))", `s.fares/1: null -> {"id":1,"at":{"street":"x","zip":"1234"}}`},
		"ALTER SCHEMA s RENAME TO trade":            {"INSERT INTO trade.fares VALUES (1, ROW('x'))", `trade.fares/1: null -> {"id":1,"at":{"street":"x"}}`},
	} {
		t.Run(ddl, func(t *testing.T) {
			url := pgtest.Database(t)
			pgtest.Exec(t, url, seats, "CREATE SCHEMA s", "CREATE TYPE address AS (street text)", "CREATE TABLE s.fares (id int PRIMARY KEY, at address)")
			var rec listenertest.Recorder
			var src *running
			outlives := alterWhileASlotIsMade(t, url, ddl, func() { src = run(t, url, nil, record(t, &rec, nil)) })
			inside(t, outlives, tc[0], "COMMIT")
			<-src.Ready()
			src.caughtUp()
			src.stop()
			if got := lines(rec.Events()); !slices.ContainsFunc(got, func(line string) bool { return strings.HasSuffix(line, tc[1]) }) {
				t.Errorf("these came: %q; want one of %s", got, tc[1])
			}
		})
	}
}

// A slot of somebody else may keep what the server cannot decode.
func TestSlotThatTheServerCannotDecodeIsLost(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, seats, "CREATE TABLE fares (id int PRIMARY KEY)", "CREATE PUBLICATION all_tables FOR ALL TABLES")
	const slot = "theirs"
	made := make(chan error, 1)
	outlives := alterWhileASlotIsMade(t, url, "TRUNCATE fares", func() {
		conn := pgtest.Connect(t, url)
		go func() {
			_, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
			made <- err
		}()
	})
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	inside(t, outlives, "INSERT INTO fares VALUES (1)", "COMMIT")
	opts := cdc.Options{Slot: slot, Publication: "all_tables", StateDir: t.TempDir()}
	err := run(t, url, &opts, record(t, new(listenertest.Recorder), nil)).ended()
	lost, ok := errors.AsType[*cdc.SlotError](err)
	if !ok || !lost.Lost || !strings.Contains(err.Error(), "cannot decode") || !strings.Contains(lost.Remedy, "resnapshot") {
		t.Errorf("Run = %v, want a SlotError that says that the slot is lost, and what to do", err)
	}

	opts.LostSlot = cdc.LostSlotResnapshot
	rec := once(t, url, opts)
	if got := rec.Batches()[0].Kind; got != listeners.Reset {
		t.Errorf("with LostSlotResnapshot the first batch is %s, want a reset", got)
	}
	if got := lines(rec.Events()); !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "fares") }) {
		t.Errorf("with LostSlotResnapshot these came: %q; want the row of the table", got)
	}
}

// A breakingLog breaks something when a message is logged for the first time.
type breakingLog struct {
	slog.Handler
	at     string
	once   *sync.Once
	broken func()
}

func (l breakingLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == l.at {
		l.once.Do(l.broken)
	}
	return l.Handler.Handle(ctx, r)
}

// Nobody would know of it, and it would keep the server's log.
func TestSlotOfASnapshotIsNotLeftWhereTheStateCannotBeStored(t *testing.T) {
	url, dir := pgtest.Database(t), t.TempDir()+"/state"
	conn := pgtest.Connect(t, url)
	makeTables(t, conn, 10, "a")
	var log lockedBuffer
	src := run(t, url, &cdc.Options{StateDir: dir, Logger: slog.New(breakingLog{
		Handler: slog.NewTextHandler(&log, nil), at: "snapshot begins", once: new(sync.Once),
		broken: func() {
			if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
				t.Error(err)
			}
		},
	})}, record(t, new(listenertest.Recorder), nil))
	pgtest.Eventually(t, time.Minute, func() error {
		if !strings.Contains(log.String(), "store the state") {
			return fmt.Errorf("the log does not say that the state cannot be stored:\n%s", log.String())
		}
		return nil
	})
	src.cancel()
	_ = src.ended()
	if names := slotNames(t, conn); len(names) > 0 {
		t.Errorf("the slots are %v, want none", names)
	}
}
