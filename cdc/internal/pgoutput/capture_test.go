package pgoutput_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/rowcall/rowcall/cdc/internal/pgoutput"
	"github.com/rowcall/rowcall/internal/pgtest"
)

var update = flag.Bool("update", false, "write the messages of the installed server to testdata")

var captureFile = filepath.Join("testdata", "capture.hex")

// captureTables exist before the slot does.
const captureTables = `
	CREATE TYPE mood AS ENUM ('sad', 'happy');
	CREATE TABLE by_key (id int PRIMARY KEY, mood mood, note text);
	CREATE TABLE by_row (id int PRIMARY KEY, note text);
	CREATE TABLE by_index (id int, code text NOT NULL UNIQUE, price numeric(6,2));
	CREATE TABLE by_nothing (id int);
	CREATE TABLE by_text (name text PRIMARY KEY, n int);
	CREATE TABLE bare ();
	ALTER TABLE by_key ALTER note SET STORAGE EXTERNAL;
	ALTER TABLE by_row ALTER note SET STORAGE EXTERNAL;
	ALTER TABLE by_text ALTER name SET STORAGE EXTERNAL;
	ALTER TABLE by_row REPLICA IDENTITY FULL;
	ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
	ALTER TABLE by_nothing REPLICA IDENTITY NOTHING;
	ALTER TABLE bare REPLICA IDENTITY FULL;
	CREATE PUBLICATION everything FOR ALL TABLES`

// captureTransactions are what the messages tell. ORIGIN is the name of a
// replication origin, which belongs to a server and not to a database.
var captureTransactions = []string{
	`INSERT INTO by_key VALUES (1, 'happy', repeat('x', 2500)), (2, NULL, '')`,
	`UPDATE by_key SET mood = 'sad' WHERE id = 1; UPDATE by_key SET id = 3 WHERE id = 1; DELETE FROM by_key WHERE id = 2`,
	`INSERT INTO by_row VALUES (1, repeat('y', 2500)); UPDATE by_row SET id = 2; DELETE FROM by_row`,
	`INSERT INTO by_index VALUES (1, 'a', 9.5); UPDATE by_index SET price = 10; UPDATE by_index SET code = 'b'; DELETE FROM by_index`,
	`INSERT INTO by_nothing VALUES (7)`,
	`INSERT INTO by_text VALUES (repeat('z', 2500), 1); UPDATE by_text SET n = 2; DELETE FROM by_text`,
	`INSERT INTO bare DEFAULT VALUES; DELETE FROM bare`,
	`SELECT pg_replication_origin_session_setup('ORIGIN'), pg_replication_origin_xact_setup('0/1234', '2020-01-02 03:04:05+00');
		INSERT INTO by_nothing VALUES (8)`,
	`TRUNCATE by_key, by_row`,
	`TRUNCATE by_index, by_nothing RESTART IDENTITY CASCADE`,
}

var captureWant = []string{
	`begin`,
	`type public.mood`,
	`relation public.by_key d: *id 23, mood user, note 25`,
	`insert by_key: N ("1", "happy", 2500 bytes)`,
	`insert by_key: N ("2", null, "")`,
	`commit`,
	`begin`,
	`update by_key: N ("1", "sad", unchanged)`,
	`update by_key: K ("1", null, null) N ("3", "sad", unchanged)`,
	`delete by_key: K ("2", null, null)`,
	`commit`,
	`begin`,
	`relation public.by_row f: *id 23, *note 25`,
	`insert by_row: N ("1", 2500 bytes)`,
	`update by_row: O ("1", 2500 bytes) N ("2", unchanged)`,
	`delete by_row: O ("2", 2500 bytes)`,
	`commit`,
	`begin`,
	`relation public.by_index i: id 23, *code 25, price 1700`,
	`insert by_index: N ("1", "a", "9.50")`,
	`update by_index: N ("1", "a", "10.00")`,
	`update by_index: K (null, "a", null) N ("1", "b", "10.00")`,
	`delete by_index: K (null, "b", null)`,
	`commit`,
	`begin`,
	`relation public.by_nothing n: id 23`,
	`insert by_nothing: N ("7")`,
	`commit`,
	`begin`,
	`relation public.by_text d: *name 25, n 23`,
	`insert by_text: N (2500 bytes, "1")`,
	`update by_text: K (2500 bytes, null) N (unchanged, "2")`,
	`delete by_text: K (2500 bytes, null)`,
	`commit`,
	`begin`,
	`relation public.bare f: `,
	`insert bare: N ()`,
	`delete bare: O ()`,
	`commit`,
	`begin`,
	`origin 0/1234`,
	`insert by_nothing: N ("8")`,
	`commit`,
	`begin`,
	`truncate by_key by_row`,
	`commit`,
	`begin`,
	`truncate by_index by_nothing, cascade, restart identity`,
	`commit`,
}

func TestCapturedMessages(t *testing.T) {
	if diff := cmp.Diff(captureWant, describe(t, readCapture(t))); diff != "" {
		t.Errorf("messages of %s (-want +got):\n%s", captureFile, diff)
	}
}

func TestMessagesOfTheInstalledServer(t *testing.T) {
	got := capture(t)
	if diff := cmp.Diff(captureWant, describe(t, got)); diff != "" {
		t.Errorf("messages of the server (-want +got):\n%s", diff)
	}
	for _, msg := range got {
		checkTruncations(t, msg)
	}
	if !*update {
		return
	}
	var text strings.Builder
	for _, msg := range got {
		text.WriteString(hex.EncodeToString(msg) + "\n")
	}
	if err := os.WriteFile(captureFile, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkTruncations expects an error for every prefix of a message that has a
// parser, and for a longer one.
func checkTruncations(t *testing.T, msg []byte) {
	t.Helper()
	if msg[0] == pgoutput.TypeType || msg[0] == pgoutput.TypeOrigin {
		return
	}
	for n := range msg {
		if _, err := parse(msg[:n:n]); err == nil {
			t.Errorf("parse of %d of the %d bytes of a %q succeeds, want an error", n, len(msg), msg[0])
		}
	}
	if _, err := parse(append(slices.Clip(msg), 0)); err == nil {
		t.Errorf("parse of a %q with a byte more succeeds, want an error", msg[0])
	}
}

// readCapture returns the messages of the capture file.
func readCapture(t testing.TB) [][]byte {
	t.Helper()
	f, err := os.Open(captureFile)
	if err != nil {
		t.Fatalf("%v; write it with: go test -run InstalledServer -update", err)
	}
	defer f.Close()
	var messages [][]byte
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		msg, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatalf("%s, line %d: %v", captureFile, len(messages)+1, err)
		}
		messages = append(messages, msg)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return messages
}

// capture plays the transactions on the installed server and returns its
// messages.
func capture(t *testing.T) [][]byte {
	t.Helper()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	var name string
	if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, captureTables,
		"SELECT pg_create_logical_replication_slot('"+name+"', 'pgoutput')",
		"SELECT pg_replication_origin_create('"+name+"')")
	t.Cleanup(func() {
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), "SELECT pg_replication_origin_drop($1)", name); err != nil {
			t.Errorf("drop the test's replication origin: %v", err)
		}
	})
	for _, tx := range captureTransactions {
		pgtest.Exec(t, url, strings.ReplaceAll(tx, "ORIGIN", name))
	}

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
	err = pglogrepl.StartReplication(t.Context(), repl, name, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: []string{"proto_version '1'", "publication_names 'everything'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var messages [][]byte
	for commits := 0; commits < len(captureTransactions); {
		received, err := repl.ReceiveMessage(ctx)
		if err != nil {
			t.Fatalf("after %d messages: %v", len(messages), err)
		}
		data, ok := received.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		msg := append([]byte{}, data.Data[25:]...)
		if n := len(messages); msg[0] == pgoutput.TypeCommit && n > 0 && messages[n-1][0] == pgoutput.TypeBegin {
			messages = messages[:n-1] // version 14 sends empty transactions, too
			continue
		}
		messages = append(messages, msg)
		if msg[0] == pgoutput.TypeCommit {
			commits++
		}
	}
	return messages
}

// describe renders messages without what differs from run to run, and checks
// that: positions and times of transactions, and numbers of relations.
func describe(t *testing.T, messages [][]byte) []string {
	t.Helper()
	var (
		lines     []string
		tx        pgoutput.Begin
		last      uint64
		relations = map[uint32]string{}
	)
	once := func(line string) { // servers differ in when they describe a table again
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	for i, msg := range messages {
		parsed, err := parse(msg)
		switch m := parsed.(type) {
		case pgoutput.Begin:
			if m.CommitLSN < last || m.XID == 0 || m.CommitTime.Year() < 2020 {
				t.Errorf("message %d is %+v; want a transaction that commits after %X", i, m, last)
			}
			tx = m
			lines = append(lines, "begin")
		case pgoutput.Commit:
			if m.CommitLSN != tx.CommitLSN || !m.CommitTime.Equal(tx.CommitTime) || m.EndLSN <= m.CommitLSN {
				t.Errorf("message %d is %+v after %+v", i, m, tx)
			}
			last = m.EndLSN
			lines = append(lines, "commit")
		case pgoutput.Relation:
			relations[m.ID] = m.Name
			once("relation " + m.Namespace + "." + m.Name + " " + string(m.Identity) + ": " + columns(m))
		case pgoutput.Truncate:
			line := "truncate"
			for _, id := range m.Relations {
				line += " " + relations[id]
			}
			if m.Cascade {
				line += ", cascade"
			}
			if m.RestartIdentity {
				line += ", restart identity"
			}
			lines = append(lines, line)
		case pgoutput.Row:
			checkOffsets(t, msg, m.New, checkOffsets(t, msg, m.Old, 9))
			line := map[byte]string{'I': "insert ", 'U': "update ", 'D': "delete "}[msg[0]] + relations[m.Relation] + ":"
			if m.Old != nil {
				line += map[bool]string{true: " K ", false: " O "}[m.OldIsKey] + tuple(msg, m.Old)
			}
			if m.New != nil {
				line += " N " + tuple(msg, m.New)
			}
			lines = append(lines, line)
		default:
			switch msg[0] {
			case pgoutput.TypeType:
				names := strings.Split(string(msg[5:]), "\x00")
				once("type " + names[0] + "." + names[1])
			case pgoutput.TypeOrigin:
				lines = append(lines, fmt.Sprintf("origin %s", pglogrepl.LSN(binary.BigEndian.Uint64(msg[1:]))))
			default:
				t.Fatalf("message %d, %q: %v", i, msg, err)
			}
			err = nil
		}
		if err != nil {
			t.Errorf("parse of message %d, %q, = %v", i, msg, err)
		}
	}
	return lines
}

func columns(m pgoutput.Relation) string {
	list := make([]string, len(m.Columns))
	for i, c := range m.Columns {
		list[i] = fmt.Sprintf("%s %d", c.Name, c.TypeID)
		if c.TypeID >= 16384 { // FirstNormalObjectId
			list[i] = c.Name + " user"
		}
		if c.Key {
			list[i] = "*" + list[i]
		}
	}
	return strings.Join(list, ", ")
}

func tuple(msg []byte, cols []uint32) string {
	list := make([]string, len(cols))
	for i, at := range cols {
		switch at {
		case pgoutput.Unchanged:
			list[i] = "unchanged"
		case pgoutput.Null:
			list[i] = "null"
		default:
			size := binary.BigEndian.Uint32(msg[at:])
			if list[i] = fmt.Sprintf("%q", msg[at+4:at+4+size]); size > 100 {
				list[i] = fmt.Sprintf("%d bytes", size)
			}
		}
	}
	return "(" + strings.Join(list, ", ") + ")"
}
