package grid

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// snapshotRows is how many rows a snapshot batch holds at most.
const snapshotRows = 1000

// Subscribe implements [listeners.Source]. With opts.Current the listener first
// hears the state at one point in time, in key order: Reset, batches of at most
// 1000 Read events (at least one batch, even if it is empty), Live; then every
// later change once. The markers have the position of the state, each row that
// of its own last change. At a mirror that is not ready yet, this begins when
// it is.
//
// With opts.From, or a position of opts.Positions, the listener hears what came
// behind that, once, if the region still has it: if nothing has, or if no more
// than HistoryBytes have. The positions of an open region are good as long as
// that is open; one made anew, as by a process that starts again, has another
// epoch, and what it is asked for is gone. Those of a mirror are its source's,
// so they tell more: but a mirror made anew begins with its source's state, and has
// no history behind that. What is gone ends the subscription with a
// [listeners.HistoryError], unless it asks for the present state with
// opts.Current, or hears it anyway because a mirror is not ready yet.
//
// The errors are [ErrClosed], and misuse: no listener, or Collections without
// this region's.
func (r *Region[K, V]) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	var join listeners.Join
	if opts != nil && opts.Current {
		join = r.join
	}
	sub, err := r.subscribe(name, l, opts, join)
	if err != nil {
		return nil, fmt.Errorf("grid: subscribe %q to region %q: %w", name, r.name, err)
	}
	return sub, nil
}

func (r *Region[K, V]) subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions, join listeners.Join) (*listeners.Subscription, error) {
	if l == nil {
		return nil, errors.New("the listener is nil")
	}
	if opts != nil && len(opts.Collections) > 0 && !slices.Contains(opts.Collections, r.name) {
		return nil, fmt.Errorf("it has the one collection %q, not %q", r.name, opts.Collections)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	return r.feed.Subscribe(name, l, opts, join)
}

// join implements [listeners.Join].
//
// No change is lost or told twice, whatever is committed meanwhile. A commit is
// shown before it is appended to the feed. So a batch that the feed took before
// the subscription was added is in the view, which is loaded later; and of the
// batches that the subscription finds in the feed, those up to the view's
// position are in the view, and are left out. Positions grow strictly: by
// counting, or in a mirror because the follower checks them.
func (r *Region[K, V]) join(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
	if err := r.WaitReady(ctx); err != nil {
		if isClosed(r.done) {
			err = listeners.ErrClosed
		}
		return listeners.Position{}, err
	}
	r.expireDue()
	v := r.view.Load()
	return v.position, r.tell(v, emit)
}

// resume answers for [listeners.FeedOptions].
func (r *Region[K, V]) resume(_ context.Context, from listeners.Position) (listeners.Position, error) {
	switch {
	case r.begin.IsZero():
		return listeners.Position{}, nil // a mirror's feed begins with its state
	case from == r.begin:
		return from, nil
	}
	return listeners.Position{}, &listeners.HistoryError{Asked: from, Oldest: r.begin}
}

// beginning answers for [listeners.FeedOptions]. A mirror's feed begins with its
// state.
func (r *Region[K, V]) beginning(context.Context) (listeners.Position, error) { return r.begin, nil }

// tell emits a view as Reset, Snapshot and Live batches.
func (r *Region[K, V]) tell(v *view[K, V], emit func(*listeners.Batch) error) error {
	step := func(kind listeners.Kind, events []listeners.Event, size int) *listeners.Batch {
		return &listeners.Batch{
			Kind: kind, Source: r.grid.name, Tx: listeners.Tx{Time: time.Now()}, Events: events,
			Position: v.position, First: true, Last: true, Size: batchBytes + size,
		}
	}
	if err := emit(step(listeners.Reset, nil, 0)); err != nil {
		return err
	}
	var events []listeners.Event
	var err error
	size, left, first := 0, v.length, true
	flush := func() bool {
		left -= len(events)
		b := step(listeners.Snapshot, events, size)
		b.First, b.Last = first, left == 0
		events, size, first = nil, 0, false
		err = emit(b)
		return err == nil
	}
	v.all(func(e *entry[K, V]) bool {
		if events == nil {
			events = make([]listeners.Event, 0, min(left, snapshotRows))
		}
		events = append(events, listeners.Event{
			Op: listeners.Read, Cause: listeners.CauseSnapshot, Position: e.pos,
			Schema: e.shape.schema, After: listeners.NewRecord(e),
		})
		size += eventBytes + e.size
		return len(events) < snapshotRows || flush()
	})
	if err == nil && (events != nil || first) {
		flush()
	}
	if err != nil {
		return err
	}
	return emit(step(listeners.Live, nil, 0))
}
