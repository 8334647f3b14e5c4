package jetstream_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/cdc"
	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// TestMain lets more tests run at a time than there are processors, unless somebody says
// how many: most of the time they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	pgtest.Main(m)
}

// sale is a row with a column of every common type.
type sale struct {
	Train string
	Price string // numeric
	Paid  *bool
	At    time.Time
	Local *time.Time `db:"ts"`
	D     time.Time
	Code  []byte
	Doc   json.RawMessage
	Tags  []string
	Nums  []int
	U     [16]byte
	R     float64
	Big   string
}

// changesOf describes batches without what only the process of the database knows.
func changesOf(batches []listenertest.Batch) []string {
	var lines []string
	for _, b := range batches {
		if b.Kind == listeners.Changes {
			lines = append(lines, fmt.Sprintf("%d %s %t %t %s", b.Tx.ID, b.Tx.Time.UTC().Truncate(time.Microsecond), b.First, b.Last, b.Position))
		}
		for _, e := range b.Events {
			e.Unchanged = slices.Sorted(slices.Values(e.Unchanged))
			lines = append(lines, fmt.Sprintf("  %s old key %s, unchanged %s, %s %s", e, e.OldKey, e.Unchanged, e.Cause, e.Position))
		}
	}
	return lines
}

// From Postgres over the stream into another process: its listeners hear what a
// listener at the database hears, and its mirror holds what a mirror there holds.
func TestListenersOfTheStreamHearWhatThoseOfPostgresHear(t *testing.T) {
	db := pgtest.Database(t)
	pgtest.Exec(t, db,
		`CREATE TABLE sales (id bigint PRIMARY KEY, train text NOT NULL, price numeric(20,4) NOT NULL, paid bool, at timestamptz NOT NULL,
			ts timestamp, d date NOT NULL, code bytea, doc jsonb, tags text[], nums int[], u uuid NOT NULL, r float8 NOT NULL, big text NOT NULL)`,
		`ALTER TABLE sales ALTER big SET STORAGE EXTERNAL`,
		`CREATE TABLE empty (id int PRIMARY KEY)`,
		insert(1, 20))
	source, err := cdc.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := natstest.Run(t)
	nc := connect(t, server)
	f, err := jetstream.New(nc, source.Database(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	latest, err := jetstream.NewLatest(nc, source.Database(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := latest.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(latest.Close)
	there := new(listenertest.Recorder)
	for name, l := range map[string]listeners.Listener{"firehose": f, "latest": latest, "there": there} {
		if _, err := source.Subscribe(name, l, &listeners.SubscribeOptions{Current: true}); err != nil {
			t.Fatal(err)
		}
	}
	g := grid.New("there", nil)
	t.Cleanup(func() { _ = g.Close(context.Background()) }) //nolint:usetesting // t's context has ended by then
	own, err := grid.Mirror[int64, sale](g, "sales", source.Table("public.sales"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the source at Postgres: %v", err)
		}
	})
	wait := func(m *grid.Region[int64, sale]) {
		t.Helper()
		limited, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := m.WaitReady(limited); err != nil {
			t.Fatal(err)
		}
	}
	wait(own)

	stream := jetstream.StreamName(source.Database())
	reader, err := jetstream.NewSource(connect(t, server), stream, &sinks.SourceOptions{Start: sinks.Start{Oldest: true}})
	if err != nil {
		t.Fatal(err)
	}
	here := new(listenertest.Recorder)
	sinktest.Subscribe(t, reader, here, nil)
	far, err := grid.Mirror[int64, sale](g, "far", reader, &grid.MirrorOptions[sale]{Collection: "public.sales"})
	if err != nil {
		t.Fatal(err)
	}
	sinktest.Start(t, reader)
	wait(far)
	bucket, err := jetstream.NewSource(connect(t, server), jetstream.LatestStream(jetstream.LatestName(source.Database())), nil)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := grid.Mirror[int64, sale](g, "kept", bucket, &grid.MirrorOptions[sale]{Collection: "public.sales"})
	if err != nil {
		t.Fatal(err)
	}
	sinktest.Start(t, bucket)
	wait(kept)

	pgtest.Exec(t, db,
		insert(21, 30),
		`UPDATE sales SET price = price + 1.5, train = E'a"\\u00fc\n' WHERE id % 2 = 0`, // leaves big as it is
		`BEGIN; UPDATE sales SET id = 100 WHERE id = 3; DELETE FROM sales WHERE id < 3; INSERT INTO empty VALUES (1); COMMIT`,
		`UPDATE sales SET paid = NULL, ts = NULL, code = NULL, doc = NULL, tags = NULL, nums = NULL WHERE id = 5`,
		`TRUNCATE empty`,
		`ALTER TABLE sales ADD extra int DEFAULT 7`,
		`UPDATE sales SET big = 'small' WHERE id = 6`,
		`ALTER TABLE sales REPLICA IDENTITY FULL`,
		`UPDATE sales SET r = r * 2 WHERE id = 7`,
		`DELETE FROM sales WHERE id = 8`,
		`ALTER TABLE sales REPLICA IDENTITY DEFAULT`,
		`INSERT INTO empty VALUES (2)`)
	for name, r := range map[string]*listenertest.Recorder{"there": there, "here": here} {
		limited, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := r.Wait(limited, func(b []listenertest.Batch) bool {
			e := len(b) - 1
			return e >= 0 && len(b[e].Events) > 0 && b[e].Events[0].After == `{"id":2}`
		})
		cancel()
		if err != nil {
			t.Fatalf("%s: %v, heard %s", name, err, strings.Join(changesOf(got), "\n"))
		}
	}
	if diff := cmp.Diff(changesOf(there.Batches()), changesOf(here.Batches())); diff != "" {
		t.Errorf("what listeners heard (-at Postgres +at the stream):\n%s", shorter(diff))
	}
	eventually(t, "the mirrors are equal", func() bool {
		return far.Err() != nil || own.Err() != nil || kept.Err() != nil ||
			cmp.Equal(maps.Collect(own.All()), maps.Collect(far.All())) && cmp.Equal(maps.Collect(own.All()), maps.Collect(kept.All()))
	})
	keptLate, err := grid.Mirror[int64, sale](g, "keptLate", bucket, &grid.MirrorOptions[sale]{Collection: "public.sales"})
	if err != nil {
		t.Fatal(err)
	}
	wait(keptLate)
	late, err := grid.Mirror[int64, sale](g, "late", reader, &grid.MirrorOptions[sale]{Collection: "public.sales"})
	if err != nil {
		t.Fatal(err)
	}
	wait(late)
	for name, m := range map[string]*grid.Region[int64, sale]{"far": far, "late": late, "kept": kept, "keptLate": keptLate} {
		if diff := cmp.Diff(maps.Collect(own.All()), maps.Collect(m.All())); diff != "" || m.Err() != nil {
			t.Errorf("mirror %s: %v (-at Postgres +at the stream):\n%s", name, m.Err(), shorter(diff))
		}
	}
	if own.Len() != 27 {
		t.Errorf("the mirror at Postgres holds %d rows, want 27", own.Len())
	}
}

func shorter(s string) string { return s[:min(len(s), 4000)] }

func insert(from, to int) string {
	return fmt.Sprintf(`INSERT INTO sales SELECT i, 'ICE ' || i, i * 1000000000000.0001, i %% 3 = 0, '2026-11-23 10:00:00.123456+02'::timestamptz + i * interval '1 day',
		'2026-01-01 00:00:00.5', '2026-02-03', '\x00ff5c', '{"a": [1.10, "x"]}', ARRAY['a,b', '"', 'NULL'], ARRAY[i, -i], md5(i::text)::uuid, i / 3.0::float8,
		repeat(md5(i::text), 200) FROM generate_series(%d, %d) i`, from, to)
}
