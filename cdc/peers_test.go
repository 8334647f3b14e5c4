package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// Readers of logical replication have lost or doubled changes in these ways.
// Each has a test, here or elsewhere:
//
//	rows of transactions that interleave     TestInterleavedTransactionsArriveInCommitOrder
//	a stop between adjacent commits          TestAStopBetweenAdjacentCommitsLosesNothing
//	a crash within a COPY, one LSN for all   TestACrashInTheMiddleOfACOPYLosesNothing
//	savepoints of a large transaction        TestSavepointsOfALargeTransaction
//	a large transaction that is rolled back  TestALargeTransactionThatIsRolledBack
//	a new key beside an unchanged TOAST      TestUnchangedTOASTIsNeverNull
//	keepalives beside what is not stored     TestKeepalivesConfirmNothingThatIsNotStored
//	negative and sparse keys in a snapshot   TestSnapshotReadsEveryKey
//	tables altered between snapshot and read TestSnapshotNoticesAlteredTables
//	a sink that stalls for long              TestStalledListenerKeepsTheConnection
//	a slot that is another one               TestDroppedSlotIsRecognised
//	a server that crashes                    TestServerRestartLosesNothing

// A keeper remembers what it stored, beyond its source, and breaks down before
// an event when told so.
type keeper struct {
	mu     sync.Mutex
	last   listeners.Position
	keys   []string
	breaks func(stored int) bool
}

var errBroken = errors.New("broken down")

func (k *keeper) OnBatch(_ context.Context, b *listeners.Batch) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range b.Events {
		e := &b.Events[i]
		if e.Position.Compare(k.last) <= 0 {
			continue
		}
		if k.breaks != nil && k.breaks(len(k.keys)) {
			return errBroken
		}
		k.keys, k.last = append(k.keys, e.Key().String()), e.Position
	}
	return nil
}

func (k *keeper) subscribe(t testing.TB) func(*cdc.Source) {
	return func(src *cdc.Source) {
		if _, err := src.Subscribe("keeper", k, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// The next commit record may begin at the byte where the last one ends: what is
// confirmed has to be that byte exactly.
func TestAStopBetweenAdjacentCommitsLosesNothing(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY)")
	var k keeper
	src := run(t, url, nil, k.subscribe(t))
	src.caughtUp()
	src.stop()
	const n = 12
	var commits []func()
	for i := range n {
		writer := pgtest.Connect(t, url)
		exec(t, writer, "BEGIN", fmt.Sprintf("INSERT INTO seats VALUES (%d)", i+1))
		commits = append(commits, func() { exec(t, writer, "COMMIT") })
	}
	for _, commit := range commits {
		commit()
	}
	adjacent := 0
	for i := range n {
		k.breaks = func(stored int) bool { return stored > i }
		src := run(t, url, nil, k.subscribe(t))
		if i < n-1 {
			if err := src.ended(); !errors.Is(err, errBroken) {
				t.Fatalf("Run = %v, want the listener's error after transaction %d", err, i+1)
			}
		} else {
			src.caughtUp()
			src.stop()
		}
		k.breaks = nil
		confirmed := src.Stats().Confirmed
		if i < n-1 && count(t, conn, `
			SELECT count(*) FROM pg_logical_slot_peek_binary_changes($1, NULL, 1, 'proto_version', '1', 'publication_names', $2)
			WHERE get_byte(data, 0) = 66 AND substr(data, 2, 8) = decode(lpad(to_hex($3::bigint), 16, '0'), 'hex')`,
			src.Slot(), src.Publication(), int64(confirmed)) > 0 {
			adjacent++
		}
	}
	wantSequence(t, k.keys, n)
	if adjacent < n/2 {
		t.Errorf("only %d of %d commits begin where the confirmed one ends: the test does not test much", adjacent, n-1)
	}
}

// All rows that a COPY puts into a page have one LSN.
func TestACrashInTheMiddleOfACOPYLosesNothing(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"logical_decoding_work_mem": "64kB"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, note text)")
	var k keeper
	opts := &cdc.Options{MaxBatchBytes: 5_000}
	src := run(t, url, opts, k.subscribe(t))
	src.caughtUp()
	src.stop()
	var rows strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&rows, "%d\tnote\n", i+1)
	}
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(rows.String()), "COPY seats FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	for i, stop := range []int{1, 2, 1234, 2345, 4999} {
		k.breaks = func(stored int) bool { return stored >= stop }
		src := run(t, url, opts, k.subscribe(t))
		if err := src.ended(); !errors.Is(err, errBroken) || len(k.keys) != stop {
			t.Fatalf("Run = %v after %d rows, want the listener's error after %d", err, len(k.keys), stop)
		}
		if i == 2 {
			restart(t, srv, pgserver.Immediate)
		}
	}
	k.breaks = nil
	src = run(t, url, opts, k.subscribe(t))
	src.caughtUp()
	wantSequence(t, k.keys, 5000)
}

func TestSavepointsOfALargeTransaction(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"logical_decoding_work_mem": "64kB"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY, place int, note text DEFAULT repeat('n', 50))")
	insert := func(from, to int) string {
		return fmt.Sprintf("INSERT INTO seats (id) SELECT generate_series(%d, %d)", from, to)
	}
	for name, tc := range map[string]struct {
		sql  []string
		want int // keys from 1 on
	}{
		"the middle of three parts": {sql: []string{
			insert(1, 2000), "SAVEPOINT a", insert(10001, 12000), "ROLLBACK TO a", insert(2001, 2001),
		}, want: 2001},
		"nested": {sql: []string{
			insert(1, 1000), "SAVEPOINT a", insert(1001, 2000), "SAVEPOINT b", insert(10001, 11000), "SAVEPOINT c", insert(20001, 21000),
			"RELEASE c", insert(30001, 31000), "ROLLBACK TO b", insert(2001, 3000), "RELEASE a", "SAVEPOINT a", insert(40001, 41000), "ROLLBACK TO a", insert(3001, 3001),
		}, want: 3001},
		"the outer after the inner was kept": {sql: []string{
			insert(1, 1000), "SAVEPOINT a", insert(10001, 11000), "SAVEPOINT b", insert(20001, 21000), "RELEASE b", "ROLLBACK TO a", insert(1001, 1500),
		}, want: 1500},
		"all but the beginning": {sql: []string{
			insert(1, 1), "SAVEPOINT a", insert(10001, 14000), "ROLLBACK TO a",
		}, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			exec(t, conn, "TRUNCATE seats")
			var rec listenertest.Recorder
			src := run(t, url, nil, record(t, &rec, nil))
			<-src.Ready()
			src.caughtUp()
			before := len(keys(&rec))
			exec(t, conn, "BEGIN")
			exec(t, conn, tc.sql...)
			exec(t, conn, "COMMIT")
			src.caughtUp()
			wantSequence(t, keys(&rec)[before:], tc.want)
			src.stop()
		})
	}
}

// A transaction that outgrew the server's memory before it was rolled back
// leaves nothing, and no message that ends the source.
func TestALargeTransactionThatIsRolledBack(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"logical_decoding_work_mem": "64kB"})
	url := srv.URL("postgres")
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, note text)")
	var k keeper
	src := run(t, url, nil, k.subscribe(t))
	src.caughtUp()
	for i, backlog := range []bool{false, true} {
		if backlog {
			src.stop() // then the server knows the end when it reads the beginning
		}
		exec(t, conn, "BEGIN", "INSERT INTO seats SELECT i, repeat('n', 100) FROM generate_series(100, 9000) i", "SAVEPOINT s",
			"INSERT INTO seats SELECT i, repeat('n', 100) FROM generate_series(10000, 19000) i", "ROLLBACK",
			fmt.Sprintf("INSERT INTO seats VALUES (%d)", i+1))
		if backlog {
			src = run(t, url, nil, k.subscribe(t))
		}
		src.caughtUp()
	}
	// A crash rolls back without a word in the log.
	src.stop()
	exec(t, conn, "BEGIN", "INSERT INTO seats SELECT i, repeat('n', 100) FROM generate_series(20000, 29000) i")
	exec(t, pgtest.Connect(t, url), "INSERT INTO seats VALUES (3)")
	restart(t, srv, pgserver.Immediate)
	src = run(t, url, nil, k.subscribe(t))
	exec(t, pgtest.Connect(t, url), "INSERT INTO seats VALUES (4)", "CHECKPOINT", "INSERT INTO seats VALUES (5)")
	src.caughtUp()
	src.stop()
	wantSequence(t, k.keys, 5)
}

// A taker takes and stores nothing.
type taker struct {
	listenertest.Recorder
}

func (*taker) Stored() listeners.Position  { return listeners.Position{} }
func (*taker) Stalled() <-chan struct{}    { return nil }
func (*taker) Flush(context.Context) error { return errBroken }

func TestKeepalivesConfirmNothingThatIsNotStored(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id serial PRIMARY KEY)", "CREATE TABLE busy (id serial PRIMARY KEY)")
	opts := &cdc.Options{Tables: []string{"seats"}, Snapshot: cdc.SnapshotNever}
	var tk taker
	src := run(t, url, opts, func(src *cdc.Source) {
		if _, err := src.Subscribe("taker", &tk, nil); err != nil {
			t.Fatal(err)
		}
	})
	<-src.Ready()
	for range 3 {
		exec(t, conn, "INSERT INTO seats DEFAULT VALUES", "INSERT INTO busy SELECT FROM generate_series(1, 500)")
	}
	written := count(t, conn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
	pgtest.Eventually(t, time.Minute, func() error {
		if got := src.Stats().Received; int(got) < written {
			return fmt.Errorf("the source has heard of %s, the log is at %s", got, cdc.LSN(written))
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := tk.WaitEvents(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	// A second, so that a status update has been sent since the keepalive.
	exec(t, conn, "SELECT pg_sleep(1.2)")
	if got := count(t, conn, "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = $1", src.Slot()); uint64(got) > events[0].Position.Commit {
		t.Errorf("the slot is at %s, but the transaction at %s was never stored", cdc.LSN(got), events[0].Position)
	}
	src.cancel()
	if err := src.ended(); !errors.Is(err, errBroken) {
		t.Errorf("Run = %v, want the listener's error", err)
	}
	var rec listenertest.Recorder
	src = run(t, url, opts, record(t, &rec, nil))
	src.caughtUp()
	wantSequence(t, keys(&rec), 3)
}

func TestSnapshotReadsEveryKey(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn,
		"CREATE TABLE numbers (id bigint PRIMARY KEY)",
		"INSERT INTO numbers VALUES (-9223372036854775808), (-2147483649), (-5), (-1), (0), (1), (7), (1000000), (9223372036854775807)",
		"CREATE TABLE pairs (a int, b text, PRIMARY KEY (b, a))",
		"INSERT INTO pairs VALUES (-1, ''), (0, 'é'), (-1, 'Z'), (2147483647, 'a/b')",
		// Holes: most pages have no row left.
		"CREATE TABLE sparse (id int PRIMARY KEY, note text)",
		"INSERT INTO sparse SELECT i - 5000, repeat('n', 200) FROM generate_series(1, 10000) i",
		"DELETE FROM sparse WHERE id % 997 <> 0",
		"CREATE TABLE none (id uuid PRIMARY KEY)",
		"CREATE TABLE keyless (v int)", "INSERT INTO keyless VALUES (1), (1), (NULL)")
	var rec listenertest.Recorder
	src := run(t, url, nil, record(t, &rec, nil))
	src.caughtUp()
	got := make(map[string]map[string]int)
	for _, e := range rec.Events() {
		if got[e.Collection] == nil {
			got[e.Collection] = make(map[string]int)
		}
		got[e.Collection][e.After[:min(len(e.After), 40)]]++
	}
	want := map[string]map[string]int{}
	for _, table := range []string{"numbers", "pairs", "sparse", "keyless"} {
		rows, err := conn.Query(t.Context(), "SELECT (SELECT '{' || string_agg(to_json(key) || ':' || value::text, ',' ORDER BY n) || '}' FROM json_each(row_to_json(t)) WITH ORDINALITY e (key, value, n)) FROM "+table+" t")
		if err != nil {
			t.Fatal(err)
		}
		docs := make(map[string]int)
		for rows.Next() {
			var doc string
			if err := rows.Scan(&doc); err != nil {
				t.Fatal(err)
			}
			docs[doc[:min(len(doc), 40)]]++
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		want["public."+table] = docs
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows of the snapshot, by table (-want +got):\n%s", diff)
	}
}
