package grid_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

type item struct {
	Name string
	Text string
	Note sql.NullString `db:"note,optional"`
}

func newItems() *table { return newTable("items", "*id", "name", "text") }

func mirror[K comparable, V any](t *testing.T, src listeners.Source, opts *grid.MirrorOptions[V]) *grid.Region[K, V] {
	t.Helper()
	m, err := grid.Mirror[K](newGrid(t), "m", src, opts)
	if err != nil {
		t.Fatalf("Mirror() = %v, want no error", err)
	}
	return m
}

func ready[K comparable, V any](t *testing.T, m *grid.Region[K, V]) {
	t.Helper()
	if err := m.WaitReady(deadline(t)); err != nil {
		t.Fatalf("WaitReady() = %v, want nil", err)
	}
}

// checkMirror waits until the mirror is at a position and compares its content.
func checkMirror[K comparable, V any](t *testing.T, m *grid.Region[K, V], at listeners.Position, want map[K]V) {
	t.Helper()
	wait(t, fmt.Sprintf("mirror at %s (it is at %s: %v)", at, m.Position(), m.Err()), func() bool {
		return m.Position() == at || m.Err() != nil
	})
	if m.Err() != nil {
		t.Fatalf("Err() = %v, want nil", m.Err())
	}
	if diff := cmp.Diff(want, maps.Collect(m.All())); diff != "" || m.Len() != len(want) {
		t.Errorf("mirror of %d (-want +got):\n%s", m.Len(), diff)
	}
}

func TestMirrorFollowsATable(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a", "2|two|b"}
	hold := make(chan struct{})
	m := mirror[int64, item](t, heldSource{src, hold}, nil)
	early := new(listenertest.Recorder)
	subscribe(t, m, early, nil)
	close(hold)
	ready(t, m)
	if got, want := m.Position(), src.at; got != want {
		t.Errorf("Position() after the snapshot = %s, want the source's %s", got, want)
	}
	rec := new(listenertest.Recorder)
	subscribe(t, m, rec, nil)
	b := src.commit(
		src.event(listeners.Create, "", "", "3|three|c"),
		src.event(listeners.Update, "", "", "3|THREE|?"),
		src.event(listeners.Delete, "", "1|?|?", ""),
	)
	checkMirror(t, m, b.Position, map[int64]item{2: {Name: "two", Text: "b"}, 3: {Name: "THREE", Text: "c"}})
	batches, err := rec.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) == 1 })
	if err != nil {
		t.Fatal(err)
	}
	row := func(id int, name, text string) string {
		return fmt.Sprintf(`{"id":%d,"name":%q,"text":%q,"note":null}`, id, name, text)
	}
	want := []listenertest.Batch{{
		Kind: listeners.Changes, Tx: b.Tx, Position: b.Position, First: true, Last: true,
		Events: []listenertest.Event{
			{Op: listeners.Create, Cause: listeners.CauseMirror, Collection: "m", Key: "3", Before: "null", After: row(3, "three", "c"), Position: b.Events[0].Position},
			{Op: listeners.Update, Cause: listeners.CauseMirror, Collection: "m", Key: "3", Before: row(3, "three", "c"), After: row(3, "THREE", "c"), Position: b.Events[1].Position},
			{Op: listeners.Delete, Cause: listeners.CauseMirror, Collection: "m", Key: "1", Before: row(1, "one", "a"), After: "null", Position: b.Events[2].Position},
		},
	}}
	if diff := cmp.Diff(want, batches); diff != "" {
		t.Errorf("one transaction of three (-want +got):\n%s", diff)
	}
	// Who was there before the mirror was ready heard the snapshot as well.
	batches, err = early.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) == 4 })
	if err != nil {
		t.Fatal(err)
	}
	kinds := []listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Live, listeners.Changes}
	for i, b := range batches {
		if b.Kind != kinds[i] {
			t.Errorf("batch %d of the early listener is a %s, want %s", i, b.Kind, kinds[i])
		}
	}
	if e := batches[1].Events; len(e) != 2 || e[0].Op != listeners.Read || e[0].Cause != listeners.CauseSnapshot || e[0].After != row(1, "one", "a") {
		t.Errorf("the early listener's snapshot: %v, want rows 1 and 2", e)
	}
}

func TestMirrorTakesATransactionInParts(t *testing.T) {
	src := newItems()
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	before := m.Position()
	rec := new(listenertest.Recorder)
	subscribe(t, m, rec, nil)
	src.commit(src.event(listeners.Create, "", "", "9|nine|i"))
	src.at.Commit++
	src.at.Index = 0
	src.part(true, false, src.event(listeners.Create, "", "", "1|one|a"))
	src.part(false, false, src.event(listeners.Update, "", "", "1|uno|?"))
	last := src.part(false, true, src.event(listeners.Create, "", "", "2|two|b"))
	checkMirror(t, m, last.Position, map[int64]item{1: {Name: "uno", Text: "a"}, 2: {Name: "two", Text: "b"}, 9: {Name: "nine", Text: "i"}})
	batches, err := rec.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) == 2 })
	if err != nil {
		t.Fatal(err)
	}
	if b := batches[1]; len(b.Events) != 3 || !b.First || !b.Last || b.Position != last.Position || b.Position.Compare(before) <= 0 {
		t.Errorf("three parts came as %+v; want one whole batch of three", b)
	}
}

func TestMirrorShowsNoPartOfATransaction(t *testing.T) {
	src := newItems()
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			var names []string
			for _, v := range m.All() {
				names = append(names, v.Name)
			}
			if len(slices.Compact(names)) > 1 {
				t.Errorf("All() sees a transaction in part: %v", names)
				return
			}
		}
	})
	var last *listeners.Batch
	for i := range 500 {
		op := listeners.Create
		if i > 0 {
			op = listeners.Update
		}
		last = src.commit(src.event(op, "", "", fmt.Sprintf("1|v%d|", i)), src.event(op, "", "", fmt.Sprintf("2|v%d|", i)))
	}
	checkMirror(t, m, last.Position, map[int64]item{1: {Name: "v499"}, 2: {Name: "v499"}})
	close(stop)
	reader.Wait()
}

func TestMirrorMovesAnEntryWhenItsKeyChanges(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a", "2|two|b"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	rec := new(listenertest.Recorder)
	subscribe(t, m, rec, nil)
	b := src.commit(src.event(listeners.Update, "", "1|?|?", "7|seven|?"), src.event(listeners.Update, "2|two|b", "", "8|two|b"))
	checkMirror(t, m, b.Position, map[int64]item{7: {Name: "seven", Text: "a"}, 8: {Name: "two", Text: "b"}})
	events, err := rec.WaitEvents(deadline(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	if e := events[0]; e.Op != listeners.Update || e.Key != "7" || e.OldKey != "1" || !strings.Contains(e.Before, `"id":1,"name":"one"`) {
		t.Errorf("a changed key is told as %+v; want an update from 1 to 7", e)
	}
	if e := events[1]; e.Op != listeners.Update || e.Key != "8" || e.OldKey != "2" {
		t.Errorf("a changed key with the whole old row is told as %+v; want an update from 2 to 8", e)
	}
}

func TestMirrorIsEmptiedByATruncate(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a", "2|two|b"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	rec := new(listenertest.Recorder)
	subscribe(t, m, rec, nil)
	b := src.commit(
		src.event(listeners.Create, "", "", "3|three|c"),
		src.event(listeners.Truncate, "", "", ""),
		src.event(listeners.Create, "", "", "1|uno|A"),
	)
	checkMirror(t, m, b.Position, map[int64]item{1: {Name: "uno", Text: "A"}})
	b = src.commit(src.event(listeners.Create, "", "", "4|four|d"))
	checkMirror(t, m, b.Position, map[int64]item{1: {Name: "uno", Text: "A"}, 4: {Name: "four", Text: "d"}})
	events, err := rec.WaitEvents(deadline(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	var ops []string
	for _, e := range events {
		ops = append(ops, e.Op.String()+e.Key)
	}
	if got, want := strings.Join(ops, " "), "create3 truncate create1 create4"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
}

func TestMirrorTellsOnlyTheDifferenceOfANewSnapshot(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a", "2|two|b", "3|three|c"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	rec := new(listenertest.Recorder)
	subscribe(t, m, rec, nil)
	src.at.Commit += 10
	src.state = []string{"2|two|b", "4|four|d", "3|THREE|c"}
	src.part(true, false, src.event(listeners.Update, "", "", "1|ONE|?")) // the rest never comes
	for _, b := range src.snapshot() {
		src.feed.Append(b)
	}
	after := src.commit(src.event(listeners.Delete, "", "2|?|?", ""))
	checkMirror(t, m, after.Position, map[int64]item{3: {Name: "THREE", Text: "c"}, 4: {Name: "four", Text: "d"}})
	batches, err := rec.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) == 2 })
	if err != nil {
		t.Fatalf("want the difference and the delete: %v", err)
	}
	var got []string
	for _, e := range batches[0].Events {
		got = append(got, fmt.Sprintf("%s %s%s", e.Cause, e.Op, e.Key))
	}
	if want := []string{"snapshot create4", "snapshot update3", "snapshot delete1"}; !slices.Equal(got, want) {
		t.Errorf("the difference is %q, want %q", got, want)
	}
	for i := range batches[0].Events[1:] {
		if a, b := batches[0].Events[i].Position, batches[0].Events[i+1].Position; a.Compare(b) >= 0 {
			t.Errorf("positions of the difference do not grow: %s, %s", a, b)
		}
	}
	// The same state once more is no news, nor is it a step back.
	src.state = []string{"3|THREE|c", "4|four|d"}
	for _, b := range src.snapshot() {
		src.feed.Append(b)
	}
	after = src.commit(src.event(listeners.Create, "", "", "5|five|e"))
	checkMirror(t, m, after.Position, map[int64]item{3: {Name: "THREE", Text: "c"}, 4: {Name: "four", Text: "d"}, 5: {Name: "five", Text: "e"}})
	batches, err = rec.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) >= 3 })
	if err != nil || len(batches) != 3 || batches[2].Position != after.Position {
		t.Errorf("heard %d batches after the same snapshot again and a create, want 3: %v", len(batches), err)
	}
}

func TestMirrorMakesWhatDoesNotFitFit(t *testing.T) {
	var log bytes.Buffer
	g := grid.New("g", &grid.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	src := newItems()
	src.state = []string{"1|one|a"}
	m, err := grid.Mirror[int64, item](g, "m", src, nil)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, m)
	rec := new(listenertest.Recorder)
	subscribe(t, m, rec, nil)
	b := src.commit(
		src.event(listeners.Update, "", "", "2|two|?"),
		src.event(listeners.Delete, "", "3|?|?", ""),
		src.event(listeners.Create, "", "", "1|uno|a"),
		src.event(listeners.Update, "4|was|d", "", "4|four|?"),
	)
	checkMirror(t, m, b.Position, map[int64]item{1: {Name: "uno", Text: "a"}, 2: {Name: "two"}, 4: {Name: "four", Text: "d"}})
	if err := g.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range rec.Events() {
		got = append(got, e.Op.String()+e.Key)
	}
	if want := []string{"create2", "update1", "create4"}; !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
	for _, want := range []string{"region=m op=update key=2 held=false", "op=delete key=3 held=false", "op=create key=1 held=true"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log.String())
		}
	}
}

func TestMirrorIsReadOnly(t *testing.T) {
	m := mirror[int64, item](t, newItems(), nil)
	if _, err := m.Put(t.Context(), 1, item{}); !errors.Is(err, grid.ErrMirror) {
		t.Errorf("Put into a mirror = %v, want ErrMirror", err)
	}
	if _, _, err := m.Delete(t.Context(), 1); !errors.Is(err, grid.ErrMirror) {
		t.Errorf("Delete from a mirror = %v, want ErrMirror", err)
	}
}

func TestMirrorWithKeysOfSeveralColumns(t *testing.T) {
	type place struct {
		Coach int `db:"coach_no"`
		Train string
	}
	type seat struct {
		Train string // the key, once more
		Price int
	}
	src := newTable("seats", "*train", "*coach_no", "price")
	src.state = []string{"IC|2|10"}
	m := mirror[place, seat](t, src, nil)
	ready(t, m)
	rec := new(listenertest.Recorder)
	live(t, subscribe(t, m, rec, current))
	b := src.commit(src.event(listeners.Create, "", "", "IC|1|20"))
	checkMirror(t, m, b.Position, map[place]seat{{2, "IC"}: {"IC", 10}, {1, "IC"}: {"IC", 20}})
	events, err := rec.WaitEvents(deadline(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := events[0].After, `{"train":"IC","coach_no":2,"price":10}`; got != want || events[0].Key != "IC/2" {
		t.Errorf("a row is %s with the key %s, want %s with IC/2", got, events[0].Key, want)
	}
}

func TestMirrorOfOneColumn(t *testing.T) {
	src := newTable("prices", "*id", "price")
	src.state = []string{"a|1"}
	m := mirror[string, int](t, src, nil)
	ready(t, m)
	b := src.commit(src.event(listeners.Create, "", "", "b|2"), src.event(listeners.Update, "", "", "a|?"))
	checkMirror(t, m, b.Position, map[string]int{"a": 1, "b": 2})
}

func TestMirrorOfAColumnAddedLater(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	src.schema = newSchema("items", "*id", "name", "note", "text")
	b := src.commit(src.event(listeners.Create, "", "", "2|two|n|b"))
	checkMirror(t, m, b.Position, map[int64]item{
		1: {Name: "one", Text: "a"}, 2: {Name: "two", Text: "b", Note: sql.NullString{String: "n", Valid: true}},
	})
}

func TestMirrorStopsWithAnErrorThatSaysWhy(t *testing.T) {
	type tagged struct {
		Colour string `db:"colour"`
	}
	type pair struct{ ID, Name string }
	run := func(t *testing.T, m interface {
		WaitReady(ctx context.Context) error
		Err() error
		Done() <-chan struct{}
	}, want string,
	) {
		t.Helper()
		select {
		case <-m.Done():
		case <-deadline(t).Done():
			t.Fatal("the mirror goes on")
		}
		if err := m.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Err() = %v, want an error with %q", err, want)
		}
		if err := m.WaitReady(t.Context()); err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("WaitReady() = %v, want nil or an error with %q", err, want)
		}
	}
	items := func() *table {
		src := newItems()
		src.state = []string{"1|one|a"}
		return src
	}
	t.Run("missing column", func(t *testing.T) {
		run(t, mirror[int64, tagged](t, items(), nil), `wants column "colour", which public.items does not have`)
	})
	t.Run("no key", func(t *testing.T) {
		src := newTable("log", "line")
		src.state = []string{"x"}
		run(t, mirror[int64, item](t, src, nil), "public.log has no key: give it a primary key")
	})
	t.Run("key of two columns", func(t *testing.T) {
		src := newTable("seats", "*train", "*coach", "text")
		src.state = []string{"x|1|y"}
		run(t, mirror[string, item](t, src, nil), "the key of public.seats is (train, coach), which is more than the key type string holds")
	})
	t.Run("other key", func(t *testing.T) {
		run(t, mirror[pair, item](t, items(), nil), "the key of public.items is (id), but the key type grid_test.pair stands for (id, name)")
	})
	t.Run("key of another type", func(t *testing.T) {
		src := newItems()
		src.state = []string{"abc|one|a"}
		run(t, mirror[int64, item](t, src, nil), "key column public.items.id into int64")
	})
	t.Run("null key", func(t *testing.T) {
		src := newItems()
		src.state = []string{"-|one|a"}
		run(t, mirror[int64, item](t, src, nil), "key column id of public.items is null")
	})
	t.Run("too many columns for a number", func(t *testing.T) {
		run(t, mirror[int64, int](t, items(), nil), "public.items has the columns (name, text) beside its key, which do not fit the value type int: use a struct")
	})
	t.Run("two collections", func(t *testing.T) {
		src := items()
		m := mirror[int64, item](t, src, nil)
		ready(t, m)
		src.schema = newSchema("others", "*id", "name", "text")
		src.commit(src.event(listeners.Create, "", "", "2|two|b"))
		run(t, m, "several collections, public.items and public.others: name one in MirrorOptions.Collection")
		if m.Len() != 1 {
			t.Errorf("Len() of a mirror that stopped = %d, want what it held", m.Len())
		}
	})
	t.Run("changes too early", func(t *testing.T) {
		src := items()
		m := mirror[int64, item](t, changesOnly{src}, nil)
		src.commit(src.event(listeners.Create, "", "", "2|two|b"))
		run(t, m, "before its snapshot was complete")
	})
	t.Run("going back", func(t *testing.T) {
		src := items()
		m := mirror[int64, item](t, src, nil)
		ready(t, m)
		src.commit(src.event(listeners.Create, "", "", "2|two|b"))
		src.commit(src.event(listeners.Create, "", "", "3|three|c"))
		src.at.Commit -= 2
		src.commit(src.event(listeners.Create, "", "", "4|four|d"))
		run(t, m, "went back from position")
	})
	t.Run("source ends", func(t *testing.T) {
		src := items()
		m := mirror[int64, item](t, src, nil)
		ready(t, m)
		src.feed.Close()
		<-m.Done()
		if m.Err() != nil || m.Len() != 1 {
			t.Errorf("after the end of its source Err() = %v, Len() = %d; want nil and what it held", m.Err(), m.Len())
		}
	})
}

func TestMirrorTakesOneCollectionOfSeveral(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a"}
	m := mirror[int64](t, src, &grid.MirrorOptions[item]{Collection: "public.items"})
	ready(t, m)
	own := src.schema
	src.schema = newSchema("others", "*id", "name", "text")
	other := src.event(listeners.Create, "", "", "2|two|b")
	src.schema = own
	b := src.commit(other, src.event(listeners.Create, "", "", "3|three|c"))
	checkMirror(t, m, b.Position, map[int64]item{1: {Name: "one", Text: "a"}, 3: {Name: "three", Text: "c"}})
}
