package pgoutput_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
)

// A dialect is a version of the protocol and what a reader asks for with it.
type dialect struct {
	name    string // of its captures: testdata/pg17-NAME.hex
	since   int    // PostgreSQL
	options []string
	scenes  []scene
}

// A scene is SQL on one connection, and the type of the message to wait for
// before it goes on.
type scene struct {
	sql   string
	await byte // 0: none
}

// filler is of a table that is not published: it outgrows the server's memory
// and sends nothing.
const filler = "INSERT INTO filler SELECT i, repeat('f', 100) FROM generate_series(1, 1000) i"

var streamed = []scene{
	{"BEGIN", 0},
	{"INSERT INTO by_key VALUES (10, 'happy')", 0},
	{filler, 'E'},
	{"SAVEPOINT a", 0},
	{"INSERT INTO by_key VALUES (11)", 0},
	{filler, 'E'},
	{"ROLLBACK TO a", 'A'},
	{"UPDATE by_key SET id = 12 WHERE id = 10", 0},
	{"DELETE FROM by_key WHERE id = 12", 0},
	{"SELECT pg_logical_emit_message(true, 'prefix', 'streamed')", 0},
	{"TRUNCATE by_index", 0},
	{"COMMIT", 'c'},
	{"BEGIN", 0},
	{"INSERT INTO by_row VALUES (20)", 0},
	{filler, 'E'},
	{"ROLLBACK", 'A'},
	{"INSERT INTO by_nothing VALUES (30)", 'C'},
}

var prepared = []scene{
	{"BEGIN", 0},
	{"INSERT INTO by_key VALUES (40)", 0},
	{"PREPARE TRANSACTION 'one'", 'P'},
	{"COMMIT PREPARED 'one'", 'K'},
	{"BEGIN", 0},
	{"INSERT INTO by_key VALUES (41)", 0},
	{"PREPARE TRANSACTION 'two'", 'P'},
	{"ROLLBACK PREPARED 'two'", 'r'},
	{"BEGIN", 0},
	{"INSERT INTO by_key VALUES (42)", 0},
	{filler, 'E'},
	{"PREPARE TRANSACTION 'three'", 'p'},
	{"COMMIT PREPARED 'three'", 'K'},
}

var dialects = []dialect{
	{name: "v1", since: 14, options: []string{"proto_version '1'", "messages 'true'"}, scenes: plain()},
	{name: "v2-streaming", since: 14, options: []string{"proto_version '2'", "messages 'true'", "streaming 'on'"}, scenes: streamed},
	{name: "v3-two-phase", since: 15, options: []string{"proto_version '3'", "messages 'true'", "streaming 'on'", "two_phase 'on'"}, scenes: prepared},
	{name: "v4-parallel", since: 16, options: []string{"proto_version '4'", "messages 'true'", "streaming 'parallel'"}, scenes: streamed},
}

// plain are the transactions of the older capture, messages, and a column that
// is generated.
func plain() []scene {
	scenes := []scene{
		{"SELECT pg_logical_emit_message(false, 'prefix', 'at once')", 'M'},
		{"SELECT pg_logical_emit_message(true, 'prefix', 'in a transaction')", 'C'},
		{"INSERT INTO with_generated (id) VALUES (4)", 'C'},
	}
	for _, tx := range captureTransactions {
		scenes = append(scenes, scene{strings.ReplaceAll(tx, "ORIGIN", "elsewhere"), 'C'})
	}
	return scenes
}

func (d *dialect) file(major int) string {
	return filepath.Join("testdata", fmt.Sprintf("pg%d-%s.hex", major, d.name))
}

// TestCaptureOfTheInstalledServer compares the kinds of messages that the
// server sends with those of its capture. To write the captures anew, for all
// versions:
//
//	for v in 14 15 16 17 18; do
//		ROWCALL_PG_BIN=$(go run ./internal/tools/pgfetch $v) go test ./cdc/internal/pgoutput -run CaptureOfThe -update
//	done
func TestCaptureOfTheInstalledServer(t *testing.T) {
	srv := pgtest.Own(t, map[string]string{"logical_decoding_work_mem": "64kB", "max_prepared_transactions": "4", "autovacuum": "off"})
	url := srv.URL("postgres")
	tables := "CREATE TABLE filler (id int, note text); CREATE TABLE with_generated (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);" +
		strings.ReplaceAll(captureTables, "CREATE PUBLICATION everything FOR ALL TABLES",
			"CREATE PUBLICATION everything FOR TABLE by_key, by_row, by_index, by_nothing, by_text, bare, with_generated")
	if srv.Version() >= 18 {
		tables += " WITH (publish_generated_columns = stored)"
	}
	pgtest.Exec(t, url, tables, "SELECT pg_replication_origin_create('elsewhere')")
	for _, d := range dialects {
		if srv.Version() < d.since {
			continue
		}
		got := d.play(t, srv)
		if !*update {
			want := captured(t, d.file(srv.Version()))
			if have, expect := kinds(got), kinds(want); have != expect {
				t.Errorf("%s: the server sends messages of the types %s, %s has %s", d.name, have, d.file(srv.Version()), expect)
			}
			continue
		}
		var text bytes.Buffer
		var version string
		if err := pgtest.Connect(t, url).QueryRow(t.Context(), "SHOW server_version").Scan(&version); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "# PostgreSQL %s with %s sends for\n", version, strings.Join(d.options, ", "))
		for _, s := range d.scenes {
			fmt.Fprintf(&text, "#   %s\n", strings.Join(strings.Fields(s.sql), " "))
		}
		for _, msg := range got {
			fmt.Fprintln(&text, hex.EncodeToString(msg))
		}
		if err := os.WriteFile(d.file(srv.Version()), text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// kinds are the types of messages, each once, in alphabetical order.
func kinds(messages [][]byte) string {
	var seen [256]bool
	for _, msg := range messages {
		seen[msg[0]] = true
	}
	var list []byte
	for b, ok := range seen {
		if ok {
			list = append(list, byte(b))
		}
	}
	return string(list)
}

// play runs the scenes while a reader reads: what is streamed is sent before
// its end is known.
func (d *dialect) play(t *testing.T, srv *pgserver.Server) [][]byte {
	t.Helper()
	url := srv.URL("postgres")
	conn, other := pgtest.Connect(t, url), pgtest.Connect(t, url)
	run := func(conn *pgx.Conn, sql string) {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %s: %v", d.name, sql, err)
		}
	}
	twoPhase := strings.Contains(d.name, "two-phase")
	slot := strings.ReplaceAll(d.name, "-", "_")
	run(conn, fmt.Sprintf("SELECT pg_create_logical_replication_slot('%s', 'pgoutput', false, %t)", slot, twoPhase))
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	repl, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer repl.Close(context.WithoutCancel(t.Context()))
	err = pglogrepl.StartReplication(t.Context(), repl, slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: append([]string{"publication_names 'everything'"}, d.options...),
	})
	if err != nil {
		t.Fatalf("%s: %v", d.name, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var messages [][]byte
	for _, s := range d.scenes {
		run(conn, s.sql)
		run(other, "INSERT INTO filler VALUES (0)") // its commit flushes the log
		for s.await != 0 {
			received, err := repl.ReceiveMessage(ctx)
			if err != nil {
				t.Fatalf("%s: %s: no %q after %d messages: %v", d.name, s.sql, s.await, len(messages), err)
			}
			data, ok := received.(*pgproto3.CopyData)
			if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
				continue
			}
			msg := bytes.Clone(data.Data[25:])
			n := len(messages)
			if msg[0] == 'C' && n > 0 && messages[n-1][0] == 'B' {
				messages = messages[:n-1] // version 14 sends empty transactions, too
				continue
			}
			messages = append(messages, msg)
			if msg[0] == s.await {
				break
			}
		}
	}
	return messages
}

// captured returns the messages of a capture.
func captured(t testing.TB, file string) [][]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var messages [][]byte
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		msg, err := hex.DecodeString(lines.Text())
		if err != nil || len(msg) == 0 {
			t.Fatalf("%s: message %d: %q, %v", file, len(messages)+1, lines.Text(), err)
		}
		messages = append(messages, msg)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return messages
}

// captures returns the files of all versions.
func captures(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "pg*.hex"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCapturesOfEachVersion(t *testing.T) {
	want := map[string]string{ // types of messages
		"v1":           "BCDIMORTUY",
		"v2-streaming": "ABCDEIMRSTUYc",
		"v3-two-phase": "EIKPRSYbpr",
		"v4-parallel":  "ABCDEIMRSTUYc",
	}
	for major := 14; major <= 18; major++ {
		for _, d := range dialects {
			if major < d.since {
				continue
			}
			t.Run(fmt.Sprintf("%d %s", major, d.name), func(t *testing.T) {
				messages := captured(t, d.file(major))
				if got := kinds(messages); got != want[d.name] {
					t.Errorf("messages are of the types %s, want %s", got, want[d.name])
				}
				checkStream(t, messages)
			})
		}
	}
}

// checkStream parses what has a parser. Within a stream, the number of the
// transaction stands between a message's type and its fields.
func checkStream(t *testing.T, messages [][]byte) {
	t.Helper()
	inStream := false
	for i, msg := range messages {
		switch msg[0] {
		case 'S', 'E':
			if inStream == (msg[0] == 'S') {
				t.Errorf("message %d is %q, in a stream: %t", i, msg[0], inStream)
			}
			inStream = msg[0] == 'S'
		case 'B', 'C', 'R', 'I', 'U', 'D', 'T':
			if inStream {
				msg = append([]byte{msg[0]}, msg[5:]...)
			}
			if _, err := parse(msg); err != nil {
				t.Errorf("parse of message %d, %q, = %v", i, msg, err)
			}
			checkTruncations(t, msg)
		}
	}
}

// TestCaptureOfSavepoints looks at the messages that tell a savepoint's end
// from a transaction's.
func TestCaptureOfSavepoints(t *testing.T) {
	for _, file := range captures(t) {
		if !strings.Contains(file, "streaming") && !strings.Contains(file, "parallel") {
			continue
		}
		var aborts []string
		for _, msg := range captured(t, file) {
			if msg[0] != 'A' {
				continue
			}
			what := map[bool]string{true: "transaction", false: "savepoint"}[bytes.Equal(msg[1:5], msg[5:9])]
			aborts = append(aborts, fmt.Sprintf("%s %d", what, len(msg)))
		}
		want := "[savepoint 9 transaction 9]"
		if strings.Contains(file, "parallel") {
			want = "[savepoint 25 transaction 25]" // with the position and the time
		}
		if got := fmt.Sprint(aborts); got != want {
			t.Errorf("%s: aborts are %s, want %s", file, got, want)
		}
	}
}
