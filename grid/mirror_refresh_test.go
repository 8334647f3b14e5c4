package grid_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// Rows that a source reads again while it streams make the mirror as they are;
// listeners hear of what differed alone.
func TestMirrorTakesRowsThatAreReadAgain(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a", "2|two|b"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	rec := new(listenertest.Recorder)
	subscribe(t, m, rec, nil)
	send := func(first, last bool, rows ...string) listeners.Position {
		b := &listeners.Batch{Kind: listeners.Snapshot, Source: "shop", First: first, Last: last}
		for _, r := range rows {
			e := src.event(listeners.Read, "", "", r)
			src.at.Index++
			e.Position = src.at
			b.Events = append(b.Events, e)
		}
		b.Position = src.at
		src.feed.Append(b)
		return b.Position
	}
	src.at.Commit++
	send(true, false, "1|one|a", "2|TWO|b")
	at := send(false, true, "3|three|c")
	checkMirror(t, m, at, map[int64]item{1: {Name: "one", Text: "a"}, 2: {Name: "TWO", Text: "b"}, 3: {Name: "three", Text: "c"}})
	src.at.Commit++
	send(true, true)
	b := src.commit(src.event(listeners.Delete, "", "3|?|?", ""))
	checkMirror(t, m, b.Position, map[int64]item{1: {Name: "one", Text: "a"}, 2: {Name: "TWO", Text: "b"}})
	var got []string
	if _, err := rec.WaitEvents(deadline(t), 3); err != nil {
		t.Fatal(err)
	}
	for _, e := range rec.Events() {
		got = append(got, e.Op.String()+" "+e.Key)
	}
	if diff := cmp.Diff([]string{"update 2", "create 3", "delete 3"}, got); diff != "" {
		t.Errorf("listeners heard (-want +got):\n%s", diff)
	}
}

func TestMirrorIgnoresMessages(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	said := listeners.NewSchema("shop", "_messages", "audit", []listeners.Column{{Name: "text", Type: "text"}})
	b := src.commit(listeners.Event{Op: listeners.Message, Schema: said}, src.event(listeners.Create, "", "", "2|two|b"))
	checkMirror(t, m, b.Position, map[int64]item{1: {Name: "one", Text: "a"}, 2: {Name: "two", Text: "b"}})
}
