package listeners_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
)

// A step is one thing that happens in a random history.
type step struct {
	// A transaction: the parts, each with the collections of its events.
	parts [][]int
	size  int

	// Or a new subscription.
	subscribe   bool
	collections []int
	current     bool
	odd         bool          // only keys that are
	pause       time.Duration // in each callback

	// Or the end of one.
	end int // 1 + its number

	wait time.Duration // before the step
}

var historySchemas = []*listeners.Schema{seats, trains, prices}

func anyStep() *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		s := step{wait: time.Duration(rapid.IntRange(0, 3).Draw(t, "wait")) * time.Millisecond}
		collection := rapid.IntRange(0, len(historySchemas)-1)
		switch rapid.SampledFrom([]string{"commit", "commit", "commit", "commit", "subscribe", "end"}).Draw(t, "what") {
		case "subscribe":
			s.subscribe = true
			s.collections = rapid.SliceOfNDistinct(collection, 0, 2, rapid.ID[int]).Draw(t, "collections")
			s.current = rapid.Bool().Draw(t, "current")
			s.odd = rapid.Bool().Draw(t, "odd")
			s.pause = time.Duration(rapid.IntRange(0, 4).Draw(t, "pause")) * time.Millisecond
		case "end":
			s.end = 1 + rapid.IntRange(0, 9).Draw(t, "subscription")
		default:
			s.parts = rapid.SliceOfN(rapid.SliceOfN(collection, 1, 3), 1, 4).Draw(t, "parts")
			s.size = rapid.IntRange(0, 12).Draw(t, "size")
		}
		return s
	})
}

// A world is a source with a state, as a region is one: what is committed is
// shown at once and then appended to the feed.
type world struct {
	feed *listeners.Feed

	mu       sync.Mutex
	history  []*listeners.Batch // committed and shown
	appended int                // of them to the feed
	ids      int
}

func (w *world) commit(ctx context.Context, s step, number uint64) error {
	var batches []*listeners.Batch
	w.mu.Lock()
	for i, events := range s.parts {
		b := part(number, uint32(i+1), i == 0, i == len(s.parts)-1)
		b.Size = s.size
		for _, c := range events {
			w.ids++
			e := created(historySchemas[c], w.ids)
			e.Position = b.Position
			b.Events = append(b.Events, e)
		}
		batches = append(batches, b)
	}
	w.history = append(w.history, batches...)
	w.mu.Unlock()
	for _, b := range batches {
		if err := w.feed.Reserve(ctx); err != nil {
			return err
		}
		w.mu.Lock()
		w.feed.Append(b)
		w.appended++
		w.mu.Unlock()
	}
	return nil
}

// A reader is one subscription of a random history.
type reader struct {
	step
	sub   *listeners.Subscription
	from  int // in the history, at Subscribe; perhaps within a transaction
	ended bool

	// Written on the subscription's goroutine.
	view int // what join showed: history[:view]
	got  []*listeners.Batch
}

func (r *reader) OnBatch(_ context.Context, b *listeners.Batch) error {
	time.Sleep(r.pause)
	r.got = append(r.got, b)
	return nil
}

func (w *world) subscribe(s step) (*reader, error) {
	r := &reader{step: s, view: -1}
	opts := &listeners.SubscribeOptions{}
	for _, c := range s.collections {
		opts.Collections = append(opts.Collections, historySchemas[c].Collection())
	}
	if s.odd {
		opts.Filter = odd
	}
	var join listeners.Join
	if s.current {
		join = func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			time.Sleep(2 * r.pause)
			w.mu.Lock()
			history := w.history
			r.view = len(history)
			w.mu.Unlock()
			position := listeners.Position{Epoch: 1}
			var rows []listeners.Event
			for _, b := range history {
				rows = append(rows, b.Events...)
				position = b.Position
			}
			for _, kind := range []listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Live} {
				b := &listeners.Batch{Kind: kind, Position: position, First: true, Last: true}
				if kind == listeners.Snapshot {
					b.Events = rows
				}
				if err := emit(b); err != nil {
					return listeners.Position{}, err
				}
			}
			return position, nil
		}
	}
	var err error
	w.mu.Lock()
	defer w.mu.Unlock()
	r.from = w.appended
	r.sub, err = w.feed.Subscribe("reader", r, opts, join)
	return r, err
}

// wanted returns the keys of the events that the reader asked for.
func (r *reader) wanted(batches []*listeners.Batch) []string {
	var keys []string
	for _, b := range batches {
		for i := range b.Events {
			e := &b.Events[i]
			if r.odd && !odd(e) {
				continue
			}
			if len(r.collections) == 0 || slices.ContainsFunc(r.collections, func(c int) bool { return historySchemas[c] == e.Schema }) {
				keys = append(keys, e.Schema.Collection()+"/"+e.Key().String())
			}
		}
	}
	return keys
}

func odd(e *listeners.Event) bool {
	key := e.Key().String()
	return (key[len(key)-1]-'0')%2 == 1
}

// check compares what the reader got with the history.
func (r *reader) check(history []*listeners.Batch) error {
	got := r.got
	if r.current {
		for _, kind := range []listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Live} {
			if len(got) == 0 {
				if !r.ended {
					return fmt.Errorf("no %s", kind)
				}
				return nil
			}
			if got[0].Kind != kind {
				return fmt.Errorf("%s came instead of %s", got[0].Kind, kind)
			}
			if kind == listeners.Snapshot {
				if have, want := r.wanted(got[:1]), r.wanted(history[:r.view]); !slices.Equal(have, want) {
					return fmt.Errorf("the snapshot has %q, want %q", have, want)
				}
			}
			got = got[1:]
		}
		if r.view < r.from {
			return fmt.Errorf("the snapshot shows %d batches, %d were appended before it", r.view, r.from)
		}
		history = history[r.view:]
	} else {
		history = history[r.from:]
		for len(history) > 0 && !history[0].First {
			history = history[1:]
		}
	}

	have, want := r.wanted(got), r.wanted(history)
	if r.ended && len(have) <= len(want) {
		want = want[:len(have)]
	}
	if !slices.Equal(have, want) {
		return fmt.Errorf("got the events %q, want %q", have, want)
	}
	all := 0
	for _, b := range got {
		all += len(b.Events)
	}
	if all != len(have) {
		return fmt.Errorf("got %d events, asked for %d of them", all, len(have))
	}
	return wholeTransactions(got, r.ended)
}

// wholeTransactions reports batches that are not whole transactions, or parts that do
// not begin and end.
func wholeTransactions(got []*listeners.Batch, cut bool) error {
	open := uint64(0)
	var last listeners.Position
	events := 0
	for _, b := range got {
		if b.Kind != listeners.Changes || b.Position.Compare(last) <= 0 {
			return fmt.Errorf("%s at %s after %s", b.Kind, b.Position, last)
		}
		last = b.Position
		if b.First != (open == 0) || (open != 0 && b.Tx.ID != open) {
			return fmt.Errorf("batch at %s has First %t within transaction %d", b.Position, b.First, open)
		}
		if b.First {
			events = 0
		}
		events += len(b.Events)
		open = b.Tx.ID
		if b.Last {
			open = 0
			if events == 0 {
				return fmt.Errorf("the transaction that ends at %s has no events", b.Position)
			}
		}
	}
	if open != 0 && !cut {
		return fmt.Errorf("transaction %d does not end", open)
	}
	return nil
}

func TestRandomHistoriesAreOrderedCompleteAtomicAndJoined(t *testing.T) {
	seedtest.PlayAnew(t, func(t *testing.T, seed uint64) {
		seedtest.Check(t, seed, func(rt *rapid.T) {
			steps := rapid.SliceOfN(anyStep(), 1, 60).Draw(rt, "steps")
			size := rapid.Int64Range(1, 40).Draw(rt, "feed")
			var failed error // rapid ends a goroutine to fail, which a bubble does not allow
			synctest.Test(t, func(t *testing.T) { failed = play(t, steps, size) })
			if failed != nil {
				rt.Fatal(failed)
			}
		})
	})
}

// play runs a history in a bubble and checks every subscription.
func play(t *testing.T, steps []step, size int64) error {
	w := &world{feed: listeners.NewFeed(&listeners.FeedOptions{MaxBytes: size})}
	var writer sync.WaitGroup
	var written error
	writer.Go(func() {
		for i, s := range steps {
			if len(s.parts) == 0 {
				continue
			}
			time.Sleep(s.wait)
			if err := w.commit(t.Context(), s, uint64(i+1)); err != nil {
				written = err
				return
			}
		}
	})
	var readers []*reader
	defer func() {
		for _, r := range readers {
			r.sub.Close()
		}
		writer.Wait()
	}()
	for _, s := range steps {
		if len(s.parts) > 0 {
			continue
		}
		time.Sleep(3 * s.wait)
		switch {
		case s.subscribe:
			r, err := w.subscribe(s)
			if err != nil {
				return err
			}
			readers = append(readers, r)
		case s.end <= len(readers):
			r := readers[s.end-1]
			r.ended = true
			r.sub.Close()
		}
	}
	writer.Wait()
	if written != nil {
		return written
	}
	time.Sleep(time.Hour) // in which everybody catches up
	for i, r := range readers {
		if !r.ended {
			if lag := r.sub.Lag(); lag.Batches != 0 || lag.Bytes != 0 || lag.Age != 0 {
				return fmt.Errorf("reader %d is behind: %+v", i, lag)
			}
			if n := len(w.history); n > r.from && r.sub.Stored() != w.history[n-1].Position {
				return fmt.Errorf("reader %d has stored %s of %s", i, r.sub.Stored(), w.history[n-1].Position)
			}
		}
		if err := r.sub.CloseWait(t.Context()); err != nil || r.sub.Err() != nil {
			return fmt.Errorf("reader %d: CloseWait %w, Err %w", i, err, r.sub.Err())
		}
		if err := r.check(w.history); err != nil {
			return fmt.Errorf("reader %d of %v: %w", i, r.collections, err)
		}
	}
	return nil
}
