package grid_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A shop is a source of two tables.
type shop struct {
	feed          *listeners.Feed
	at            listeners.Position
	items, orders *table
}

func newShop() *shop {
	return &shop{
		feed: listeners.NewFeed(nil), at: listeners.Position{Epoch: 5, Commit: 100},
		items: newItems(), orders: newTable("orders", "*id", "name", "text"),
	}
}

func (s *shop) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	var join listeners.Join
	if opts != nil && opts.Current {
		at, state := s.at, s.snapshot()
		join = func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			for _, b := range state {
				if err := emit(b); err != nil {
					return listeners.Position{}, err
				}
			}
			return at, nil
		}
	}
	return s.feed.Subscribe(name, l, opts, join)
}

// snapshot returns the state as Reset, a batch for each row, and Live.
func (s *shop) snapshot() []*listeners.Batch {
	mark := func(kind listeners.Kind) *listeners.Batch {
		return &listeners.Batch{Kind: kind, Position: s.at, First: true, Last: true}
	}
	all := []*listeners.Batch{mark(listeners.Reset)}
	rows := len(s.items.state) + len(s.orders.state)
	if rows == 0 {
		all = append(all, mark(listeners.Snapshot))
	}
	for _, t := range []*table{s.items, s.orders} {
		t.at = s.at
		for _, r := range t.state {
			b := mark(listeners.Snapshot)
			b.First, b.Last = len(all) == 1, len(all) == rows
			b.Events = []listeners.Event{t.event(listeners.Read, "", "", r)}
			all = append(all, b)
		}
	}
	return append(all, mark(listeners.Live))
}

func (s *shop) send(batches ...*listeners.Batch) {
	for _, b := range batches {
		s.feed.Append(b)
	}
}

// commit sends a transaction, in parts of as many events as size says.
func (s *shop) commit(size int, events ...listeners.Event) *listeners.Batch {
	s.at.Commit++
	s.at.Index = 0
	var b *listeners.Batch
	for len(events) > 0 {
		n := min(size, len(events))
		b = s.part(s.at.Index == 0, n == len(events), events[:n]...)
		events = events[n:]
	}
	return b
}

func (s *shop) part(first, last bool, events ...listeners.Event) *listeners.Batch {
	for i := range events {
		events[i].Position = s.at
		s.at.Index++
	}
	b := &listeners.Batch{
		Kind: listeners.Changes, Source: "shop", Events: events, First: first, Last: last, Position: events[len(events)-1].Position,
		Tx: listeners.Tx{ID: 7000 + s.at.Commit, Time: time.Unix(int64(s.at.Commit), 0).UTC()},
	}
	s.feed.Append(b)
	return b
}

type trade struct {
	group         *grid.Group
	items, orders *grid.Region[int64, item]
}

func newTrade(t *testing.T, g *grid.Grid, src listeners.Source) trade {
	t.Helper()
	group, err := grid.NewGroup(g, "trade", src, nil)
	if err != nil {
		t.Fatalf("NewGroup() = %v, want no error", err)
	}
	add := func(name string) *grid.Region[int64, item] {
		r, err := grid.AddTable[int64, item](group, name, "public."+name, nil)
		if err != nil {
			t.Fatalf("AddTable(%q) = %v, want no error", name, err)
		}
		return r
	}
	return trade{group, add("items"), add("orders")}
}

func start(t *testing.T, tr trade) {
	t.Helper()
	if err := tr.group.Start(); err != nil {
		t.Fatalf("Start() = %v, want no error", err)
	}
	if err := tr.group.WaitReady(deadline(t)); err != nil {
		t.Fatalf("WaitReady() = %v, want nil", err)
	}
}

func reach(t *testing.T, tr trade, at listeners.Position) {
	t.Helper()
	wait(t, "the group at "+at.String(), func() bool { return tr.group.Position().Compare(at) >= 0 || tr.group.Err() != nil })
	if err := tr.group.Err(); err != nil {
		t.Fatalf("Err() = %v, want nil", err)
	}
}

// A ledger rebuilds regions from the events of a subscription.
type ledger struct {
	mu    sync.Mutex
	state map[string]string // "collection/key" to JSON
	at    listeners.Position
	whole bool // it is no part of a state that is told
	fault string
}

func (l *ledger) OnBatch(_ context.Context, b *listeners.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Kind == listeners.Reset {
		l.state = map[string]string{}
	}
	if b.Kind == listeners.Changes && b.Position.Compare(l.at) <= 0 {
		l.fault = fmt.Sprintf("batch at %s after %s", b.Position, l.at)
	}
	l.at, l.whole = b.Position, b.Kind == listeners.Changes || b.Kind == listeners.Live
	for i := range b.Events {
		e := &b.Events[i]
		id := func(k listeners.Key) string { return e.Schema.Collection() + "/" + k.String() }
		if old, moved := e.ChangedKey(); moved {
			delete(l.state, id(old))
		}
		switch e.Op {
		case listeners.Truncate:
			maps.DeleteFunc(l.state, func(k, _ string) bool { return strings.HasPrefix(k, e.Schema.Collection()+"/") })
		case listeners.Delete:
			if l.state[id(e.Key())] != string(e.Before.AppendJSON(nil)) {
				l.fault = fmt.Sprintf("delete of %s tells another old value", id(e.Key()))
			}
			delete(l.state, id(e.Key()))
		case listeners.Create, listeners.Update, listeners.Read, listeners.Message:
			l.state[id(e.Key())] = string(e.After.AppendJSON(nil))
		}
	}
	return nil
}

// check compares the ledger with a snapshot of the group at the same position.
func (l *ledger) check(t interface{ Fatalf(string, ...any) }, tr trade) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != "" {
		t.Fatalf("%s", l.fault)
	}
	want := map[string]string{}
	s := tr.group.Snapshot()
	for _, r := range []*grid.Region[int64, item]{tr.items, tr.orders} {
		state, ok := grid.SnapshotOf(s, r)
		if !ok {
			t.Fatalf("SnapshotOf(%s) = false, want it in the group", r.Name())
		}
		for k, v := range state.All() {
			want[fmt.Sprintf("%s/%d", r.Name(), k)] = fmt.Sprintf(`{"id":%d,"name":%q,"text":%q,"note":null}`, k, v.Name, v.Text)
		}
	}
	if diff := cmp.Diff(want, l.state); diff != "" {
		t.Fatalf("state rebuilt from the group's events at %s, snapshot at %s (-snapshot +rebuilt):\n%s", l.at, s.Position(), diff)
	}
}

func TestGroupShowsATransactionInAllRegionsAtOnce(t *testing.T) {
	src := newShop()
	src.items.state, src.orders.state = []string{"1|v|x"}, []string{"1|v|x"}
	g := newGrid(t)
	tr := newTrade(t, g, src)
	start(t, tr)
	const rounds = 300
	stop := make(chan struct{})
	var readers sync.WaitGroup
	defer readers.Wait()
	defer close(stop)
	read := func(how string, look func() (a, b item)) {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a, b := look(); a != b {
					t.Errorf("%s sees items at %q and orders at %q", how, a.Name, b.Name)
					return
				}
			}
		})
	}
	read("Snapshot", func() (a, b item) {
		s := tr.group.Snapshot()
		items, _ := grid.SnapshotOf(s, tr.items)
		orders, _ := grid.SnapshotOf(s, tr.orders)
		a, _ = items.Get(1)
		b, _ = orders.Get(1)
		return a, b
	})
	read("Do", func() (a, b item) {
		err := g.Do(t.Context(), func(tx *grid.Tx) error {
			a, _ = grid.In(tx, tr.items).Get(1)
			b, _ = grid.In(tx, tr.orders).Get(1)
			return nil
		})
		if err != nil {
			t.Errorf("Do() = %v, want nil", err)
		}
		return a, b
	})
	var last *listeners.Batch
	for i := range rounds {
		row := fmt.Sprintf("1|v%d|x", i)
		last = src.commit(1+i%2, src.orders.event(listeners.Update, "", "", row), src.items.event(listeners.Update, "", "", row))
	}
	reach(t, tr, last.Position)
	if v, _ := tr.items.Get(1); v.Name != fmt.Sprintf("v%d", rounds-1) {
		t.Errorf("Get(1) = %+v after %d rounds", v, rounds)
	}
}

func TestGroupTellsATransactionAsOneBatchInTheOrderOfTheSource(t *testing.T) {
	src := newShop()
	src.items.state = []string{"1|one|a"}
	tr := newTrade(t, newGrid(t), src)
	early := new(listenertest.Recorder)
	subscribe(t, tr.group, early, nil)
	start(t, tr)
	whole, items, orders, only := new(listenertest.Recorder), new(listenertest.Recorder), new(listenertest.Recorder), new(listenertest.Recorder)
	subscribe(t, tr.group, whole, nil)
	subscribe(t, tr.items, items, nil)
	subscribe(t, tr.orders, orders, nil)
	live(t, subscribe(t, tr.group, only, &listeners.SubscribeOptions{Current: true, Collections: []string{"orders"}}))
	b := src.commit(10,
		src.orders.event(listeners.Create, "", "", "7|seven|x"),
		src.items.event(listeners.Update, "", "", "1|uno|?"),
		src.orders.event(listeners.Update, "", "", "7|SEVEN|?"),
		src.items.event(listeners.Delete, "", "1|?|?", ""))
	for name, tc := range map[string]struct {
		rec  *listenertest.Recorder
		want []string
	}{
		"group":          {whole, []string{"create orders/7", "update items/1", "update orders/7", "delete items/1"}},
		"one region":     {items, []string{"update items/1", "delete items/1"}},
		"the other":      {orders, []string{"create orders/7", "update orders/7"}},
		"group, limited": {only, []string{"create orders/7", "update orders/7"}},
	} {
		batches, err := tc.rec.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) > 0 && b[len(b)-1].Kind == listeners.Changes })
		if err != nil {
			t.Fatal(err)
		}
		last := batches[len(batches)-1]
		var got []string
		for _, e := range last.Events {
			got = append(got, fmt.Sprintf("%s %s/%s", e.Op, e.Collection, e.Key))
		}
		if !slices.Equal(got, tc.want) || !last.First || !last.Last || last.Tx != b.Tx || last.Position.Compare(b.Position) > 0 {
			t.Errorf("%s heard %q at %s of %+v; want %q of %+v", name, got, last.Position, last.Tx, tc.want, b.Tx)
		}
	}
	told, err := early.Wait(deadline(t), func(b []listenertest.Batch) bool { return len(b) >= 5 })
	if err != nil {
		t.Fatal(err)
	}
	var kinds []listeners.Kind
	for _, b := range told {
		kinds = append(kinds, b.Kind)
	}
	want := []listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Snapshot, listeners.Live, listeners.Changes}
	if !slices.Equal(kinds, want) {
		t.Errorf("who was there before the group was ready heard %v, want %v", kinds, want)
	}
}

// Everything that a source does, in random order: the regions are what it says,
// and whoever hears the group knows the same.
func TestGroupFollowsRandomHistories(t *testing.T) {
	seedtest.PlayAnew(t, func(t *testing.T, seed uint64) {
		seedtest.Check(t, seed, func(rt *rapid.T) { checkGroup(t, rt) })
	})
}

func checkGroup(t *testing.T, rt *rapid.T) {
	t.Helper()
	src := newShop()
	tables := []*table{src.items, src.orders}
	state := []map[int]string{{}, {}}
	for i, s := range state {
		for k := range rapid.IntRange(0, 3).Draw(rt, "rows") {
			s[k] = "first|x"
		}
		tables[i].state = rows(s)
	}
	g := grid.New("g", nil)
	defer func() { _ = g.Close(t.Context()) }()
	tr := newTrade(t, g, src)
	heard := new(ledger)
	subscribe(t, tr.group, heard, nil)
	start(t, tr)
	joined := new(ledger)
	events := func() []listeners.Event {
		var events []listeners.Event
		for range rapid.IntRange(1, 5).Draw(rt, "events") {
			n := rapid.IntRange(0, 1).Draw(rt, "table")
			k, v := rapid.IntRange(0, 4).Draw(rt, "key"), rapid.SampledFrom([]string{"a|b", "c|d", "e|f"}).Draw(rt, "value")
			_, held := state[n][k]
			switch {
			case rapid.IntRange(0, 9).Draw(rt, "truncate") == 0:
				clear(state[n])
				events = append(events, tables[n].event(listeners.Truncate, "", "", ""))
			case held && rapid.Bool().Draw(rt, "delete"):
				delete(state[n], k)
				events = append(events, tables[n].event(listeners.Delete, "", fmt.Sprintf("%d|?|?", k), ""))
			case held:
				state[n][k] = v
				events = append(events, tables[n].event(listeners.Update, "", "", fmt.Sprintf("%d|%s", k, v)))
			default:
				state[n][k] = v
				events = append(events, tables[n].event(listeners.Create, "", "", fmt.Sprintf("%d|%s", k, v)))
			}
		}
		return events
	}
	for step := range rapid.IntRange(1, 8).Draw(rt, "steps") {
		switch rapid.IntRange(0, 4).Draw(rt, "step") {
		case 0: // the source has lost its place, maybe within a transaction
			if rapid.Bool().Draw(rt, "torn") {
				src.at.Commit++
				src.at.Index = 0
				src.part(true, false, src.items.event(listeners.Create, "", "", "9|torn|x"))
			}
			src.items.state, src.orders.state = rows(state[0]), rows(state[1])
			src.at.Commit += 2
			src.at.Index = 0
			s := src.snapshot()
			if rapid.Bool().Draw(rt, "interrupted") {
				// All rows were sent, then a transaction, and once more the orders.
				src.send(s[:len(s)-1]...)
				src.commit(rapid.IntRange(1, 3).Draw(rt, "parts"), events()...)
				src.orders.state, src.items.state = rows(state[1]), nil
				src.at.Commit += 2
				src.at.Index = 0
				s = src.snapshot()
				s[0].Collections = []string{"public.orders"}
			}
			src.send(s...)
		case 1: // rows are read again
			b := &listeners.Batch{Kind: listeners.Snapshot, First: true, Last: true}
			src.at.Commit++
			src.items.at = src.at
			for i, r := range rows(state[0]) {
				e := src.items.event(listeners.Read, "", "", r)
				e.Position.Index = uint32(i)
				b.Events = append(b.Events, e)
			}
			b.Position = src.at
			b.Position.Index = uint32(len(b.Events))
			src.send(b)
		default:
			src.commit(rapid.IntRange(1, 5).Draw(rt, "parts"), events()...)
		}
		if step == 2 {
			subscribe(t, tr.group, joined, current)
		}
	}
	end := src.commit(1, src.items.event(listeners.Create, "", "", "99|end|x"))
	state[0][99] = "end|x"
	reach(t, tr, end.Position)
	for i, r := range []*grid.Region[int64, item]{tr.items, tr.orders} {
		got := map[int]string{}
		for k, v := range r.All() {
			got[int(k)] = v.Name + "|" + v.Text
		}
		if diff := cmp.Diff(state[i], got); diff != "" || r.Len() != len(state[i]) {
			rt.Fatalf("%s of %d (-source +region):\n%s", r.Name(), r.Len(), diff)
		}
	}
	for _, l := range []*ledger{heard, joined} {
		if l == joined {
			l.mu.Lock()
			used := l.state != nil
			l.mu.Unlock()
			if !used {
				continue
			}
		}
		wait(t, "a listener at the end", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.at == end.Position && l.whole
		})
		l.check(rt, tr)
	}
}

func rows(state map[int]string) []string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(state)) {
		all = append(all, fmt.Sprintf("%d|%s", k, state[k]))
	}
	return all
}

func TestGroupGoesOnWithoutARegionThatWasClosed(t *testing.T) {
	src := newShop()
	g := newGrid(t)
	tr := newTrade(t, g, src)
	start(t, tr)
	if err := tr.items.Close(deadline(t)); err != nil {
		t.Fatalf("Close() of a region = %v, want nil", err)
	}
	<-tr.items.Done()
	rec := new(listenertest.Recorder)
	subscribe(t, tr.group, rec, nil)
	b := src.commit(2, src.items.event(listeners.Create, "", "", "1|one|a"), src.orders.event(listeners.Create, "", "", "1|one|a"))
	reach(t, tr, b.Position)
	if tr.items.Len() != 0 || tr.orders.Len() != 1 {
		t.Errorf("the closed region holds %d rows and the open one %d, want 0 and 1", tr.items.Len(), tr.orders.Len())
	}
	if events, err := rec.WaitEvents(deadline(t), 1); err != nil || len(events) != 1 || events[0].Collection != "orders" {
		t.Errorf("the group told %v, %v; want the create of orders/1 alone", events, err)
	}
	if err := tr.orders.Close(deadline(t)); err != nil {
		t.Fatalf("Close() of the last region = %v, want nil", err)
	}
	select {
	case <-tr.group.Done():
	case <-deadline(t).Done():
		t.Fatal("the group goes on without regions")
	}
	if n := len(src.feed.Subscriptions()); n != 0 {
		t.Errorf("%d subscriptions to the source are left, want 0", n)
	}
}

func TestGroupThatCannotGoOnStopsAllItsRegions(t *testing.T) {
	src := newShop()
	tr := newTrade(t, newGrid(t), src)
	start(t, tr)
	b := src.commit(1, src.orders.event(listeners.Create, "", "", "1|one|a"))
	reach(t, tr, b.Position)
	src.commit(2, src.orders.event(listeners.Create, "", "", "2|two|b"), src.items.event(listeners.Create, "", "", "abc|one|a"))
	select {
	case <-tr.orders.Done():
	case <-deadline(t).Done():
		t.Fatal("the group goes on")
	}
	<-tr.group.Done()
	for name, err := range map[string]error{"group": tr.group.Err(), "orders": tr.orders.Err(), "items": tr.items.Err()} {
		if err == nil || !strings.Contains(err.Error(), "public.items") || !strings.Contains(err.Error(), "column public.items.id into int64") {
			t.Errorf("Err() of %s = %v, want which row of which table", name, err)
		}
	}
	if tr.orders.Len() != 1 {
		t.Errorf("orders hold %d rows, want nothing of the transaction that failed", tr.orders.Len())
	}
}

func TestGroupLag(t *testing.T) {
	src := newShop()
	tr := newTrade(t, newGrid(t), src)
	if lag := tr.group.Lag(); lag != (listeners.Lag{}) {
		t.Errorf("Lag() before Start = %+v, want none", lag)
	}
	start(t, tr)
	// A listener that does not return fills a region's feed; then the group waits.
	release := make(chan struct{})
	small, err := grid.Mirror[int64](newGrid(t), "small", tr.items, &grid.MirrorOptions[item]{FeedBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	ready(t, small)
	subscribe(t, small, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { <-release; return nil }), nil)
	for i := range 3 {
		src.commit(1, src.items.event(listeners.Create, "", "", fmt.Sprintf("%d|x|y", i)))
	}
	wait(t, "a lag of the mirror", func() bool {
		l := small.Lag()
		return l.Batches >= 1 && l.Bytes > 0 && l.Age > 0
	})
	close(release)
	wait(t, "no lag", func() bool { return small.Lag().Batches == 0 && tr.group.Lag().Batches == 0 })
	if small.Len() != 3 {
		t.Errorf("Len() = %d without a lag, want 3", small.Len())
	}
}
