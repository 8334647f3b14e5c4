package grid_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
)

// A fleet is regions that are written, a source of two tables, and mirrors and
// groups of both at the far ends of connections that break.
type fleet struct {
	near    *bustle
	depot   *depot
	far     *grid.Grid
	mirrors [2]*grid.Region[string, int] // of the books' regions
	trade   trade                        // of the depot
	stock   *grid.Region[int64, item]    // one table of the depot
	again   *grid.Region[int64, item]    // of a region of trade
	lines   []*line
	keepers []*keeper

	glimpses [2][]glimpse // of mirrors
	wrong    error
}

func newFleet(seed uint64) (*fleet, error) {
	near, err := newBustle(seed)
	if err != nil {
		return nil, err
	}
	w := &fleet{near: near, depot: newDepot(near.draw), far: grid.New("far", nil)}
	draw := near.draw
	connect := func(src listeners.Source) *line {
		l := newLine(src, draw)
		w.lines = append(w.lines, l)
		return l
	}
	size := func() (feed, history int64) { return int64(1 + draw(3000)), int64(draw(2) * draw(6000)) }
	for i, l := range near.books {
		feed, history := size()
		if w.mirrors[i], err = grid.Mirror[string](w.far, l.region.Name(), connect(l.region), &grid.MirrorOptions[int]{FeedBytes: feed, HistoryBytes: history}); err != nil {
			return nil, err
		}
	}
	items := func() *grid.MirrorOptions[item] {
		feed, history := size()
		return &grid.MirrorOptions[item]{FeedBytes: feed, HistoryBytes: history}
	}
	feed, _ := size()
	if w.trade.group, err = grid.NewGroup(w.far, "trade", connect(w.depot), &grid.GroupOptions{FeedBytes: feed}); err != nil {
		return nil, err
	}
	if w.trade.items, err = grid.AddTable[int64](w.trade.group, "items", "public.items", items()); err != nil {
		return nil, err
	}
	if w.trade.orders, err = grid.AddTable[int64](w.trade.group, "orders", "public.orders", items()); err != nil {
		return nil, err
	}
	if err := w.trade.group.Start(); err != nil {
		return nil, err
	}
	one := items()
	one.Collection = "public.items"
	if w.stock, err = grid.Mirror[int64](w.far, "stock", connect(w.depot), one); err != nil {
		return nil, err
	}
	w.again, err = grid.Mirror[int64](w.far, "again", w.trade.items, items())
	return w, err
}

// all returns what keepers may subscribe to.
func (w *fleet) all() []kept {
	table := func(n int, r *grid.Region[int64, item]) kept {
		return kept{r.Name(), r, r.Position, valueOf[item], func(at listeners.Position, state map[string]string) error {
			var got [2]map[string]string
			got[n] = ofCollection(state, r.Name())
			return w.depot.check(at.Commit, got)
		}}
	}
	list := []kept{
		{"trade", w.trade.group, w.trade.group.Position, valueOf[item], func(at listeners.Position, state map[string]string) error {
			return w.depot.check(at.Commit, [2]map[string]string{ofCollection(state, "items"), ofCollection(state, "orders")})
		}},
		table(0, w.trade.items), table(1, w.trade.orders), table(0, w.stock), table(0, w.again),
	}
	for i, l := range w.near.books {
		list = append(list, regionKept(l.region, l.region.Name(), l), regionKept(w.mirrors[i], "mirror "+l.region.Name(), l))
	}
	return list
}

// ofCollection returns the part of a state that is of one, by key.
func ofCollection(state map[string]string, name string) map[string]string {
	part := make(map[string]string)
	for id, v := range state {
		if key, ok := strings.CutPrefix(id, name+"/"); ok {
			part[key] = v
		}
	}
	return part
}

// look takes a snapshot of something.
func (w *fleet) look() {
	if n := w.near.draw(3); n < 2 {
		select {
		case <-w.mirrors[n].Ready():
			s := w.mirrors[n].Snapshot()
			w.glimpses[n] = append(w.glimpses[n], glimpse{s.Position().Commit, maps.Collect(s.All())})
		default:
		}
		return
	}
	select {
	case <-w.trade.group.Ready():
	default:
		return
	}
	if err := w.checkGroup(); err != nil && w.wrong == nil {
		w.wrong = err
	}
}

// checkGroup compares a snapshot of all regions of the group with the depot.
func (w *fleet) checkGroup() error {
	s := w.trade.group.Snapshot()
	var got [2]map[string]string
	for i, r := range []*grid.Region[int64, item]{w.trade.items, w.trade.orders} {
		of, _ := grid.SnapshotOf(s, r)
		got[i] = make(map[string]string)
		for k, v := range of.All() {
			got[i][fmt.Sprint(k)] = v.Name + "|" + v.Text
		}
	}
	return w.depot.check(s.Position().Commit, got)
}

// check compares mirrors with what they mirror, when nothing happens any more.
func (w *fleet) check() error {
	if w.wrong != nil {
		return w.wrong
	}
	for i, l := range w.near.books {
		if err := l.check(); err != nil {
			return err
		}
		m := w.mirrors[i]
		if got, want := maps.Collect(m.All()), maps.Collect(l.region.All()); m.Err() != nil || m.Position().Commit != l.region.Position().Commit || !maps.Equal(got, want) {
			return fmt.Errorf("mirror %d holds %v at %s, the region %v at %s; it ended: %w", i, got, m.Position(), want, l.region.Position(), m.Err())
		}
		for _, g := range w.glimpses[i] {
			if !maps.Equal(g.state, l.states[g.at]) {
				return fmt.Errorf("mirror %d was %v at %d, the region %v", i, g.state, g.at, l.states[g.at])
			}
		}
	}
	for _, err := range w.near.faults {
		return err
	}
	for _, r := range []*grid.Region[int64, item]{w.trade.items, w.stock, w.again} {
		if lag := r.Lag(); r.Err() != nil || lag.Batches > 0 {
			return fmt.Errorf("%s is behind by %d batches, or ended: %w", r.Name(), lag.Batches, r.Err())
		}
	}
	return w.checkGroup()
}

// play has everything happen at once, and then end.
func (w *fleet) play(ctx context.Context) error {
	draw := w.near.draw
	linesCtx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	var lines, busy, others sync.WaitGroup
	broken := make([]error, len(w.lines))
	steady := make(chan struct{})
	for i, l := range w.lines {
		lines.Go(func() { broken[i] = l.run(linesCtx, steady) })
	}
	list := w.all()
	for range 2 + draw(5) {
		k := newKeeper(list[draw(len(list))], draw)
		if err := k.begin(listeners.Position{}); err != nil {
			return fmt.Errorf("keeper of %s: %w", k.name, err)
		}
		w.keepers = append(w.keepers, k)
	}
	for range 2 {
		busy.Go(func() {
			for range 50 {
				w.near.write(ctx)
				time.Sleep(time.Duration(draw(3)) * time.Millisecond)
			}
		})
	}
	busy.Go(func() {
		for range 40 {
			w.near.useCache(ctx)
			time.Sleep(time.Duration(draw(4)) * time.Millisecond)
		}
	})
	var sent error
	busy.Go(func() {
		for range 50 {
			if sent = w.depot.act(ctx); sent != nil {
				return
			}
			time.Sleep(time.Duration(draw(4)) * time.Millisecond)
		}
	})
	for range 50 {
		time.Sleep(time.Duration(draw(5)) * time.Millisecond)
		k := w.keepers[draw(len(w.keepers))]
		if err := k.act(ctx, &others); err != nil {
			return fmt.Errorf("keeper of %s: %w", k.name, err)
		}
		w.look()
	}
	for _, k := range w.keepers {
		k.rest()
	}
	busy.Wait()
	others.Wait()
	close(steady)
	time.Sleep(time.Hour)
	synctest.Wait()
	if sent != nil {
		return fmt.Errorf("the depot: %w", sent)
	}
	if err := w.check(); err != nil {
		return err
	}
	for _, k := range w.keepers {
		if err := k.settle(ctx); err != nil {
			return fmt.Errorf("keeper of %s, %s, retry %+v, it goes on by %q: %w", k.name, k.overflow, k.retry, k.resumes, err)
		}
	}
	hangUp()
	lines.Wait()
	for _, err := range broken {
		if err != nil {
			return fmt.Errorf("a line: %w", err)
		}
	}
	return nil
}

// A mirror or a group at the end of a connection that breaks shows at each
// position what its source held there, and so do listeners that park what they
// cannot handle, go on by a durable name after crashes, or are told anew.
func TestMirrorsGroupsAndNamesTellTheState(t *testing.T) {
	few := 40
	if testing.Short() {
		few = 10
	}
	seedtest.Play(t, few, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { playFleet(t, seed) })
	})
}

func playFleet(t *testing.T, seed uint64) {
	w, err := newFleet(seed)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := w.play(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	w.depot.shop.feed.Close()
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
	defer done()
	for _, g := range []*grid.Grid{w.far, w.near.grid} {
		if err := g.Close(closing); err != nil && !t.Failed() {
			t.Errorf("Close() = %v", err)
		}
	}
}
