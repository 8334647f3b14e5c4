package pgwrite_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/grid/pgwrite"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
)

// A shaky is a database that is away for a while.
type shaky struct {
	pgwrite.DB

	away  *atomic.Int64 // how many more transactions fail to begin
	begun *atomic.Int64
}

func (d shaky) Begin(ctx context.Context) (pgx.Tx, error) {
	if d.away.Add(-1) >= 0 {
		return nil, errors.New("the database is away")
	}
	d.begun.Add(1)
	return d.DB.Begin(ctx)
}

func TestBehindStoresWhatTheRegionHolds(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, schema, "INSERT INTO trains VALUES (500, 'of before', 1)")
	db := shaky{pgtest.Connect(t, url), new(atomic.Int64), new(atomic.Int64)}
	db.away.Store(3)
	g := grid.New("g", nil)
	t.Cleanup(func() { _ = g.Close(context.WithoutCancel(t.Context())) })
	region, err := grid.Open[int64, train](g, "trains", nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(k int64, v train) listeners.Position {
		t.Helper()
		at, err := region.Put(t.Context(), k, v)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	put(400, train{Name: "there before the listener"})
	b, err := pgwrite.NewBehind[int64, train](deadline(t), db, "public.trains")
	if err != nil {
		t.Fatalf("NewBehind() = %v, want no error", err)
	}
	sub, err := region.Subscribe("behind", b, &listeners.SubscribeOptions{
		Current:   true,
		Positions: listeners.NewFilePositions(t.TempDir()),
		Group:     &listeners.GroupPolicy{MaxWait: 20 * time.Millisecond},
		Retry:     &listeners.RetryPolicy{Attempts: 5, Delay: time.Millisecond, Park: true, ParkReleases: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Connect(t, url)
	check := func(at listeners.Position, others ...string) {
		t.Helper()
		if err := sub.Wait(deadline(t), at); err != nil {
			t.Fatalf("Wait() = %v, want nil", err)
		}
		want := strings.Join(others, "")
		for k, v := range region.All() {
			if k < 1000 { // what the table refuses
				want += fmt.Sprintf("%d %s %d;", k, v.Name, v.Sold)
			}
		}
		var got string
		const all = "SELECT coalesce(string_agg(id || ' ' || name || ' ' || sold || ';', '' ORDER BY id <> 500, id), '') FROM trains"
		if err := conn.QueryRow(deadline(t), all).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("the table holds %s\nwant %s", got, want)
		}
	}
	const writes = 600
	var at listeners.Position
	sub.Pause() // so that most of it waits, and is stored together, whoever is faster
	for i := range int64(writes) {
		if i == writes-writes/8 {
			sub.Resume()
		}
		at = put(i%40, train{Name: fmt.Sprint("IC ", i), Sold: int(i)})
		if i%7 == 0 {
			if at, _, err = region.Delete(t.Context(), i%40); err != nil {
				t.Fatal(err)
			}
		}
	}
	check(at, "500 of before 1;")
	if n := db.begun.Load(); n > writes/4 {
		t.Errorf("%d writes took %d transactions, want far fewer", writes, n)
	}

	if at, err = region.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(at)
	check(put(9, train{Name: "after Clear"}))

	// What the table refuses is parked alone, and tells why.
	pgtest.Exec(t, url, "ALTER TABLE trains ADD CONSTRAINT small CHECK (id < 1000)")
	put(7, train{Name: "with the bad one"})
	put(1000, train{Name: "bad"})
	check(put(8, train{Name: "after it"}))
	parked := sub.Parked()
	if len(parked) != 1 {
		t.Fatalf("%d batches are parked, want the one of key 1000", len(parked))
	}
	if c, ok := errors.AsType[*pgwrite.ConstraintError](parked[0].Err); !ok || c.Constraint != "small" {
		t.Errorf("it is parked for %v, want a ConstraintError of small", parked[0].Err)
	}
}

func TestBehindWithAKeyOfSeveralColumns(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE likes (who bigint, what uuid, stars int, PRIMARY KEY (what, who))")
	type like struct {
		Who  int64
		What [16]byte
	}
	type stars struct{ Stars *int }
	g := grid.New("g", nil)
	t.Cleanup(func() { _ = g.Close(context.WithoutCancel(t.Context())) })
	region, err := grid.Open[like, stars](g, "likes", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := pgwrite.NewBehind[like, stars](deadline(t), pgtest.Connect(t, url), "public.likes")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := region.Subscribe("behind", b, nil)
	if err != nil {
		t.Fatal(err)
	}
	five := 5
	for _, k := range []like{{1, [16]byte{0xaa}}, {2, [16]byte{15: 0xbb}}, {3, [16]byte{}}} {
		if _, err := region.Put(t.Context(), k, stars{&five}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := region.Put(t.Context(), like{2, [16]byte{15: 0xbb}}, stars{}); err != nil {
		t.Fatal(err)
	}
	at, _, err := region.Delete(t.Context(), like{Who: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Wait(deadline(t), at); err != nil {
		t.Fatalf("Wait() = %v (%v), want nil", err, sub.Err())
	}
	got := (&shop{url: url}).row(t, "SELECT string_agg(concat_ws(' ', who, what, stars), ', ' ORDER BY who) FROM likes")
	if want := "1 aa000000-0000-0000-0000-000000000000 5, 2 00000000-0000-0000-0000-0000000000bb"; got != want {
		t.Errorf("the table holds %s, want %s", got, want)
	}
}

// After a crash, what was stored but not noted comes again, in other groups. The
// table goes back and forth, and ends as it would have.
func TestBehindEndsTheSameWhenChangesComeAgain(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, schema)
	conn := pgtest.Connect(t, url)
	b, err := pgwrite.NewBehind[int64, train](deadline(t), conn, "public.trains")
	if err != nil {
		t.Fatal(err)
	}
	event := func(op listeners.Op, id int, name string) listeners.Event {
		e := listeners.Event{Op: op, Schema: trainSchema}
		r := listeners.NewRecord(&trainRow{fmt.Sprint(id), name, "1"})
		if op == listeners.Delete {
			e.Before = r
		} else {
			e.After = r
		}
		return e
	}
	var all []*listeners.Batch
	for i, e := range []listeners.Event{
		event(listeners.Create, 1, "a"),
		event(listeners.Create, 2, "b"),
		event(listeners.Update, 1, "c"),
		event(listeners.Delete, 2, ""),
		event(listeners.Create, 3, "d"),
		{Op: listeners.Truncate, Schema: trainSchema},
		event(listeners.Create, 2, "e"),
		event(listeners.Update, 2, "f"),
		event(listeners.Create, 4, "g"),
		event(listeners.Delete, 4, ""),
		event(listeners.Create, 1, "h"),
	} {
		all = append(all, &listeners.Batch{
			Position: listeners.Position{Epoch: 1, Commit: uint64(i) + 1}, First: true, Last: true, Events: []listeners.Event{e},
		})
	}
	const want = "1 h;2 f;"
	for from := range all { // where a crash left the stored position
		for size := 1; size <= len(all); size += 3 {
			for at := from; at < len(all); at += size {
				if err := b.OnBatches(deadline(t), all[at:min(at+size, len(all))]); err != nil {
					t.Fatal(err)
				}
			}
			var got string
			if err := conn.QueryRow(deadline(t), "SELECT coalesce(string_agg(id || ' ' || name || ';', '' ORDER BY id), '') FROM trains").Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("told again from %d on in groups of %d, the table holds %s, want %s", from, size, got, want)
			}
		}
	}
}
