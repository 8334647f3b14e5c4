package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// errDrawn and errPatience are why a listener fails, and why a write ends.
var (
	errDrawn    = errors.New("as drawn")
	errPatience = errors.New("out of patience")
	errVeto     = errors.New("a writer refuses")
)

// A book is what one region must be: a list of transactions and the map after
// each. It hears everything, and others are compared with it.
type book struct {
	region  *grid.Region[string, int]
	queries []*grid.Query[string, int]
	index   *grid.Index[string, int, int]
	slots   *grid.Index[string, int, int]
	unique  bool // is slots
	cache   *cache

	mu      sync.Mutex
	states  []map[string]int // by commit
	events  [][]string       // by commit
	values  map[int]bool     // that were ever there
	faults  []string
	epoch   uint64
	claims  []claim         // what writers were told
	stored  map[int]bool    // values whose write returned an error or not
	glimpse []glimpse       // what readers saw
	keys    map[string]bool // that were ever there
}

type claim struct {
	at    uint64
	event string
}

type glimpse struct {
	at    uint64
	state map[string]int
}

// A set is what somebody subscribes to: 0 is the region, then come its queries.
func inSet(set, v int) bool {
	switch set {
	case 1:
		class, ok := classOf("", v)
		return ok && class == 1
	case 2:
		return v%2 == 0
	case 3:
		slot, ok := slotOf("", v)
		return ok && slot == 3
	}
	return true
}

// slotOf is of a unique index in some regions. What is loaded has none.
func slotOf(_ string, v int) (int, bool) { return v % 10, v%4 != 0 }

func classOf(_ string, v int) (int, bool) { return v % 3, v%5 != 0 }

func within(state map[string]int, set int) map[string]int {
	kept := maps.Clone(state)
	maps.DeleteFunc(kept, func(_ string, v int) bool { return !inSet(set, v) })
	return kept
}

func (l *book) OnBatch(_ context.Context, b *listeners.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := uint64(len(l.states)); b.Position.Commit != n || b.Position.Epoch != l.epoch || !b.First || !b.Last {
		l.faults = append(l.faults, fmt.Sprintf("batch at %s after commit %d", b.Position, n-1))
	}
	state := maps.Clone(l.states[len(l.states)-1])
	var events []string
	for i := range b.Events {
		c, err := listeners.NewChange[int](&b.Events[i])
		if err != nil {
			return err
		}
		held, there := state[c.Key]
		if c.Op != listeners.Truncate && (there == (c.Op == listeners.Create) || held != c.Before) {
			l.faults = append(l.faults, fmt.Sprintf("%s of %s from %d at %s, where there was %d", c.Op, c.Key, c.Before, b.Position, held))
		}
		switch c.Op {
		case listeners.Truncate:
			clear(state)
		case listeners.Delete:
			delete(state, c.Key)
		default:
			state[c.Key] = c.After
			l.values[c.After], l.keys[c.Key] = true, true
		}
		events = append(events, fmt.Sprintf("%s %s %d", c.Op, c.Key, c.After))
	}
	l.states, l.events = append(l.states, state), append(l.events, events)
	return nil
}

// told takes note of what a write returned.
func (l *book) told(at listeners.Position, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = append(l.claims, claim{at.Commit, fmt.Sprintf(format, args...)})
}

// wrote takes note of the outcome of the write of a value.
func (l *book) wrote(v int, stored bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored[v] = stored
}

func (l *book) anyPosition(n int) (listeners.Position, map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := n % len(l.states)
	if at == 0 {
		return listeners.Position{Epoch: l.epoch}, l.states[0]
	}
	return listeners.Position{Epoch: l.epoch, Commit: uint64(at), Index: uint32(len(l.events[at]) - 1)}, l.states[at]
}

// check compares the book with the region, and with what was told of it.
func (l *book) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) > 0 {
		return fmt.Errorf("the book: %q", l.faults)
	}
	s, last := l.region.Snapshot(), len(l.states)-1
	if got := maps.Collect(s.All()); s.Position().Commit != uint64(last) || !maps.Equal(got, l.states[last]) {
		return fmt.Errorf("the snapshot is %v at %s, the events make %v at %d", got, s.Position(), l.states[last], last)
	}
	for _, g := range l.glimpse {
		if !maps.Equal(g.state, l.states[g.at]) {
			return fmt.Errorf("a snapshot at %d was %v, the events make %v", g.at, g.state, l.states[g.at])
		}
	}
	for _, c := range l.claims {
		if !slices.ContainsFunc(l.events[c.at], func(e string) bool { return e == c.event || e == "create "+c.event || e == "update "+c.event }) {
			return fmt.Errorf("a write returned %d for %q, where the events are %q", c.at, c.event, l.events[c.at])
		}
	}
	for v, stored := range l.stored {
		if l.values[v] != stored {
			return fmt.Errorf("the write of %d stored it: %t; it was heard of: %t", v, stored, l.values[v])
		}
	}
	all := maps.Collect(l.region.All())
	for i, q := range l.queries {
		if got := maps.Collect(q.All()); !maps.Equal(got, within(all, i+1)) {
			return fmt.Errorf("query %s is %v of %v", q.Name(), got, all)
		}
	}
	indexed := maps.Clone(all)
	maps.DeleteFunc(indexed, func(_ string, v int) bool { _, ok := classOf("", v); return !ok })
	if got := maps.Collect(l.index.From(0)); !maps.Equal(got, indexed) {
		return fmt.Errorf("the index holds %v, want %v", got, indexed)
	}
	return l.checkSlots(all)
}

// checkSlots compares the index that may be unique with the entries.
func (l *book) checkSlots(all map[string]int) error {
	for slot := range 10 {
		want := maps.Clone(all)
		maps.DeleteFunc(want, func(_ string, v int) bool { s, ok := slotOf("", v); return !ok || s != slot })
		if got := maps.Collect(l.slots.Equal(slot)); !maps.Equal(got, want) || l.unique && len(got) > 1 {
			return fmt.Errorf("slot %d (unique %t) holds %v, want %v", slot, l.unique, got, want)
		}
	}
	return nil
}

// A bustle is two regions, those who write into them and those who hear.
type bustle struct {
	grid    *grid.Grid
	books   [2]*book
	changes bool // a writer has other values stored

	mu      sync.Mutex
	random  *rand.Rand
	last    int // value
	budget  int // of what listeners do
	hearers []*hearer
	faults  []error
}

func (w *bustle) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

func (w *bustle) next() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	return w.last
}

func (w *bustle) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Errorf(format, args...))
}

// may spends from the budget of listeners, so that what they do ends.
func (w *bustle) may() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.budget--
	return w.budget >= 0
}

func newBustle(seed uint64) (*bustle, error) {
	w := &bustle{grid: grid.New("g", nil), random: rand.New(rand.NewPCG(seed, 1)), budget: 150}
	for i := range w.books {
		pick := func(of ...int) int { return of[w.draw(len(of))] }
		r, err := grid.Open[string](w.grid, fmt.Sprint("r", i), &grid.RegionOptions[int]{
			FeedBytes: int64(pick(1, 2000, 1<<20)), HistoryBytes: int64(pick(0, 3000, 1<<20)), MaxEntries: pick(0, 0, 4),
			TTL: time.Duration(pick(0, 0, 20)) * time.Millisecond, Idle: time.Duration(pick(0, 0, 15)) * time.Millisecond,
		})
		if err != nil {
			return nil, err
		}
		l := &book{
			region: r, states: []map[string]int{{}}, events: [][]string{nil}, epoch: r.Position().Epoch,
			values: make(map[int]bool), stored: make(map[int]bool), keys: make(map[string]bool),
		}
		w.books[i] = l
		if l.index, err = grid.NewIndex(r, "class", classOf, nil); err != nil {
			return nil, err
		}
		l.unique = w.draw(3) == 0
		if l.slots, err = grid.NewIndex(r, "slot", slotOf, &grid.IndexOptions{Unique: l.unique}); err != nil {
			return nil, err
		}
		if l.cache, err = newCache(w, r); err != nil {
			return nil, err
		}
		byClass, err := l.index.Query("class 1", 1, nil)
		if err != nil {
			return nil, err
		}
		even, err := grid.NewQuery(r, "even", func(_ string, v int) bool { return v%2 == 0 }, nil)
		if err != nil {
			return nil, err
		}
		bySlot, err := l.slots.Query("slot 3", 3, nil)
		if err != nil {
			return nil, err
		}
		l.queries = []*grid.Query[string, int]{byClass, even, bySlot}
		if _, err := r.Subscribe("book", l, nil); err != nil {
			return nil, err
		}
	}
	if w.changes = w.draw(3) == 0; w.changes {
		if _, err := w.grid.AddWriter("change", w.change); err != nil {
			return nil, err
		}
	}
	if w.draw(3) == 0 {
		if _, err := w.grid.AddWriter("veto", w.veto); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// abandon is a transaction that ends by an error or a panic, after it has
// written into both regions.
func (w *bustle) abandon(ctx context.Context, k string, v int) (err error) {
	for _, l := range w.books {
		l.wrote(w.stored(v), false)
	}
	panics := w.draw(2) == 0
	defer func() {
		if p := recover(); p != nil && p != any(errDrawn) {
			panic(p)
		}
	}()
	return w.grid.Do(ctx, func(tx *grid.Tx) error {
		one, other := grid.In(tx, w.books[0].region), grid.In(tx, w.books[1].region)
		if _, err := one.Delete("z"); err != nil {
			return err
		}
		if err := errors.Join(one.Put(k, v), other.Put(k, v)); err != nil {
			return err
		}
		if panics {
			panic(errDrawn)
		}
		return errDrawn
	})
}

// change has other values stored.
func (w *bustle) change(_ context.Context, p *grid.Pending) error {
	for _, l := range w.books {
		of := grid.Changing(p, l.region)
		for k, c := range of.All() {
			if to := w.stored(c.After); to != c.After {
				if err := of.Set(k, to); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// stored returns what is stored where somebody writes v.
func (w *bustle) stored(v int) int {
	if w.changes && v%6 == 1 && v < 1<<20 {
		return v + 1<<20
	}
	return v
}

// veto is asked before each commit.
func (w *bustle) veto(_ context.Context, p *grid.Pending) error {
	for _, l := range w.books {
		for _, c := range grid.Changing(p, l.region).All() {
			if c.After > 0 && c.After%7 == 0 {
				return errVeto
			}
		}
	}
	return nil
}

// write does something at random. It is called by writers and by listeners.
func (w *bustle) write(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(1+w.draw(40))*time.Millisecond, errPatience)
	defer cancel()
	l := w.books[w.draw(2)]
	r, v := l.region, w.next()
	k := string(rune('a' + w.draw(7)))
	var pos listeners.Position
	var err error
	written := true
	switch w.draw(14) {
	default:
		pos, err = r.Put(ctx, k, v)
	case 1:
		pos, err = r.PutTTL(ctx, k, v, time.Duration(1+w.draw(30))*time.Millisecond)
	case 2:
		pos, err = r.Insert(ctx, k, v)
	case 3:
		pos, err = r.Update(ctx, k, func(int) (int, error) { return v, nil })
	case 4:
		e, _ := r.Entry(k)
		pos, err = r.CompareAndPut(ctx, k, e.Version, v)
	case 5:
		more := w.next()
		pos, err = r.PutAll(ctx, maps.All(map[string]int{k: v, "z": more}))
		if err == nil {
			l.told(pos, "z %d", w.stored(more))
		}
		l.wrote(w.stored(more), err == nil)
	case 6, 7:
		written = false
		var existed bool
		if pos, existed, err = r.Delete(ctx, k); existed {
			l.told(pos, "delete %s 0", k)
		}
	case 8:
		written = false
		if w.draw(4) > 0 {
			break
		}
		if pos, err = r.Clear(ctx); err == nil && !pos.IsZero() {
			l.told(pos, "truncate  0")
		}
	case 9, 10:
		written = false
		err = w.grid.Do(ctx, func(tx *grid.Tx) error {
			one, other := grid.In(tx, w.books[0].region), grid.In(tx, w.books[1].region)
			one.Get(k)
			if _, err := other.Delete("b"); err != nil {
				return err
			}
			return errors.Join(one.Put(k, v), other.Put(k, v))
		})
		for _, l := range w.books {
			l.wrote(w.stored(v), err == nil)
		}
	case 12:
		written = false
		if did := w.abandon(ctx, k, v); did != nil && !errors.Is(did, errDrawn) {
			err = did
		}
	case 11:
		written = false
		s := r.Snapshot()
		l.mu.Lock()
		l.glimpse = append(l.glimpse, glimpse{s.Position().Commit, maps.Collect(s.All())})
		l.mu.Unlock()
	}
	if errors.Is(err, errVeto) {
		err = nil
		l.wrote(w.stored(v), false)
		written = false
	}
	if written {
		l.wrote(w.stored(v), err == nil)
		if err == nil {
			l.told(pos, "%s %d", k, w.stored(v))
		}
	}
	if _, taken := errors.AsType[*grid.UniqueError](err); taken && (w.books[0].unique || w.books[1].unique) {
		return
	}
	if _, exists := errors.AsType[*grid.ExistsError](err); exists {
		return
	}
	if _, wrong := errors.AsType[*grid.VersionError](err); wrong {
		return
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, grid.ErrNotFound) && !errors.Is(err, grid.ErrClosed) {
		w.fault("write of %s: %w", k, err)
	}
}
