package grid_test

import (
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A source that has lost its place, and tells the same state anew, has no news for
// listeners; but who waits for its position has to wait no more.
func TestWaitReachesTheSameStateToldAnew(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a"}
	m := mirror[int64, item](t, src, nil)
	ready(t, m)
	q, err := grid.NewQuery(m, "all", func(int64, item) bool { return true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := new(listenertest.Recorder)
	subs := []*listeners.Subscription{subscribe(t, m, rec, nil), subscribe(t, q, rec, nil)}
	src.at.Commit += 10
	for _, b := range src.snapshot() {
		src.feed.Append(b)
	}
	for _, sub := range subs {
		if err := sub.Wait(deadline(t), src.at); err != nil {
			t.Errorf("Wait(%s) = %v, at %s", src.at, err, sub.Stored())
		}
	}
	if got := m.Position(); got != src.at {
		t.Errorf("Position() = %s, want %s", got, src.at)
	}
	src.commit(src.event(listeners.Update, "", "", "1|uno|a"))
	if _, err := rec.WaitEvents(deadline(t), 2); err != nil || len(rec.Batches()) != 2 {
		t.Errorf("heard %d batches, want one of each subscription: %v", len(rec.Batches()), err)
	}
}

func TestWaitReachesTheSameStateToldAnewToAGroup(t *testing.T) {
	src := newShop()
	src.items.state, src.orders.state = []string{"1|one|a"}, []string{"2|two|b"}
	tr := newTrade(t, newGrid(t), src)
	start(t, tr)
	rec := new(listenertest.Recorder)
	subs := []*listeners.Subscription{subscribe(t, tr.group, rec, nil), subscribe(t, tr.items, rec, nil), subscribe(t, tr.orders, rec, nil)}
	src.at.Commit += 10
	src.send(src.snapshot()...)
	for i, sub := range subs {
		if err := sub.Wait(deadline(t), src.at); err != nil {
			t.Errorf("%d: Wait(%s) = %v, at %s", i, src.at, err, sub.Stored())
		}
	}
	if got := tr.group.Position(); got != src.at {
		t.Errorf("Position() = %s, want %s", got, src.at)
	}
	at := src.commit(1, src.items.event(listeners.Update, "", "", "1|uno|a")).Position
	for _, sub := range subs[:2] {
		if err := sub.Wait(deadline(t), at); err != nil {
			t.Error(err)
		}
	}
	if n := len(rec.Batches()); n != 2 {
		t.Errorf("heard %d batches, want one of the group and one of its first region", n)
	}
}
