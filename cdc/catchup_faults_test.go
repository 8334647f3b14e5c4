package cdc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/internal/pgserver"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

// A counter wants the keys 1, 2, 3, … in this order and notes the first that is
// another one.
type counter struct {
	hook func(*listeners.Batch) error // called first, if there is one

	mu    sync.Mutex
	first int
	last  int
	end   listeners.Position // of the last batch that was handled
	wrong string
}

func (c *counter) OnBatch(_ context.Context, b *listeners.Batch) error {
	if c.hook != nil {
		if err := c.hook(b); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b.Events {
		var id int
		if _, err := fmt.Sscan(b.Events[i].Key().String(), &id); err != nil {
			return err
		}
		if c.first == 0 {
			c.first = id
		} else if id != c.last+1 && c.wrong == "" {
			c.wrong = fmt.Sprintf("%d came after %d", id, c.last)
		}
		c.last = id
	}
	if b.Last {
		c.end = b.Position
	}
	return nil
}

// want fails the test unless exactly first to last came.
func (c *counter) want(t testing.TB, first, last int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first != first || c.last != last || c.wrong != "" {
		t.Errorf("the keys %d to %d came, want %d to %d; %s", c.first, c.last, first, last, c.wrong)
	}
}

func (c *counter) seen() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func subscribe(t testing.TB, l listeners.Listener) func(*cdc.Source) {
	return func(src *cdc.Source) {
		if _, err := src.Subscribe("counter", l, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// insert writes rows of 1,000 a transaction, after those that are there.
func insert(t testing.TB, conn *pgx.Conn, transactions int) {
	t.Helper()
	exec(t, conn, fmt.Sprintf(`DO $$ DECLARE n int; BEGIN
		FOR t IN 1..%d LOOP
			SELECT coalesce(max(id), 0) INTO n FROM seats;
			INSERT INTO seats SELECT i, md5(i::text) FROM generate_series(n + 1, n + 1000) i;
			COMMIT;
		END LOOP; END $$`, transactions))
}

// backlog creates a table, slots, and transactions that are in them.
func backlog(t testing.TB, url string, transactions int, names ...string) *pgx.Conn {
	t.Helper()
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, note text)")
	slots(t, conn, names...)
	insert(t, conn, transactions)
	return conn
}

const copies = "FROM pg_replication_slots WHERE temporary AND slot_name LIKE '%\\_catch%' AND database = current_database()"

// reading waits until a copy of the slot is being read.
func reading(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		if count(t, conn, "SELECT count(*) "+copies) == 0 {
			return errors.New("no copy is read")
		}
		return nil
	})
}

// Rows go on to be committed while the backlog is drained, and over the switch
// to streaming.
func TestCatchUpAndStreamingMeetWithoutGapOrTwin(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	exec(t, conn, "CREATE TABLE seats (id int PRIMARY KEY, price int)")
	slots(t, conn, "meeting")
	exec(t, conn, `DO $$ BEGIN FOR t IN 0..149 LOOP
		INSERT INTO seats SELECT i, 0 FROM generate_series(t * 1000 + 1, t * 1000 + 1000) i; COMMIT; END LOOP; END $$`)
	state := fold{rows: make(map[int]int)}
	var log logBuffer
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		writer := pgtest.Connect(t, url)
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				exec(t, writer, fmt.Sprintf("UPDATE seats SET price = price + 1 WHERE id %% 1000 = %d AND id %% 2 = %d", i%1000, w),
					fmt.Sprintf("INSERT INTO seats VALUES (%d, 1)", 1_000_000+2*i+w))
			}
		})
	}
	src := run(t, url, slotOptions(t, "meeting", 100_000, &log), subscribe(t, &state))
	pgtest.Eventually(t, time.Minute, func() error {
		if log.count("msg=streaming") == 0 {
			return errors.New("still catching up")
		}
		return nil
	})
	close(stop)
	writers.Wait()
	src.caughtUp()
	src.stop()
	if !log.drained() {
		t.Error("the backlog was not drained by SQL")
	}
	var want string
	if err := conn.QueryRow(t.Context(), "SELECT string_agg(id||'='||price, ' ' ORDER BY id) FROM seats").Scan(&want); err != nil {
		t.Fatal(err)
	}
	if state.err != nil || state.String() != want {
		t.Errorf("the folded events differ from the table; %v", state.err)
	}
}

// What is not stored is not confirmed, however far the copy was read.
func TestCatchUpConfirmsOnlyWhatIsStored(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := backlog(t, url, 120, "careful")
	release := make(chan struct{})
	var handled atomic.Int64
	c := &counter{hook: func(*listeners.Batch) error {
		if handled.Add(1) > 20 {
			<-release
		}
		return nil
	}}
	var log logBuffer
	src := run(t, url, slotOptions(t, "careful", 100_000, &log), subscribe(t, c))
	reading(t, conn)
	pgtest.Eventually(t, time.Minute, func() error {
		var confirmed cdc.LSN
		if err := conn.QueryRow(t.Context(), "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'careful'").Scan(&confirmed); err != nil {
			return err
		}
		c.mu.Lock()
		end := c.end.Commit
		c.mu.Unlock()
		if handled.Load() <= 20 || end == 0 || uint64(confirmed) <= end {
			return fmt.Errorf("confirmed %s, handled %s", confirmed, cdc.LSN(end))
		}
		return nil
	})
	// The confirmed position is the end of the last stored transaction: a new
	// reader of the slot begins right behind it, with what hangs now.
	pgtest.Eventually(t, time.Minute, func() error {
		exec(t, conn, "SELECT pg_sleep(2.5)") // positions are confirmed every second
		c.mu.Lock()
		next := c.last/1000*1000 + 1 // the beginning of its transaction
		c.mu.Unlock()
		var first int
		if err := conn.QueryRow(t.Context(), `SELECT convert_from(substring(data FROM 14 FOR get_byte(data, 12)), 'UTF8')::int -- the value's length is in 9 to 12
			FROM pg_logical_slot_peek_binary_changes('careful', NULL, 1, 'proto_version', '1', 'publication_names', 'all_tables')
			WHERE get_byte(data, 0) = ascii('I') LIMIT 1`).Scan(&first); err != nil {
			return err
		}
		if first > next {
			t.Fatalf("the slot holds the keys from %d on, but %d belongs to the first transaction that was not handled", first, next)
		}
		if first < next {
			return fmt.Errorf("the slot holds the keys from %d on, and everything before %d was handled", first, next)
		}
		return nil
	})
	close(release)
	src.caughtUp()
	c.want(t, 1, 120_000)
}

// Sessions die while the copy is read: the process sees each event once.
func TestCatchUpSurvivesItsConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := backlog(t, url, 200, "cut")
	var gate atomic.Pointer[chan struct{}]
	c := &counter{hook: func(*listeners.Batch) error {
		if g := gate.Load(); g != nil {
			<-*g
		}
		return nil
	}}
	var log logBuffer
	closed := make(chan struct{})
	first := closed
	gate.Store(&first)
	src := run(t, url, slotOptions(t, "cut", 100_000, &log), subscribe(t, c))
	for round := range 2 {
		reading(t, conn)
		exec(t, conn, "SELECT pg_terminate_backend(active_pid, 5000) "+copies)
		// What has been sent comes through, and then the end of the connection.
		gate.Store(nil)
		close(closed)
		pgtest.Eventually(t, time.Minute, func() error {
			if log.count(`msg="interrupted, connecting again"`) <= round {
				return errors.New("the connection was not lost")
			}
			return nil
		})
		if round == 0 {
			again := make(chan struct{})
			closed = again
			gate.Store(&again)
		}
	}
	src.caughtUp()
	c.want(t, 1, 200_000)
}

func TestCatchUpSurvivesServerRestarts(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, nil)
	url := srv.URL("postgres")
	backlog(t, url, 130, "restarted")
	release := make(chan struct{})
	c := &counter{hook: func(*listeners.Batch) error { <-release; return nil }}
	var log logBuffer
	src := run(t, url, slotOptions(t, "restarted", 100_000, &log), subscribe(t, c))
	reading(t, pgtest.Connect(t, url))
	restart(t, srv, pgserver.Fast)
	reading(t, pgtest.Connect(t, url))
	restart(t, srv, pgserver.Immediate)
	close(release)
	src.caughtUp()
	c.want(t, 1, 130_000)
}

// A run that ends in the middle is followed by one that goes on: with what was
// not stored, and nothing that was.
func TestCatchUpGoesOnInTheNextRun(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	backlog(t, url, 130, "next_run")
	broken := errors.New("out of paper")
	var first, second counter
	handled := 0
	first.hook = func(*listeners.Batch) error {
		if handled++; handled > 300 {
			return broken
		}
		return nil
	}
	var log logBuffer
	src := run(t, url, slotOptions(t, "next_run", 100_000, &log), subscribe(t, &first))
	if err := src.ended(); !errors.Is(err, broken) {
		t.Fatalf("Run = %v, want the listener's error", err)
	}
	src = run(t, url, slotOptions(t, "next_run", 100_000, &log), subscribe(t, &second))
	src.caughtUp()
	src.stop()
	// A transaction of which a part was stored comes again as a whole.
	first.want(t, 1, first.seen())
	second.want(t, first.seen()/1000*1000+1, 130_000)
}

// A transaction with more changes than a call asks for comes whole, in parts,
// through a feed that holds little of it.
func TestCatchUpOfATransactionLargerThanACall(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := backlog(t, url, 1, "large")
	exec(t, conn, "INSERT INTO seats SELECT i, md5(i::text) FROM generate_series(1001, 150000) i")
	insert(t, conn, 1)
	var transactions atomic.Int64
	c := counter{hook: func(b *listeners.Batch) error {
		if b.Last {
			transactions.Add(1)
		}
		return nil
	}}
	var log logBuffer
	opts := slotOptions(t, "large", 100_000, &log)
	opts.MaxBytes = 500_000
	src := run(t, url, opts, subscribe(t, &c))
	src.caughtUp()
	src.stop()
	c.want(t, 1, 151_000)
	if n := transactions.Load(); n != 3 || log.count(`msg="catching up"`) != 1 {
		t.Errorf("%d transactions came, want 3", n)
	}
}

func TestCatchUpEndsWithItsContext(t *testing.T) {
	url := pgtest.Database(t)
	conn := backlog(t, url, 300, "cancelled")
	for name, full := range map[string]bool{"while the server decodes": false, "while the feed is full": true} {
		t.Run(name, func(t *testing.T) {
			entered := make(chan struct{}, 1)
			c := &counter{}
			var log logBuffer
			opts := slotOptions(t, "cancelled", 100_000, &log)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if full {
				c.hook = func(*listeners.Batch) error {
					select {
					case entered <- struct{}{}:
					default:
					}
					<-ctx.Done()
					return errors.New("cancelled")
				}
			}
			src, err := cdc.New(url, opts)
			if err != nil {
				t.Fatal(err)
			}
			subscribe(t, c)(src)
			result := make(chan error, 1)
			go func() { result <- src.Run(ctx) }()
			reading(t, conn)
			if full {
				<-entered
			}
			cancel()
			began := time.Now()
			select {
			case err = <-result:
			case <-time.After(time.Minute):
				t.Fatal("Run did not return within a minute")
			}
			if !full && err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
			t.Logf("Run returned after %s", time.Since(began))
			pgtest.Eventually(t, time.Minute, func() error {
				if n := count(t, conn, "SELECT count(*) "+copies); n != 0 {
					return fmt.Errorf("%d copies of the slot are left", n)
				}
				return nil
			})
		})
	}
}

func TestCatchUpNoticesALostSlot(t *testing.T) {
	for name, recreate := range map[string]bool{"dropped": false, "recreated": true} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			conn := backlog(t, url, 30, "lost_"+name)
			entered, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			c := &counter{hook: func(*listeners.Batch) error {
				once.Do(func() { close(entered) })
				<-release
				return nil
			}}
			var log logBuffer
			src := run(t, url, slotOptions(t, "lost_"+name, 100_000, &log), subscribe(t, c))
			<-entered // so the call has begun, and brings nothing that is committed now
			pgtest.Eventually(t, time.Minute, func() error {
				_, err := conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", "lost_"+name)
				return err
			})
			insert(t, conn, 1)
			if recreate {
				exec(t, conn, "SELECT pg_create_logical_replication_slot('lost_recreated', 'pgoutput')")
			}
			close(release)
			err := src.ended()
			var slot *cdc.SlotError
			if !errors.As(err, &slot) || slot.Slot != "lost_"+name || !strings.Contains(err.Error(), "changes were lost") {
				t.Errorf("Run = %v, want a SlotError that says that changes were lost", err)
			}
		})
	}
}

// Only one source catches up at a time.
func TestCatchUpOfAnotherSource(t *testing.T) {
	url := pgtest.Database(t)
	conn := backlog(t, url, 10, "shared")
	exec(t, conn, "SELECT pg_advisory_lock(hashtextextended('rowcall slot shared', 0))")
	var log logBuffer
	opts := slotOptions(t, "shared", 100_000, &log)
	opts.SlotWait = 300 * time.Millisecond
	var c counter
	err := run(t, url, opts, subscribe(t, &c)).ended()
	var slot *cdc.SlotError
	if !errors.As(err, &slot) || !strings.Contains(err.Error(), "another process reads it") {
		t.Errorf("Run = %v, want a SlotError that says that another process reads it", err)
	}
}

// Where SQL is refused, or not worth it, the backlog is streamed.
func TestBacklogIsStreamedWithoutCatchUp(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, map[string]string{"max_replication_slots": "1", "temp_file_limit": "10MB"})
	url := srv.URL("postgres")
	conn := backlog(t, url, 30, "only")
	for name, tc := range map[string]struct {
		bytes int64
		log   string
	}{
		"no free slot": {100_000, "all replication slots are in use"},
		"short":        {0, ""},
		"never":        {-1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			first := count(t, conn, "SELECT max(id) FROM seats") - 30_000 + 1
			var c counter
			var log logBuffer
			src := run(t, url, slotOptions(t, "only", tc.bytes, &log), subscribe(t, &c))
			src.caughtUp()
			src.stop()
			c.want(t, first, first+30_000-1)
			if strings.Contains(log.String(), `"catching up"`) != (tc.log != "") || !strings.Contains(log.String(), tc.log) {
				t.Errorf("the log should say %q:\n%s", tc.log, log.String())
			}
			insert(t, conn, 30)
		})
	}
}

// A role that owns nothing and may replicate is enough.
func TestCatchUpNeedsNoMoreThanReplication(t *testing.T) {
	t.Parallel()
	srv := pgtest.Own(t, nil)
	conn := backlog(t, srv.URL("postgres"), 20, "least")
	exec(t, conn, "CREATE ROLE reader LOGIN REPLICATION")
	var c counter
	var log logBuffer
	url := strings.Replace(srv.URL("postgres"), "://", "://reader@", 1)
	if at := strings.LastIndex(url, "@"); strings.Count(url, "@") > 1 {
		url = "postgres://reader" + url[at:]
	}
	src := run(t, url, slotOptions(t, "least", 100_000, &log), subscribe(t, &c))
	src.caughtUp()
	src.stop()
	c.want(t, 1, 20_000)
	if !log.drained() {
		t.Error("the backlog was not drained by SQL")
	}
}

// A slot for a failover must not be read ahead of the standbys that take over.
func TestCatchUpDoesNotOvertakeStandbys(t *testing.T) {
	t.Parallel()
	pgtest.RequireVersion(t, 17, "failover slots")
	srv := pgtest.Own(t, nil)
	url := srv.URL("postgres")
	conn := backlog(t, url, 1)
	exec(t, conn, "SELECT pg_create_physical_replication_slot('standby')",
		"SELECT pg_create_logical_replication_slot('held', 'pgoutput', false, false, true)",
		"ALTER SYSTEM SET synchronized_standby_slots = 'standby'", "SELECT pg_reload_conf()")
	insert(t, conn, 20)
	var c counter
	var log logBuffer
	src := run(t, url, slotOptions(t, "held", 100_000, &log), subscribe(t, &c))
	pgtest.Eventually(t, time.Minute, func() error {
		if log.count("msg=streaming") == 0 {
			return errors.New("not streaming")
		}
		return nil
	})
	src.stop()
	if log.count("no catching up by SQL; streaming") != 1 || c.seen() != 0 {
		t.Errorf("%d keys came before the standby had them", c.seen())
	}
}
