package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
)

// A hearer rebuilds what it subscribed to, and misbehaves meanwhile.
type hearer struct {
	w    *bustle
	l    *book
	set  int
	opts listeners.SubscribeOptions

	pause time.Duration
	fails int // one callback of so many; 0 for none
	busy  int // one callback of so many does something; 0 for none

	sub    atomic.Pointer[listeners.Subscription]
	closed atomic.Bool // by this test
	over   atomic.Bool // closed by itself

	mu     sync.Mutex
	whole  bool // what it began with is known
	state  map[string]int
	heard  map[string]bool // keys of which state says something, unless it is whole
	first  uint64          // commit of the first changes
	at     listeners.Position
	later  []glimpse // of state, to be compared in the end
	faults []string
}

func (w *bustle) subscribe() {
	w.mu.Lock()
	full := len(w.hearers) >= 40
	w.mu.Unlock()
	if full {
		return
	}
	l := w.books[w.draw(2)]
	h := &hearer{w: w, l: l, set: w.draw(4), state: make(map[string]int), heard: make(map[string]bool)}
	h.pause = time.Duration(w.draw(4)*w.draw(4)) * time.Millisecond
	h.fails, h.busy = w.draw(3)*4, w.draw(3)*3
	h.opts = listeners.SubscribeOptions{
		Current: w.draw(2) == 0, Workers: w.draw(4), BacklogBytes: int64(1 + w.draw(4000)),
		Overflow: []listeners.Overflow{
			listeners.OverflowBlock, listeners.OverflowConflate, listeners.OverflowReset, listeners.OverflowDisconnect,
		}[w.draw(4)],
	}
	if h.opts.Overflow == listeners.OverflowReset {
		h.opts.Current = true
	}
	if w.draw(3) > 0 {
		h.opts.Retry = &listeners.RetryPolicy{Attempts: 1000, Delay: time.Millisecond, MaxDelay: 3 * time.Millisecond}
	}
	h.whole = h.opts.Current
	if w.draw(3) == 0 {
		from, state := l.anyPosition(w.draw(1 << 20))
		h.opts.From, h.whole, h.state, h.at = from, true, within(state, h.set), from
	}
	var source listeners.Source = l.region
	if h.set > 0 {
		source = l.queries[h.set-1]
	}
	w.mu.Lock()
	w.hearers = append(w.hearers, h)
	w.mu.Unlock()
	sub, err := source.Subscribe("hearer", h, &h.opts)
	if err != nil {
		if !errors.Is(err, grid.ErrClosed) && !errors.Is(err, listeners.ErrClosed) {
			w.fault("Subscribe: %w", err)
		}
		return
	}
	h.sub.Store(sub)
}

func (h *hearer) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if h.over.Load() && h.opts.Workers < 2 {
		h.w.fault("a callback after Close")
	}
	if h.pause > 0 {
		timer := time.NewTimer(h.pause)
		defer timer.Stop()
		<-timer.C
	}
	if h.fails > 0 && h.w.draw(h.fails) == 0 {
		if h.w.draw(2) == 0 {
			panic(errDrawn)
		}
		return errDrawn
	}
	h.hear(b)
	if h.busy > 0 && h.w.draw(h.busy) == 0 && h.w.may() {
		h.act(ctx)
	}
	return nil
}

// act is what a listener does from inside its callback.
func (h *hearer) act(ctx context.Context) {
	switch h.w.draw(9) {
	default:
		h.w.write(ctx)
	case 8:
		h.w.useCache(ctx)
	case 5:
		h.w.subscribe()
	case 6:
		h.w.mu.Lock()
		other := h.w.hearers[h.w.random.IntN(len(h.w.hearers))]
		h.w.mu.Unlock()
		if s := other.sub.Load(); s != nil && other.set != h.set {
			other.closed.Store(true)
			s.Close()
		}
	case 7:
		if s := h.sub.Load(); s != nil {
			h.closed.Store(true)
			if err := s.CloseWait(ctx); err != nil && ctx.Err() == nil {
				h.w.fault("CloseWait of the own subscription: %w", err)
			}
			h.over.Store(true)
		}
	}
}

func (h *hearer) hear(b *listeners.Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	several := h.opts.Workers > 1
	if b.Position.Compare(h.at) < 0 && (!several || b.Kind != listeners.Changes) || b.Kind == listeners.Changes && b.Position == h.at && !several {
		h.faults = append(h.faults, fmt.Sprintf("%s at %s after %s", b.Kind, b.Position, h.at))
	}
	if b.Position.Compare(h.at) > 0 {
		h.at = b.Position
	}
	switch b.Kind {
	case listeners.Reset:
		clear(h.state)
		h.whole = true
	case listeners.Snapshot, listeners.Live:
	case listeners.Changes:
		if h.first == 0 || several {
			h.first = min(max(h.first, b.Position.Commit), b.Position.Commit)
		}
	}
	for i := range b.Events {
		c, err := listeners.NewChange[int](&b.Events[i])
		if err != nil {
			h.faults = append(h.faults, err.Error())
			return
		}
		h.apply(c)
	}
	if b.Kind == listeners.Live || b.Kind == listeners.Changes && !several {
		h.later = append(h.later, glimpse{b.Position.Commit, maps.Clone(h.state)})
	}
}

func (h *hearer) apply(c listeners.Change[int]) {
	if c.Op == listeners.Truncate {
		clear(h.state)
		h.whole = true
		return
	}
	held, there := h.state[c.Key]
	if h.whole || h.heard[c.Key] {
		absent := c.Op == listeners.Create || c.Op == listeners.Read
		if there == absent || !absent && held != c.Before {
			h.faults = append(h.faults, fmt.Sprintf("%s of %s from %d to %d at %s, where there was %d, %t", c.Op, c.Key, c.Before, c.After, c.Position, held, there))
		}
	}
	h.heard[c.Key] = true
	if c.Op == listeners.Delete {
		delete(h.state, c.Key)
		return
	}
	if !inSet(h.set, c.After) {
		h.faults = append(h.faults, fmt.Sprintf("%s of %s to %d, which is not in set %d", c.Op, c.Key, c.After, h.set))
	}
	h.state[c.Key] = c.After
}

// check compares what was heard with the book, when nothing happens any more.
func (h *hearer) check() error {
	s := h.sub.Load()
	if s == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if len(h.faults) > 0 {
		return fmt.Errorf("%.3q", h.faults[:min(3, len(h.faults))])
	}
	for _, g := range h.later {
		if want := within(h.l.states[g.at], h.set); h.whole && h.base() && !maps.Equal(g.state, want) {
			return fmt.Errorf("rebuilt %v at %d, want %v", g.state, g.at, want)
		}
	}
	err := s.Err()
	_, lagged := errors.AsType[*listeners.LaggedError](err)
	_, gone := errors.AsType[*listeners.HistoryError](err)
	its, failed := errors.AsType[*listeners.ListenerError](err)
	switch {
	case h.closed.Load():
		return nil
	case lagged && (h.opts.Overflow == listeners.OverflowDisconnect || h.opts.Overflow == listeners.OverflowConflate && !h.opts.Current),
		gone && !h.opts.From.IsZero() && !h.opts.Current,
		failed && h.opts.Retry == nil && drawn(its):
		return nil
	case err != nil:
		return fmt.Errorf("it ended: %w", err)
	}
	last := len(h.l.states) - 1
	want := within(h.l.states[last], h.set)
	if !h.whole {
		// It has missed nothing if the rest is as before the first that it heard.
		before := within(h.l.states[max(1, h.first)-1], h.set)
		for k := range h.l.keys {
			v, ok := want[k]
			was, there := before[k]
			if h.heard[k] {
				was, there = h.state[k], h.state[k] != 0
			} else if h.first == 0 || h.opts.Overflow != listeners.OverflowBlock {
				continue
			}
			if v != was || ok != there {
				return fmt.Errorf("in the end it knows %s as %d, want %d", k, was, v)
			}
		}
		return nil
	}
	if !maps.Equal(h.state, want) {
		return fmt.Errorf("in the end it has %v at %s, want %v at %d", h.state, h.at, want, last)
	}
	return nil
}

// base reports whether the state was whole from the first batch on.
func (h *hearer) base() bool { return h.opts.Current || !h.opts.From.IsZero() }

func drawn(err *listeners.ListenerError) bool {
	if errors.Is(err, errDrawn) {
		return true
	}
	p, panicked := errors.AsType[*listeners.PanicError](err)
	return panicked && p.Value == any(errDrawn)
}

// Whoever hears everything can rebuild the region as it is at each position,
// whatever others do meanwhile, and after Close nothing is left running.
func TestEverythingAtOnceTellsTheState(t *testing.T) {
	few := 60
	if testing.Short() {
		few = 10
	}
	seedtest.Play(t, few, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { playBustle(t, seed) })
	})
}

func playBustle(t *testing.T, seed uint64) {
	w, err := newBustle(seed)
	if err != nil {
		t.Fatal(err)
	}
	var busy sync.WaitGroup
	for range 3 {
		busy.Go(func() {
			for range 80 {
				w.write(t.Context())
				time.Sleep(time.Duration(w.draw(2)) * time.Millisecond)
			}
		})
	}
	for range 2 {
		busy.Go(func() {
			for range 40 {
				w.useCache(t.Context())
				time.Sleep(time.Duration(w.draw(3)) * time.Millisecond)
			}
		})
	}
	busy.Go(func() {
		for range 25 {
			w.subscribe()
			time.Sleep(time.Duration(w.draw(8)) * time.Millisecond)
		}
	})
	busy.Wait()
	check := func(when string) {
		for i, l := range w.books {
			if err := l.check(); err != nil {
				t.Errorf("%s: region %d: %v", when, i, err)
			}
		}
		for i, h := range w.hearers {
			if err := h.check(); err != nil {
				t.Errorf("%s: hearer %d of set %d, %+v: %v", when, i, h.set, h.opts, err)
			}
		}
		for _, err := range w.faults {
			t.Errorf("%s: %v", when, err)
		}
	}
	if w.draw(2) == 0 { // or else Close comes while they are behind
		time.Sleep(time.Hour)
		synctest.Wait()
		check("after an hour")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := w.grid.Close(ctx); err != nil {
		t.Errorf("Close() = %v", err)
	}
	check("after Close")
	for i, h := range w.hearers {
		if s := h.sub.Load(); s != nil && !isDone(s) {
			t.Errorf("hearer %d runs after Close", i)
		}
	}
}

func isDone(s *listeners.Subscription) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}
