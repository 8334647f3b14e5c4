package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

var shopSchemas = []*listeners.Schema{
	listeners.NewSchema("shop", "public", "stock", []listeners.Column{{Name: "id", Key: true}, {Name: "price"}, {Name: "note"}}),
	listeners.NewSchema("shop", "public", "shelf", []listeners.Column{{Name: "id", Key: true}, {Name: "price"}, {Name: "note"}}),
}

// A shopState is what somebody knows: collection/key -> price and note.
type shopState map[string]string

type shopOp struct {
	What       string
	Collection int
	ID, To     int
	Whole      bool // as with REPLICA IDENTITY FULL
	SameNote   bool // which is not sent
}

type shopStep struct {
	Parts [][]shopOp
	Size  int

	Subscribe bool
	Overflow  listeners.Overflow
	Limit     int64
	Only      int // 1 + collection, 0 for all
	Current   bool
	Pause     time.Duration

	Toggle int // 1 + number of a subscription that is paused or resumed

	Wait time.Duration
}

func anyShopStep() *rapid.Generator[shopStep] {
	op := rapid.Custom(func(t *rapid.T) shopOp {
		return shopOp{
			What:       rapid.SampledFrom([]string{"put", "put", "put", "put", "delete", "delete", "rekey", "truncate", "message"}).Draw(t, "what"),
			Collection: rapid.IntRange(0, 1).Draw(t, "collection"), ID: rapid.IntRange(1, 4).Draw(t, "id"), To: rapid.IntRange(1, 4).Draw(t, "to"),
			Whole: rapid.Bool().Draw(t, "whole"), SameNote: rapid.Bool().Draw(t, "same note"),
		}
	})
	return rapid.Custom(func(t *rapid.T) shopStep {
		s := shopStep{Wait: time.Duration(rapid.IntRange(0, 2).Draw(t, "wait")) * time.Millisecond}
		if rapid.IntRange(0, 4).Draw(t, "what") > 0 {
			s.Parts = rapid.SliceOfN(rapid.SliceOfN(op, 1, 4), 1, 3).Draw(t, "parts")
			s.Size = rapid.IntRange(1, 12).Draw(t, "size")
			return s
		}
		if rapid.IntRange(0, 2).Draw(t, "hold") == 0 {
			s.Toggle = 1 + rapid.IntRange(0, 4).Draw(t, "whom")
			return s
		}
		s.Subscribe = true
		s.Current = rapid.Bool().Draw(t, "current")
		s.Overflow = rapid.SampledFrom([]listeners.Overflow{
			listeners.OverflowBlock, listeners.OverflowConflate, listeners.OverflowConflate, listeners.OverflowReset, listeners.OverflowDisconnect,
		}).Draw(t, "overflow")
		if s.Overflow == listeners.OverflowReset {
			s.Current = true
		}
		s.Limit = rapid.Int64Range(1, 60).Draw(t, "limit")
		s.Only = rapid.IntRange(0, 2).Draw(t, "only")
		s.Pause = time.Duration(rapid.IntRange(0, 9).Draw(t, "pause")) * time.Millisecond
		return s
	})
}

// A shop is a source with a state. A transaction is shown whole, and then
// appended in parts.
type shop struct {
	feed *listeners.Feed

	mu     sync.Mutex
	state  shopState
	shown  listeners.Position
	states map[uint64]shopState // after each commit
	last   uint64               // of which something is appended
	next   int                  // price
}

func shopKey(c, id int) string { return shopSchemas[c].Collection() + "/" + strconv.Itoa(id) }

func (w *shop) event(o shopOp) (e listeners.Event, ok bool) {
	schema := shopSchemas[o.Collection]
	whole := func(id int, value string) listeners.Record {
		var price int
		var note string
		if _, err := fmt.Sscan(value, &price, &note); err != nil {
			panic(err)
		}
		return record(schema, id, price, note)
	}
	key := func(id int) listeners.Record { return record(schema, id, unsent, unsent) }
	w.next++
	e.Schema = schema
	k := shopKey(o.Collection, o.ID)
	was, exists := w.state[k]
	var oldNote string
	if exists {
		var price int
		if _, err := fmt.Sscan(was, &price, &oldNote); err != nil {
			panic(err)
		}
	}
	switch o.What {
	case "put", "rekey":
		to, note := o.ID, any("note"+strconv.Itoa(w.next))
		if o.What == "rekey" {
			to = o.To
			if _, taken := w.state[shopKey(o.Collection, to)]; taken || !exists {
				return e, false
			}
		}
		e.Op = listeners.Create
		stored := note
		if exists {
			e.Op = listeners.Update
			if o.SameNote {
				note, stored = unsent, oldNote
			}
			if o.Whole {
				e.Before = whole(o.ID, was)
			} else if to != o.ID {
				e.OldKey = key(o.ID)
			}
		}
		e.After = record(schema, to, w.next, note)
		delete(w.state, k)
		w.state[shopKey(o.Collection, to)] = fmt.Sprint(w.next, " ", stored)
	case "delete":
		if !exists {
			return e, false
		}
		e.Op = listeners.Delete
		if o.Whole {
			e.Before = whole(o.ID, was)
		} else {
			e.OldKey = key(o.ID)
		}
		delete(w.state, k)
	case "truncate":
		e.Op = listeners.Truncate
		for k := range w.state {
			if k[:len(schema.Collection())] == schema.Collection() {
				delete(w.state, k)
			}
		}
	case "message":
		e.Op = listeners.Message
		e.After = record(schema, o.ID, 0, "said")
	}
	return e, true
}

func (w *shop) commit(ctx context.Context, s shopStep, number uint64) error {
	var batches []*listeners.Batch
	w.mu.Lock()
	for i, ops := range s.Parts {
		var events []listeners.Event
		for _, o := range ops {
			if e, ok := w.event(o); ok {
				events = append(events, e)
			}
		}
		b := part(number, uint32(i+1), i == 0, i == len(s.Parts)-1, events...)
		b.Size = s.Size
		batches = append(batches, b)
	}
	w.states[number] = maps.Clone(w.state)
	w.shown = batches[len(batches)-1].Position
	w.mu.Unlock()
	for _, b := range batches {
		if err := w.feed.Reserve(ctx); err != nil {
			return err
		}
		w.mu.Lock()
		w.feed.Append(b)
		w.last = number
		w.mu.Unlock()
	}
	return nil
}

func (w *shop) join(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
	w.mu.Lock()
	state, p := maps.Clone(w.state), w.shown
	w.mu.Unlock()
	b := &listeners.Batch{Kind: listeners.Snapshot, Position: p, First: true, Last: true, Size: 1}
	for c, schema := range shopSchemas {
		for id := range 10 {
			if v, ok := state[shopKey(c, id)]; ok {
				var price int
				var note string
				if _, err := fmt.Sscan(v, &price, &note); err != nil {
					return p, err
				}
				b.Events = append(b.Events, listeners.Event{Op: listeners.Read, Schema: schema, Position: p, After: record(schema, id, price, note)})
			}
		}
	}
	for _, b := range []*listeners.Batch{{Kind: listeners.Reset, Position: p, First: true, Last: true}, b, {Kind: listeners.Live, Position: p, First: true, Last: true}} {
		if err := emit(b); err != nil {
			return p, err
		}
	}
	return p, nil
}

// A customer rebuilds the state from what it hears.
type customer struct {
	shopStep
	shop  *shop
	sub   *listeners.Subscription
	state shopState // nil while a snapshot is to come
	open  bool
	at    listeners.Position
	heard []string
	wrong error
}

func (w *shop) subscribe(s shopStep) (*customer, error) {
	c := &customer{shopStep: s, shop: w}
	opts := &listeners.SubscribeOptions{Overflow: s.Overflow, BacklogBytes: s.Limit}
	if s.Only > 0 {
		opts.Collections = []string{shopSchemas[s.Only-1].Collection()}
	}
	var join listeners.Join
	if s.Current {
		join = w.join
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !s.Current {
		// What is left of a transaction is left out.
		c.state = maps.Clone(c.seen(w.states[w.last]))
	}
	var err error
	c.sub, err = w.feed.Subscribe("customer", c, opts, join)
	return c, err
}

// seen returns the part of a state that the customer asked for.
func (c *customer) seen(s shopState) shopState {
	seen := shopState{}
	for k, v := range s {
		if name := shopSchemas[max(0, c.Only-1)].Collection(); c.Only == 0 || k[:len(name)] == name {
			seen[k] = v
		}
	}
	return seen
}

func (c *customer) OnBatch(_ context.Context, b *listeners.Batch) error {
	time.Sleep(c.Pause)
	if c.wrong == nil {
		c.wrong = c.hear(b)
	}
	return nil
}

func (c *customer) hear(b *listeners.Batch) error {
	c.heard = append(c.heard, fmt.Sprintf("%s %d.%d %t-%t", b.Kind, b.Position.Commit, b.Position.Index, b.First, b.Last))
	switch b.Kind {
	case listeners.Reset:
		c.state, c.open = shopState{}, false
		return nil
	case listeners.Snapshot, listeners.Live:
	case listeners.Changes:
		if b.First == c.open {
			return fmt.Errorf("First is %t while a transaction is open: %t", b.First, c.open)
		}
		c.open = !b.Last
		if b.Position.Compare(c.at) <= 0 {
			return fmt.Errorf("%s after %s", b.Position, c.at)
		}
	}
	c.at = b.Position
	last := listeners.Position{}
	for i := range b.Events {
		e := &b.Events[i]
		c.heard = append(c.heard, fmt.Sprintf("%s %s %s -> %s", e.Op, e.Key(), e.Before.AppendJSON(nil), e.After.AppendJSON(nil)))
		if e.Position.Compare(last) < 0 {
			return fmt.Errorf("event %d at %s after %s", i, e.Position, last)
		}
		last = e.Position
		if err := c.apply(e); err != nil {
			return fmt.Errorf("event %d of %s: %w", i, b.Position, err)
		}
	}
	if !b.Last || b.Kind == listeners.Snapshot {
		return nil
	}
	c.shop.mu.Lock()
	want := c.seen(c.shop.states[b.Position.Commit])
	c.shop.mu.Unlock()
	if diff := cmp.Diff(want, c.state); diff != "" {
		return fmt.Errorf("the state at %s: %s", b.Position, diff)
	}
	return nil
}

func (c *customer) apply(e *listeners.Event) error {
	k := e.Schema.Collection() + "/" + e.Key().String()
	was := k
	if old, changed := e.ChangedKey(); changed {
		was = e.Schema.Collection() + "/" + old.String()
	}
	before, existed := c.state[was]
	if e.Before.Exists() {
		if text := fmt.Sprint(e.Before.At(1), " ", e.Before.At(2)); text != before {
			return fmt.Errorf("%s %s with the old row %q, which was %q", e.Op, k, text, before)
		}
	}
	switch e.Op {
	case listeners.Read, listeners.Create:
		if existed || len(e.After.Unchanged()) > 0 {
			return fmt.Errorf("%s %s: existed %t, unchanged %q", e.Op, k, existed, e.After.Unchanged())
		}
		c.state[k] = fmt.Sprint(e.After.At(1), " ", e.After.At(2))
	case listeners.Update:
		if _, taken := c.state[k]; !existed || (k != was && taken) {
			return fmt.Errorf("update %s to %s: existed %t, taken %t", was, k, existed, taken)
		}
		note := e.After.At(2).String()
		if e.After.At(2).State() == listeners.Unchanged {
			_, _ = fmt.Sscan(before, new(int), &note)
		}
		delete(c.state, was)
		c.state[k] = fmt.Sprint(e.After.At(1), " ", note)
	case listeners.Delete:
		if !existed {
			return fmt.Errorf("delete %s, which is not there", k)
		}
		delete(c.state, k)
	case listeners.Truncate:
		name := e.Schema.Collection()
		maps.DeleteFunc(c.state, func(k, _ string) bool { return k[:len(name)] == name })
	case listeners.Message:
	}
	return nil
}

func (c *customer) check(final uint64) error {
	if c.wrong != nil {
		return fmt.Errorf("%w\nheard %q", c.wrong, c.heard)
	}
	err := c.sub.Err()
	if err != nil {
		lagged, ok := errors.AsType[*listeners.LaggedError](err)
		if !ok || c.Overflow == listeners.OverflowBlock || c.Overflow == listeners.OverflowReset || (c.Overflow == listeners.OverflowConflate && c.Current) {
			return fmt.Errorf("it ended: %w", err)
		}
		if lagged.Lag.Bytes < c.Limit || lagged.Limit != c.Limit || lagged.Subscription != "customer" {
			return fmt.Errorf("a limit of %d gave %w", c.Limit, lagged)
		}
		return nil
	}
	if lag := c.sub.Lag(); lag.Batches != 0 || lag.Bytes != 0 {
		return fmt.Errorf("it is behind: %+v", lag)
	}
	c.shop.mu.Lock()
	defer c.shop.mu.Unlock()
	if diff := cmp.Diff(c.seen(c.shop.states[final]), c.state); diff != "" {
		return fmt.Errorf("at the end: %s\nheard %q", diff, c.heard)
	}
	return nil
}

// Whatever the policy, the state rebuilt from the events is that of the source
// at each position.
func TestEveryPolicyTellsTheState(t *testing.T) {
	seedtest.PlayAnew(t, func(t *testing.T, seed uint64) {
		seedtest.Check(t, seed, func(rt *rapid.T) {
			steps := rapid.SliceOfN(anyShopStep(), 1, 80).Draw(rt, "steps")
			size := rapid.Int64Range(1, 60).Draw(rt, "feed")
			var failed error // rapid ends a goroutine to fail, which a bubble does not allow
			synctest.Test(t, func(t *testing.T) { failed = playShop(t, steps, size) })
			if failed != nil {
				rt.Fatal(failed)
			}
		})
	})
}

func playShop(t *testing.T, steps []shopStep, size int64) error {
	w := &shop{
		feed: listeners.NewFeed(&listeners.FeedOptions{MaxBytes: size}), state: shopState{}, states: map[uint64]shopState{0: {}},
	}
	var final uint64
	var writer sync.WaitGroup
	var written error
	writer.Go(func() {
		for i, s := range steps {
			time.Sleep(s.Wait)
			if len(s.Parts) == 0 {
				continue
			}
			if written = w.commit(t.Context(), s, uint64(i+1)); written != nil {
				return
			}
			final = uint64(i + 1)
		}
	})
	var customers []*customer
	defer func() {
		for _, c := range customers {
			c.sub.Close()
		}
		writer.Wait()
	}()
	for _, s := range steps {
		time.Sleep(s.Wait)
		if s.Subscribe {
			c, err := w.subscribe(s)
			if err != nil {
				return err
			}
			customers = append(customers, c)
		}
		if s.Toggle == 0 || s.Toggle > len(customers) {
			continue
		}
		if sub := customers[s.Toggle-1].sub; sub.Paused() {
			sub.Resume()
		} else {
			sub.Pause()
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, c := range customers {
		c.sub.Resume()
	}
	writer.Wait()
	if written != nil {
		return written
	}
	time.Sleep(time.Hour) // in which everybody catches up
	synctest.Wait()
	for i, c := range customers {
		if err := c.check(final); err != nil {
			return fmt.Errorf("customer %d, %s, limit %d, current %t, only %d: %w", i, c.Overflow, c.Limit, c.Current, c.Only, err)
		}
	}
	if n := len(slices.DeleteFunc(w.feed.Subscriptions(), func(s *listeners.Subscription) bool { return s.Err() == nil })); n != 0 {
		return fmt.Errorf("%d subscriptions that failed are listed", n)
	}
	return nil
}
