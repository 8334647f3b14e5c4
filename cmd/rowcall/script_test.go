package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
)

// TestMain makes this test binary behave as rowcall when it is called so.
func TestMain(m *testing.M) {
	testscript.Main(rabbittest.Wrap(pgtest.Wrap(m)), map[string]func(){"rowcall": main})
}

// patience is how long a script waits for something to happen.
const patience = 2 * time.Minute

// TestScripts runs the scripts in testdata. Each has a database of its own,
// $DATABASE_URL, named $DB, with the slot $SLOT to be. Beyond the commands of
// testscript there are:
//
//	database                  creates that database
//	server [NAME=VALUE...]    starts a PostgreSQL server of its own and uses that
//	passwords                 makes that server ask for passwords
//	login ROLE PASSWORD       sets $LOGIN_URL, the database's URL for that role
//	sql QUERY...              prints the rows, columns separated by "|"
//	until OUTPUT QUERY        waits until the query prints this
//	streaming                 waits until somebody reads $SLOT
//	hold                      keeps a transaction open, which new slots wait for
//	[!] created               there is a slot or a publication
//	nats                      starts a NATS server, $NATS_URL
//	stream NAME               creates a stream there that holds one message, not an event
//	kafka                     starts a fake Kafka, $KAFKA_URL
//	records TOPIC             prints keys and values of what is committed there
//	purge SEQUENCE            removes what the stream holds before that
//	securenats [DOMAIN]       starts a NATS server that wants TLS and an NKEY, see there
//	importnats                starts a NATS server whose users have JetStream of another account, see there
//	securekafka               starts a fake Kafka that wants TLS and a user, see there
//	bucket NAME               prints the keys and values of a bucket there
//	nobucket NAME             deletes it
//	rabbitmq                  starts a RabbitMQ, $AMQP_URL; commands are sent and served there
//	bind QUEUE EXCHANGE KEY   makes a queue there that gets what has this routing key
//	take QUEUE                prints routing keys and bodies of what is in it
//	freeport NAME             sets $NAME to a port that nobody uses
//	usedport NAME             sets $NAME to a port that somebody uses
//	waitfile FILE TEXT        waits until the file holds the text
//	command QUEUE NAME ID BODY  sends a command
//	serve QUEUE N [ERROR]     carries out as many commands as N has strokes, or lets them fail
//	jsonl FILE NAME...        prints these members of each JSON object, "a.b" of nested ones
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"database":  scriptDatabase,
			"server":    scriptServer,
			"passwords": scriptPasswords,
			"login":     scriptLogin,
			"sql":       scriptSQL,
			"until":     scriptUntil,
			"streaming": scriptStreaming,
			"hold":      scriptHold,
			"created":   scriptCreated,
			"nats":      scriptNATS,
			"stream":    scriptStream,
			"kafka":     scriptKafka,
			"records":   scriptRecords,
			"purge":     scriptPurge,
			"rabbitmq":  scriptRabbitMQ,
			"nobucket":  scriptNoBucket,
			"bucket":    scriptBucket,

			"securenats":  scriptSecureNATS,
			"importnats":  scriptImportNATS,
			"securekafka": scriptSecureKafka,
			"bind":        scriptBind,
			"take":        scriptTake,
			"freeport":    scriptFreePort,
			"usedport":    scriptUsedPort,
			"waitfile":    scriptWaitFile,
			"jsonl":       scriptJSONL,
			"command":     scriptCommand,
			"serve":       scriptServe,
		},
		Setup: func(env *testscript.Env) error {
			env.Values[testKey{}] = env.T()
			env.Setenv("GORACE", raceOptions())
			return nil
		},
	})
}

// raceOptions are those of the race detector in the programs that a test runs: it
// has each sleep for a second before it exits, in case that other goroutines still
// find something. Rowcall waits for its own before.
func raceOptions() string { return cmp.Or(os.Getenv("GORACE"), "atexit_sleep_ms=10") }

type testKey struct{}

// tb returns the test of a script.
func tb(ts *testscript.TestScript) testing.TB {
	t, ok := ts.Value(testKey{}).(testing.TB)
	if !ok {
		ts.Fatalf("testscript's T is no testing.TB any more")
	}
	return t
}

func wantArgs(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

func useDatabase(ts *testscript.TestScript, databaseURL string) {
	u, err := url.Parse(databaseURL)
	ts.Check(err)
	name := strings.TrimPrefix(u.Path, "/")
	ts.Setenv("DATABASE_URL", databaseURL)
	ts.Setenv("DB", name)
	ts.Setenv("SLOT", "rowcall_"+name)
}

func scriptDatabase(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "database")
	useDatabase(ts, pgtest.Database(tb(ts)))
}

func scriptServer(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "server [NAME=VALUE...]")
	settings := make(map[string]string)
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		settings[name] = value
	}
	s := pgtest.Own(tb(ts), settings)
	ts.Setenv("SERVER_DIR", s.Dir())
	pgtest.Exec(tb(ts), s.URL("postgres"), "CREATE DATABASE shop")
	useDatabase(ts, s.URL("shop"))
}

func scriptPasswords(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "passwords")
	hba := filepath.Join(ts.Getenv("SERVER_DIR"), "data", "pg_hba.conf")
	text := "host all postgres 127.0.0.1/32 trust\n" +
		"host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"
	ts.Check(os.WriteFile(hba, []byte(text), 0o600))
	pgtest.Exec(tb(ts), ts.Getenv("DATABASE_URL"), "SELECT pg_reload_conf()")
}

func scriptLogin(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "login ROLE PASSWORD")
	u, err := url.Parse(ts.Getenv("DATABASE_URL"))
	ts.Check(err)
	u.User = url.UserPassword(args[0], args[1])
	ts.Setenv("LOGIN_URL", u.String())
}

func query(ctx context.Context, databaseURL, sql string) (string, error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("%s: %w", sql, err)
	}
	var out strings.Builder
	for _, result := range results {
		for _, row := range result.Rows {
			out.Write(bytes.Join(row, []byte("|")))
			out.WriteByte('\n')
		}
	}
	return out.String(), nil
}

func scriptSQL(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "sql QUERY...")
	for _, sql := range args {
		out, err := query(tb(ts).Context(), ts.Getenv("DATABASE_URL"), sql)
		ts.Check(err)
		fmt.Fprint(ts.Stdout(), out)
	}
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "until OUTPUT QUERY")
	pgtest.Eventually(tb(ts), patience, func() error {
		out, err := query(tb(ts).Context(), ts.Getenv("DATABASE_URL"), args[1])
		if err == nil && strings.TrimSpace(out) != args[0] {
			err = fmt.Errorf("%s printed %q, want %q", args[1], out, args[0])
		}
		return err
	})
}

func scriptStreaming(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "streaming")
	// A slot is also active while it is made; only a walsender reads it.
	scriptUntil(ts, false, []string{"streaming", fmt.Sprintf(
		"SELECT state FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = '%s'", ts.Getenv("SLOT"))})
}

func scriptHold(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "hold")
	conn := pgtest.Connect(tb(ts), ts.Getenv("DATABASE_URL"))
	_, err := conn.Exec(tb(ts).Context(), "BEGIN; SELECT pg_current_xact_id()")
	ts.Check(err)
}

func scriptCreated(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) > 0 {
		ts.Fatalf("usage: [!] created")
	}
	out, err := query(tb(ts).Context(), ts.Getenv("DATABASE_URL"), `
		SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
		UNION ALL SELECT 'publication ' || pubname FROM pg_publication`)
	ts.Check(err)
	if (out == "") != neg {
		ts.Fatalf("in the database there is: %q", out)
	}
}

func scriptNATS(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0, "nats")
	ts.Setenv("NATS_URL", natstest.Run(tb(ts)).URL())
}

func scriptStream(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "stream NAME")
	ctx := tb(ts).Context()
	nc, err := nats.Connect(ts.Getenv("NATS_URL"))
	ts.Check(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	ts.Check(err)
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: args[0], Subjects: []string{"cdc.other.>"}})
	ts.Check(err)
	_, err = js.Publish(ctx, "cdc.other.hello", []byte("hello"))
	ts.Check(err)
}

func listen(port int) (*net.TCPListener, error) {
	return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}

// freePort returns a port from below the range of outgoing connections and of
// listeners that leave it to the system, so that none of those has it before it
// is used, or while a server restarts.
func freePort(t testing.TB) int {
	t.Helper()
	const low, high = 10000, 14999 // the servers of the tests are above
	for range 100 {
		port := low + rand.IntN(high-low+1)
		if l, err := listen(port); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no port from %d to %d is free", low, high)
	return 0
}

func scriptFreePort(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "freeport NAME")
	ts.Setenv(args[0], strconv.Itoa(freePort(tb(ts))))
}

func scriptUsedPort(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1, "usedport NAME")
	l, err := listen(0)
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

func scriptWaitFile(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "waitfile FILE TEXT")
	pgtest.Eventually(tb(ts), patience, func() error {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && !strings.Contains(string(text), args[1]) {
			err = fmt.Errorf("%s does not hold %q, but:\n%s", args[0], args[1], text)
		}
		return err
	})
}

func scriptJSONL(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2, "jsonl FILE NAME...")
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	for d.More() {
		var object map[string]any
		ts.Check(d.Decode(&object))
		var values []string
		for _, path := range args[1:] {
			value, err := json.Marshal(member(object, path))
			ts.Check(err)
			values = append(values, string(value))
		}
		fmt.Fprintln(ts.Stdout(), strings.Join(values, " "))
	}
}

// member returns what a path such as "data.key" leads to, nil if nothing.
func member(object map[string]any, path string) any {
	first, rest, nested := strings.Cut(path, ".")
	if !nested {
		return object[first]
	}
	inner, _ := object[first].(map[string]any)
	return member(inner, rest)
}
