package cdc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
)

// cutInserts puts functions before the server's own two that cut the last byte
// off every insert.
func cutInserts(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, "CREATE SCHEMA faults")
	for _, name := range []string{"pg_logical_slot_peek_binary_changes", "pg_logical_slot_get_binary_changes"} {
		exec(t, conn, "CREATE FUNCTION faults."+name+`(
			slot name, upto pg_lsn, n int, VARIADIC options text[], OUT lsn pg_lsn, OUT xid xid, OUT data bytea) RETURNS SETOF record LANGUAGE sql AS $$
		SELECT lsn, xid, CASE WHEN get_byte(data, 0) = ascii('I') THEN substring(data FROM 1 FOR length(data) - 1) ELSE data END
		FROM pg_catalog.`+name+`(slot, upto, n, VARIADIC options) $$`)
	}
}

// The option holds for what a connection does not stream, too: a backlog, and the
// changes of the tables that a resumed snapshot has already.
func TestUndecodableOptionHoldsWhereverChangesAreRead(t *testing.T) {
	t.Parallel()
	ways := map[string]func(t *testing.T, url, dir string) (l *storedRows, opts cdc.Options){
		"what an interrupted snapshot kept": func(t *testing.T, url, dir string) (*storedRows, cdc.Options) {
			t.Helper()
			return interruptedSnapshot(t, url, dir), cdc.Options{}
		},
		"a backlog": func(t *testing.T, url, dir string) (*storedRows, cdc.Options) {
			t.Helper()
			l := new(storedRows)
			src := run(t, url, &cdc.Options{StateDir: dir}, l.subscribe(t, nil))
			src.caughtUp()
			src.stop()
			return l, cdc.Options{CatchUpBytes: 1}
		},
	}
	for name, before := range ways {
		for _, policy := range []cdc.UndecodablePolicy{cdc.UndecodableStop, cdc.UndecodablePark} {
			t.Run(name+"/"+string(policy), func(t *testing.T) {
				url, dir := pgtest.Database(t), t.TempDir()
				conn := pgtest.Connect(t, url)
				makeTables(t, conn, 300, "a", "b")
				cutInserts(t, conn)
				exec(t, conn, "CREATE PUBLICATION seats FOR TABLE a, b")
				l, opts := before(t, url, dir)
				exec(t, conn, "UPDATE a SET price = -1 WHERE id = 1", "INSERT INTO a VALUES (5000, 1)", "UPDATE a SET price = -2 WHERE id = 2")
				opts.StateDir, opts.Undecodable = dir, policy
				src := run(t, url, &opts, func(s *cdc.Source) {
					s.SearchFirst("faults")
					l.subscribe(t, nil)(s)
				})
				if policy == cdc.UndecodableStop {
					bad, ok := errors.AsType[*cdc.DecodeError](src.ended())
					if !ok || bad.Message != 'I' {
						t.Errorf("Run = %v, want a DecodeError of an insert", src.ended())
					}
					return
				}
				src.caughtUp()
				exec(t, conn, "UPDATE a SET price = -3 WHERE id = 3")
				src.caughtUp()
				src.stop()
				if diff := cmp.Diff([]string{"I"}, parkedTypes(t, filepath.Join(dir, src.Slot()+".parked.jsonl"))); diff != "" {
					t.Errorf("what is parked (-want +got):\n%s", diff)
				}
				exec(t, conn, "DELETE FROM a WHERE id = 5000") // the rest arrived
				l.check(t, conn, "a", "b")
			})
		}
	}
}

func parkedTypes(t *testing.T, path string) (types []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var p cdc.Parked
		if err := json.Unmarshal(line, &p); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		types = append(types, p.Type)
	}
	return types
}
