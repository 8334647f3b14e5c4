package grid_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// A depot is a source of two tables with transactions over both, which does what
// a reader of a database does: it sends them in parts, loses its place, and reads
// rows again.
type depot struct {
	shop *shop
	draw func(int) int

	mu     sync.Mutex
	state  [2]map[int]string
	states map[uint64][2]map[string]string // by commit, as a depotView shows it
	// frozen are the states that a table may still have at a commit instead,
	// since it is being told anew then.
	frozen map[uint64][2]map[string]string
	cold   [2]map[string]string // nil unless that goes on
}

func newDepot(draw func(int) int) *depot {
	d := &depot{
		shop: newShop(), draw: draw, state: [2]map[int]string{{}, {}},
		states: make(map[uint64][2]map[string]string), frozen: make(map[uint64][2]map[string]string),
	}
	d.shop.feed = listeners.NewFeed(&listeners.FeedOptions{MaxBytes: int64(1 + draw(400)), HistoryBytes: int64(draw(2) * draw(600))})
	d.note()
	return d
}

func (d *depot) tables() [2]*table { return [2]*table{d.shop.items, d.shop.orders} }

// note takes down the state at the present commit. The caller has mu, or is
// alone.
func (d *depot) note() {
	d.states[d.shop.at.Commit] = [2]map[string]string{depotView(d.state[0]), depotView(d.state[1])}
	d.frozen[d.shop.at.Commit] = d.cold
}

// depotView is a table as its listeners know it.
func depotView(state map[int]string) map[string]string {
	view := make(map[string]string)
	for k, v := range state {
		view[fmt.Sprint(k)] = v
	}
	return view
}

func (d *depot) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	var join listeners.Join
	if opts.Current {
		join = func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			d.mu.Lock()
			at, state := d.shop.at, d.snapshot()
			d.mu.Unlock()
			for _, b := range state {
				if err := emit(b); err != nil {
					return at, err
				}
			}
			return at, nil
		}
	}
	return d.shop.feed.Subscribe(name, l, opts, join)
}

func (d *depot) snapshot() []*listeners.Batch {
	for i, t := range d.tables() {
		t.state = rows(d.state[i])
	}
	return d.shop.snapshot()
}

func (d *depot) send(batches ...*listeners.Batch) {
	for _, b := range batches {
		b.Size = 1 + len(b.Events)
		d.shop.feed.Append(b)
	}
}

func (d *depot) bump() {
	d.shop.at.Commit++
	d.shop.at.Index = 0
}

// act does something at random. Only one goroutine may call it.
func (d *depot) act(ctx context.Context) error {
	if err := d.shop.feed.Reserve(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.draw(14) {
	case 0:
		if d.draw(2) == 0 { // within a transaction, which it has not committed
			d.bump()
			d.parts(false, d.tables()[0].event(listeners.Create, "", "", "9|torn|x"))
			d.note()
		}
		d.bump()
		d.note()
		d.send(d.snapshot()...)
	case 1:
		d.retell(d.draw(2))
	case 2:
		d.refresh(d.draw(2))
	default:
		d.commit()
	}
	return nil
}

// retell tells one of the tables anew, while transactions go on.
func (d *depot) retell(n int) {
	d.bump()
	d.note()
	s := d.snapshot()
	name := d.tables()[n].schema.Collection()
	s = slices.DeleteFunc(s, func(b *listeners.Batch) bool {
		return len(b.Events) > 0 && b.Events[0].Schema.Collection() != name
	})
	s[0].Collections = []string{name}
	d.send(s[:len(s)-1]...)
	d.cold[n] = depotView(d.state[n])
	for range d.draw(3) {
		d.commit()
	}
	d.bump()
	d.note()
	d.cold[n] = nil
	live := s[len(s)-1]
	live.Position = d.shop.at
	d.send(live)
}

// refresh reads rows again, which are as they were.
func (d *depot) refresh(n int) {
	d.bump()
	d.note()
	t := d.tables()[n]
	b := &listeners.Batch{Kind: listeners.Snapshot, First: true, Last: true}
	for i, r := range rows(d.state[n]) {
		e := t.event(listeners.Read, "", "", r)
		e.Position = d.shop.at
		e.Position.Index = uint32(i)
		b.Events = append(b.Events, e)
	}
	b.Position = d.shop.at
	b.Position.Index = uint32(len(b.Events))
	d.shop.at = b.Position
	d.send(b)
}

// commit makes a transaction over both tables.
func (d *depot) commit() {
	d.bump()
	var events []listeners.Event
	for range 1 + d.draw(5) {
		n := d.draw(2)
		t, s := d.tables()[n], d.state[n]
		k, v := d.draw(5), fmt.Sprintf("v%d|x", d.draw(1000))
		_, held := s[k]
		to := d.draw(5)
		_, taken := s[to]
		switch {
		case d.draw(15) == 0:
			clear(s)
			events = append(events, t.event(listeners.Truncate, "", "", ""))
		case held && d.draw(3) == 0:
			delete(s, k)
			events = append(events, t.event(listeners.Delete, "", fmt.Sprintf("%d|?|?", k), ""))
		case held && !taken && d.draw(3) == 0:
			delete(s, k)
			s[to] = v
			events = append(events, t.event(listeners.Update, "", fmt.Sprintf("%d|?|?", k), fmt.Sprintf("%d|%s", to, v)))
		case held:
			s[k] = v
			events = append(events, t.event(listeners.Update, "", "", fmt.Sprintf("%d|%s", k, v)))
		default:
			s[k] = v
			events = append(events, t.event(listeners.Create, "", "", fmt.Sprintf("%d|%s", k, v)))
		}
	}
	d.parts(true, events...)
	d.note()
}

// parts sends a transaction in several batches. One that is not whole breaks
// off.
func (d *depot) parts(whole bool, events ...listeners.Event) {
	size := 1 + d.draw(5)
	for i := range events {
		events[i].Position = d.shop.at
		d.shop.at.Index++
	}
	d.shop.at.Index--
	for part := range slices.Chunk(events, size) {
		first, last := &part[0], &part[len(part)-1]
		d.send(&listeners.Batch{
			Kind: listeners.Changes, Source: "shop", Events: part, Position: last.Position,
			First: first == &events[0], Last: whole && last == &events[len(events)-1],
		})
	}
}

// check returns an error if the tables cannot have been as these states at a
// commit; nil stands for one that is not known.
func (d *depot) check(commit uint64, got [2]map[string]string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	want, ok := d.states[commit]
	if !ok {
		return fmt.Errorf("there is no commit %d", commit)
	}
	for i, g := range got {
		if cold := d.frozen[commit][i]; g != nil && !maps.Equal(g, want[i]) && (cold == nil || !maps.Equal(g, cold)) {
			return fmt.Errorf("%s are %v at %d, want %v", d.tables()[i].schema.Collection(), g, commit, want[i])
		}
	}
	return nil
}
