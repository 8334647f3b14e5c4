package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
)

// memoryPositions is a store that fails while it is broken.
type memoryPositions struct {
	mu     sync.Mutex
	stored listeners.Position
	broken bool
}

func (m *memoryPositions) Open(context.Context, string) (listeners.PositionKeeper, listeners.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m, m.stored, nil
}

func (m *memoryPositions) Save(_ context.Context, p listeners.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return errStoreBroken
	}
	m.stored = p
	return nil
}

func (m *memoryPositions) Close() error { return nil }

func (m *memoryPositions) breaks(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

var (
	errStoreBroken = errors.New("the store is broken")
	errKeeper      = errors.New("the keeper has dropped it")
)

// A keeper rebuilds the state from what it is successfully handed, by any of
// its subscriptions.
type keeper struct {
	keeperWish
	shop   *shop
	name   string
	store  listeners.PositionStore // nil unless it has a durable name
	memory *memoryPositions        // nil unless that is its store
	sub    *listeners.Subscription
	over   bool // it ended, and cannot go on

	mu    sync.Mutex
	rnd   *rand.Rand
	calm  bool // it does not fail any more
	state shopState
	last  map[string]listeners.Position // by key, of what it was handed since the last restart or Reset
	swept map[string]listeners.Position // by collection, of the last truncate since then
	live  bool                          // no snapshot is to come to its end
	heard []string
	wrong error
}

func (c *keeper) begin(from listeners.Position) error {
	opts := &listeners.SubscribeOptions{
		Overflow: c.Overflow, BacklogBytes: c.Limit, Workers: c.Workers, InFlightBytes: c.InFlight, Group: c.Group, Retry: c.Retry,
		From: from, Positions: c.store, SaveInterval: 3 * time.Millisecond,
	}
	if c.Only > 0 {
		opts.Collections = []string{shopSchemas[c.Only-1].Collection()}
	}
	if c.Parity > 0 {
		opts.Filter = func(e *listeners.Event) bool {
			old, _ := e.ChangedKey()
			return e.Op == listeners.Truncate || e.Op == listeners.Message || c.wants(e.Key().String()) || c.wants(old.String())
		}
	}
	var join listeners.Join
	if c.Current {
		join = c.shop.join
		if from.IsZero() && c.store == nil {
			c.live = false // until then there is no position to go on from
		}
	}
	c.shop.mu.Lock()
	if c.state == nil {
		c.state = shopState{}
		if !c.Current {
			c.state = maps.Clone(c.shop.states[c.shop.last])
			c.live = true
		}
	}
	var err error
	c.sub, err = c.shop.feed.Subscribe(c.name, c, opts, join)
	c.shop.mu.Unlock()
	if err == nil {
		synctest.Wait() // so that a name without a position has one
	}
	return err
}

// wants reports whether a key is of its parity.
func (c *keeper) wants(key string) bool {
	id, err := strconv.Atoi(key)
	return c.Parity == 0 || (err == nil && id%2 == c.Parity-1)
}

// seen returns the part of a state that it asked for.
func (c *keeper) seen(s shopState) shopState {
	seen := shopState{}
	for k, v := range s {
		for i, schema := range shopSchemas {
			if n := len(schema.Collection()); k[:n] == schema.Collection() && (c.Only == 0 || c.Only == i+1) && c.wants(k[n+1:]) {
				seen[k] = v
			}
		}
	}
	return seen
}

func (c *keeper) OnBatch(ctx context.Context, b *listeners.Batch) error {
	return c.OnBatches(ctx, []*listeners.Batch{b})
}

func (c *keeper) OnBatches(_ context.Context, batches []*listeners.Batch) error {
	time.Sleep(c.Pause)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.calm && c.rnd.IntN(100) < c.FailPercent {
		if c.rnd.IntN(3) == 0 {
			panic("the keeper has slipped")
		}
		return errKeeper
	}
	for _, b := range batches {
		if err := c.hear(b); err != nil && c.wrong == nil {
			c.wrong = fmt.Errorf("%s %s: %w", b.Kind, b.Position, err)
		}
	}
	return nil
}

func (c *keeper) hear(b *listeners.Batch) error {
	c.heard = append(c.heard, fmt.Sprintf("%s %d.%d", b.Kind, b.Position.Commit, b.Position.Index))
	switch b.Kind {
	case listeners.Reset:
		c.state, c.live = shopState{}, false
		c.last, c.swept = map[string]listeners.Position{}, map[string]listeners.Position{}
	case listeners.Live:
		c.live = true
	case listeners.Snapshot, listeners.Changes:
	}
	touched, sweeps := map[string]bool{}, map[string]bool{}
	for i := range b.Events {
		e := &b.Events[i]
		c.heard = append(c.heard, fmt.Sprintf("%s %s %s", e.Op, e.Schema.Collection(), e.Key()))
		for _, k := range c.apply(e) {
			touched[k] = true
		}
		if e.Op == listeners.Truncate {
			name := e.Schema.Collection()
			for k, p := range c.last {
				if k[:len(name)] == name && p.Compare(b.Position) > 0 {
					return fmt.Errorf("a truncate after %s at %s", k, p)
				}
			}
			if p, ok := c.swept[name]; ok && p.Compare(b.Position) >= 0 && !sweeps[name] {
				return fmt.Errorf("a truncate of %s after one at %s", name, p)
			}
			c.swept[name], sweeps[name] = b.Position, true
		}
	}
	for k := range touched {
		if p, ok := c.last[k]; ok && p.Compare(b.Position) >= 0 {
			return fmt.Errorf("%s after or again at %s", k, p)
		}
		for name, p := range c.swept {
			if k[:len(name)] == name && p.Compare(b.Position) > 0 {
				return fmt.Errorf("%s after a truncate at %s", k, p)
			}
		}
		c.last[k] = b.Position
	}
	return nil
}

// apply returns the keys that an event concerns. It takes an event that it has
// heard before.
func (c *keeper) apply(e *listeners.Event) []string {
	name := e.Schema.Collection()
	k := name + "/" + e.Key().String()
	keys := []string{k}
	switch e.Op {
	case listeners.Read, listeners.Create, listeners.Update:
		note := e.After.At(2).String()
		if e.After.At(2).State() == listeners.Unchanged {
			_, _ = fmt.Sscan(c.state[k], new(int), &note)
		}
		if old, changed := e.ChangedKey(); changed {
			was := name + "/" + old.String()
			keys = append(keys, was)
			delete(c.state, was)
		}
		c.state[k] = fmt.Sprint(e.After.At(1), " ", note)
	case listeners.Delete:
		delete(c.state, k)
	case listeners.Truncate:
		maps.DeleteFunc(c.state, func(k, _ string) bool { return k[:len(name)] == name })
		return nil
	case listeners.Message:
		return nil
	}
	return keys
}

// act does one thing to it; what may block goes to the group.
func (c *keeper) act(ctx context.Context, what string, others *sync.WaitGroup) error {
	switch what {
	case "pause":
		c.sub.Pause()
	case "resume":
		c.sub.Resume()
	case "restart":
		return c.restart(ctx, false)
	case "crash":
		return c.restart(ctx, c.memory != nil)
	case "retry":
		sub := c.sub
		for _, p := range sub.Parked() {
			others.Go(func() {
				brief, cancel := context.WithTimeout(ctx, 7*time.Millisecond)
				defer cancel()
				_ = sub.RetryParked(brief, p.ID) // what comes of it is checked at the end
			})
		}
	case "discard":
		c.discard()
	}
	return nil
}

// discard gives up the first parked batch and does its work by hand.
func (c *keeper) discard() {
	c.mu.Lock() // so that nothing else is handed over meanwhile
	defer c.mu.Unlock()
	for _, p := range c.sub.Parked() {
		if p.Behind != 0 || c.sub.DiscardParked(p.ID) != nil {
			continue
		}
		if p.Stale {
			return // what it was told since contains it
		}
		if err := c.hear(p.Batch); err != nil && c.wrong == nil {
			c.wrong = fmt.Errorf("discarded %s: %w", p.Batch.Position, err)
		}
		return
	}
}

// restart ends its subscription, or finds it ended, and goes on with another
// one. In a crash the last position is not stored.
func (c *keeper) restart(ctx context.Context, crash bool) error {
	if c.Resume == "" || c.over {
		return nil
	}
	if crash {
		c.memory.breaks(true)
	}
	if err := c.sub.CloseWait(ctx); err != nil {
		return err
	}
	if crash {
		c.memory.breaks(false)
	}
	if err := c.excuse(crash); err != nil || c.over {
		return err
	}
	c.mu.Lock()
	c.heard = append(c.heard, "restart")
	c.last, c.swept = map[string]listeners.Position{}, map[string]listeners.Position{}
	from := listeners.Position{}
	if c.Resume == "from" && c.live {
		from = c.sub.Stored()
	}
	c.mu.Unlock()
	return c.begin(from)
}

// excuse returns an error if its subscription ended for a reason that it has
// not asked for.
func (c *keeper) excuse(crash bool) error {
	err := c.sub.Err()
	if err == nil || (crash && errors.Is(err, errStoreBroken)) {
		return nil
	}
	if gone, ok := errors.AsType[*listeners.HistoryError](err); ok && !c.Current && gone.Asked.Compare(gone.Oldest) < 0 {
		c.over = true // its history was not kept
		return nil
	}
	if _, ok := errors.AsType[*listeners.LaggedError](err); ok && (c.Overflow == listeners.OverflowDisconnect || c.Overflow == listeners.OverflowConflate && !c.Current) {
		return nil
	}
	var full *listeners.ParkFullError
	var panicked *listeners.PanicError
	_, its := errors.AsType[*listeners.ListenerError](err)
	if its && (errors.Is(err, errKeeper) || errors.As(err, &panicked) || errors.As(err, &full)) {
		return nil
	}
	return fmt.Errorf("it ended: %w", err)
}

// held returns an error if what is parked and must be is said to be stored.
func (c *keeper) held() error {
	if c.Retry == nil || c.Retry.ParkReleases {
		return nil
	}
	stored := c.sub.Stored() // first, since what is parked later comes after it
	for _, p := range c.sub.Parked() {
		if !p.Stale && stored.Compare(p.Batch.Position) >= 0 {
			return fmt.Errorf("Stored() = %s, and parked is %d at %s", stored, p.ID, p.Batch.Position)
		}
	}
	return nil
}

// settle has it catch up, and compares the states.
func (c *keeper) settle(ctx context.Context, final uint64) error {
	c.mu.Lock()
	c.calm = true
	c.mu.Unlock()
	for !c.over {
		c.sub.Resume()
		time.Sleep(time.Hour)
		synctest.Wait()
		if !ended(c.sub) {
			break
		}
		if err := c.excuse(false); err != nil {
			return err
		}
		if c.Resume == "" {
			c.over = true
		}
		if err := c.restart(ctx, false); err != nil {
			return err
		}
	}
	if c.over {
		return c.blunder()
	}
	if err := c.empty(ctx); err != nil {
		return err
	}
	brief, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	if err := c.sub.Wait(brief, at(final)); err != nil {
		return err
	}
	if lag := c.sub.Lag(); lag != (listeners.Lag{}) {
		return fmt.Errorf("it is behind: %+v", lag)
	}
	if err := c.blunder(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shop.mu.Lock()
	defer c.shop.mu.Unlock()
	if diff := cmp.Diff(c.seen(c.shop.states[final]), c.seen(c.state)); diff != "" {
		return fmt.Errorf("at the end: %s\nheard %q", diff, c.heard)
	}
	return nil
}

// empty retries what is parked.
func (c *keeper) empty(ctx context.Context) error {
	for {
		parked := c.sub.Parked()
		if len(parked) == 0 {
			return nil
		}
		p := parked[0]
		err := c.sub.RetryParked(ctx, p.ID)
		if p.Stale {
			if !errors.Is(err, listeners.ErrStale) {
				return fmt.Errorf("RetryParked(%d) of a stale one = %w, want ErrStale", p.ID, err)
			}
			err = c.sub.DiscardParked(p.ID)
		}
		if err != nil && !errors.Is(err, listeners.ErrNotParked) { // it followed another by itself
			return err
		}
	}
}

func (c *keeper) blunder() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong != nil {
		return fmt.Errorf("%w\nheard %q", c.wrong, c.heard)
	}
	return nil
}

// Whatever a subscription asks for, and whatever its listener does, the state
// rebuilt from what was handled is that of the source, a key's events never
// swap, and nothing is handled twice but after a restart.
func TestEverythingTogetherTellsTheState(t *testing.T) {
	dir := t.TempDir()
	run := 0
	seedtest.PlayAnew(t, func(t *testing.T, seed uint64) {
		seedtest.Check(t, seed, func(rt *rapid.T) {
			h := anyStoreHistory().Draw(rt, "history")
			run++
			var failed error // rapid ends a goroutine to fail, which a bubble does not allow
			synctest.Test(t, func(t *testing.T) { failed = playStore(t, h, fmt.Sprintf("%s/%d", dir, run)) })
			if failed != nil {
				rt.Fatal(failed)
			}
		})
	})
}

func playStore(t *testing.T, h storeHistory, dir string) (err error) {
	w := &shop{
		feed:  listeners.NewFeed(&listeners.FeedOptions{MaxBytes: h.Feed, HistoryBytes: h.History}),
		state: shopState{}, states: map[uint64]shopState{0: {}},
	}
	// The zero Position stands for none.
	if err := w.commit(t.Context(), shopStep{Parts: [][]shopOp{{{What: "put", ID: 1}}}, Size: 1}, 1); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	var writer, others sync.WaitGroup
	var keepers []*keeper
	defer func() {
		cancel()
		for _, c := range keepers {
			if c.sub != nil {
				c.sub.Close()
			}
		}
		writer.Wait()
		others.Wait()
	}()
	for i, wish := range h.Wishes {
		c := &keeper{
			keeperWish: wish, shop: w, name: fmt.Sprint("keeper ", i), rnd: rand.New(rand.NewPCG(wish.Seed, 1)),
			last: map[string]listeners.Position{}, swept: map[string]listeners.Position{},
		}
		switch wish.Resume {
		case "memory":
			c.memory = &memoryPositions{}
			c.store = c.memory
		case "file":
			c.store = listeners.NewFilePositions(dir)
		}
		if err := c.begin(listeners.Position{}); err != nil {
			return err
		}
		keepers = append(keepers, c)
		defer func() {
			if err != nil {
				err = fmt.Errorf("%w\n%+v retry %+v group %+v", err, c.keeperWish, c.Retry, c.Group)
			}
		}()
	}
	final := uint64(len(h.Steps) + 1)
	var written error
	writer.Go(func() {
		for i, s := range h.Steps {
			time.Sleep(s.Wait)
			if written = w.commit(ctx, s, uint64(i+2)); written != nil {
				return
			}
		}
	})
	for _, a := range h.Acts {
		time.Sleep(a.Wait)
		c := keepers[a.Whom%len(keepers)]
		if err := c.act(ctx, a.What, &others); err != nil {
			return fmt.Errorf("%s, %s: %w", c.name, a.What, err)
		}
		for _, c := range keepers {
			if err := c.held(); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	for _, c := range keepers {
		c.sub.Resume()
	}
	writer.Wait()
	if written != nil {
		return written
	}
	for _, c := range keepers {
		if err := c.settle(ctx, final); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}
