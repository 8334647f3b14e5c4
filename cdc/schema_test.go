package cdc_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A schemaStep is statements and the events that they cause.
type schemaStep struct {
	name    string
	sql     []string
	want    []string
	backlog []string // where it is not want, since the catalog is ahead of the stream
}

var schemaSteps = []schemaStep{
	{name: "a table", sql: []string{
		"CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'x')",
	}, want: []string{`create public.t/1: null -> {"id":1,"a":"x"}`}},
	{name: "add a column", sql: []string{
		"ALTER TABLE t ADD b int DEFAULT 7", "INSERT INTO t VALUES (2, 'y')", "UPDATE t SET a = 'z' WHERE id = 1",
	}, want: []string{`create public.t/2: null -> {"id":2,"a":"y","b":7}`, `update public.t/1: null -> {"id":1,"a":"z","b":7}`}},
	{name: "add a column in the middle of a transaction", sql: []string{
		"BEGIN", "INSERT INTO t VALUES (30, 'y', 1)", "ALTER TABLE t ADD bb bool", "INSERT INTO t VALUES (31, 'y', 1, true)", "COMMIT",
	}, want: []string{`create public.t/30: null -> {"id":30,"a":"y","b":1}`, `create public.t/31: null -> {"id":31,"a":"y","b":1,"bb":true}`}},
	{name: "add a column and take it back", sql: []string{
		"BEGIN", "SAVEPOINT s", "ALTER TABLE t ADD never int", "INSERT INTO t VALUES (40)", "ROLLBACK TO s", "INSERT INTO t VALUES (41)", "COMMIT",
	}, want: []string{`create public.t/41: null -> {"id":41,"a":null,"b":7,"bb":null}`}},
	{name: "drop columns", sql: []string{
		"ALTER TABLE t DROP a, DROP bb", "INSERT INTO t VALUES (3, 8)",
	}, want: []string{`create public.t/3: null -> {"id":3,"b":8}`}},
	{name: "rename a column", sql: []string{
		"ALTER TABLE t RENAME b TO c", "INSERT INTO t VALUES (4, 9)",
	}, want: []string{`create public.t/4: null -> {"id":4,"c":9}`}},
	{name: "another type", sql: []string{
		"ALTER TABLE t ALTER c TYPE text", "INSERT INTO t VALUES (5, '10')",
		"ALTER TABLE t ALTER c TYPE bigint USING c::bigint", "INSERT INTO t VALUES (6, 3000000000)",
	}, want: []string{`create public.t/5: null -> {"id":5,"c":"10"}`, `create public.t/6: null -> {"id":6,"c":3000000000}`}},
	{name: "rename the table", sql: []string{
		"ALTER TABLE t RENAME TO u", "INSERT INTO u VALUES (7, 70)",
	}, want: []string{`create public.u/7: null -> {"id":7,"c":70}`}},
	{name: "another key", sql: []string{
		"TRUNCATE u", "INSERT INTO u VALUES (7, 70)", "ALTER TABLE u DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (c)", "UPDATE u SET id = 8", "UPDATE u SET c = 71",
	}, want: []string{
		`truncate public.u/: null -> null`, `create public.u/7: null -> {"id":7,"c":70}`,
		`update public.u/70: null -> {"id":8,"c":70}`, `update public.u/71: null -> {"id":8,"c":71}`,
	}},
	{name: "drop it and make another", sql: []string{
		"DROP TABLE u", "CREATE TABLE u (code text PRIMARY KEY, n int)", "INSERT INTO u VALUES ('A', 1)",
	}, want: []string{`create public.u/A: null -> {"code":"A","n":1}`}},
	{name: "replica identities", sql: []string{
		"ALTER TABLE u REPLICA IDENTITY FULL", "UPDATE u SET n = 2",
		"ALTER TABLE u REPLICA IDENTITY NOTHING", "INSERT INTO u VALUES ('B', 1)",
		"ALTER TABLE u ALTER n SET NOT NULL, ADD UNIQUE (n)", "ALTER TABLE u REPLICA IDENTITY USING INDEX u_n_key",
		"UPDATE u SET n = 3 WHERE n = 2",
		"ALTER TABLE u REPLICA IDENTITY DEFAULT", "DELETE FROM u",
	}, want: []string{
		`update public.u/A: {"code":"A","n":1} -> {"code":"A","n":2}`, `create public.u/B: null -> {"code":"B","n":1}`,
		`update public.u/3: null -> {"code":"A","n":3}`,
		`delete public.u/B: null -> null`, `delete public.u/A: null -> null`,
	}},
	{name: "an enum", sql: []string{
		"CREATE TYPE mood AS ENUM ('sad')", "ALTER TABLE u ADD m mood", "INSERT INTO u VALUES ('C', 1, 'sad')",
		"ALTER TYPE mood ADD VALUE 'so so'", "INSERT INTO u VALUES ('D', 2, 'so so')",
		"ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "UPDATE u SET n = 3 WHERE code = 'C'",
	}, want: []string{
		`create public.u/C: null -> {"code":"C","n":1,"m":"sad"}`, `create public.u/D: null -> {"code":"D","n":2,"m":"so so"}`,
		`update public.u/C: null -> {"code":"C","n":3,"m":"blue"}`,
	}},
	{name: "a composite", sql: []string{
		"CREATE TYPE pair AS (a int, b text)", "ALTER TABLE u DROP m, ADD p pair", "INSERT INTO u VALUES ('E', 5, (1, 'x'))",
		"ALTER TYPE pair ADD ATTRIBUTE c bool", "INSERT INTO u VALUES ('F', 6, (1, 'x', true))",
	}, want: []string{
		`create public.u/E: null -> {"code":"E","n":5,"p":{"a":1,"b":"x"}}`, `create public.u/F: null -> {"code":"F","n":6,"p":{"a":1,"b":"x","c":true}}`,
	}, backlog: []string{
		`create public.u/E: null -> {"code":"E","n":5,"p":"(1,x)"}`, `create public.u/F: null -> {"code":"F","n":6,"p":{"a":1,"b":"x","c":true}}`,
	}},
	{name: "a full identity, and the key is renamed", sql: []string{
		"CREATE TABLE f (id int PRIMARY KEY, v int)", "ALTER TABLE f REPLICA IDENTITY FULL", "INSERT INTO f VALUES (1, 1)",
		"ALTER TABLE f RENAME id TO no", "UPDATE f SET v = 2", "UPDATE f SET no = 2",
	}, want: []string{
		`create public.f/1: null -> {"id":1,"v":1}`, `update public.f/1: {"no":1,"v":1} -> {"no":1,"v":2}`, `update public.f/2: {"no":1,"v":2} -> {"no":2,"v":2}`,
	}},
	{name: "a full identity, and the key is renamed beside a new column", sql: []string{
		"CREATE TABLE g (id int PRIMARY KEY)", "ALTER TABLE g REPLICA IDENTITY FULL", "INSERT INTO g VALUES (1)",
		"ALTER TABLE g RENAME id TO no", "ALTER TABLE g ADD v int", "INSERT INTO g VALUES (2, 2)",
	}, want: []string{
		`create public.g/1: null -> {"id":1}`, `create public.g/2: null -> {"no":2,"v":2}`,
	}, backlog: []string{
		`create public.g/: null -> {"id":1}`, `create public.g/2: null -> {"no":2,"v":2}`, // the catalog cannot tell the key of then
	}},
}

func TestSchemaChangesLive(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	for _, step := range schemaSteps {
		before := len(rec.Events())
		for _, sql := range step.sql {
			exec(t, conn, sql)
			if conn.PgConn().TxStatus() == 'I' {
				src.caughtUp()
			}
		}
		if diff := cmp.Diff(step.want, lines(rec.Events()[before:])); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", step.name, diff)
		}
	}
}

// All of it happens while no source runs: what the stream does not say, the
// catalog knows as it is at the end.
func TestSchemaChangesInABacklog(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	src.stop()
	var want []string
	for _, step := range schemaSteps {
		exec(t, conn, step.sql...)
		if step.backlog != nil {
			want = append(want, step.backlog...)
		} else {
			want = append(want, step.want...)
		}
	}
	rec = listenertest.Recorder{}
	var log lockedBuffer
	src = run(t, url, &cdc.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, record(t, &rec, nil))
	src.caughtUp()
	if diff := cmp.Diff(want, lines(rec.Events())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if n := strings.Count(log.String(), "table=public.g reason="); n != 1 {
		t.Errorf("%d warnings of the lost key, want one; the log:\n%s", n, log.String())
	}
}

// A lockedBuffer is a log that several goroutines write and a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A schema's version is the same in a snapshot, in the stream, and in the next
// process, and another one from a change on.
func TestSchemaVersionTellsAChange(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE t (id int PRIMARY KEY, a text)", "CREATE TABLE f (id int PRIMARY KEY, a text)", "ALTER TABLE f REPLICA IDENTITY FULL",
		"INSERT INTO t VALUES (1)", "INSERT INTO f VALUES (1)")
	var mu sync.Mutex
	var got []string
	numbers := make(map[uint64]int)
	play := func(statements ...string) {
		src := run(t, url, nil, func(src *cdc.Source) {
			_, err := src.Subscribe("versions", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range b.Events {
					n, ok := numbers[e.Schema.Version()]
					if !ok {
						n = len(numbers) + 1
						numbers[e.Schema.Version()] = n
					}
					got = append(got, fmt.Sprintf("%s %s/%s v%d", e.Op, e.Schema.Name, e.Key(), n))
				}
				return nil
			}), nil)
			if err != nil {
				t.Fatal(err)
			}
		})
		<-src.Ready()
		src.caughtUp()
		exec(t, conn, statements...)
		src.caughtUp()
		src.stop()
	}
	play("INSERT INTO t VALUES (2)", "UPDATE f SET a = 'x'", "ALTER TABLE t ADD b int", "INSERT INTO t VALUES (3)")
	play("INSERT INTO t VALUES (4)", "ALTER TABLE t DROP b", "INSERT INTO t VALUES (5)")
	want := []string{"read f/1 v1", "read t/1 v1", "create t/2 v1", "update f/1 v1", "create t/3 v2", "create t/4 v2", "create t/5 v1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events with the versions of their schemas (-want +got):\n%s", diff)
	}
}
