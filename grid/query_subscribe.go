package grid

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// Subscribe implements [listeners.Source]. With opts.Current the listener first
// hears the set at one point in time, as [Region.Subscribe] tells a region, then
// every later change of it once. Positions are the region's; the subscription's
// Wait takes those that writes of the region return, also where they do not
// concern the query.
//
// The errors are [ErrClosed], that the query has failed, and misuse as of
// [Region.Subscribe].
func (q *Query[K, V]) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	sub, err := q.subscribe(name, l, opts)
	if err != nil {
		return nil, fmt.Errorf("grid: subscribe %q to query %q of region %q: %w", name, q.name, q.r.name, err)
	}
	return sub, nil
}

func (q *Query[K, V]) subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	if l == nil {
		return nil, errors.New("the listener is nil")
	}
	if opts != nil && len(opts.Collections) > 0 && !slices.Contains(opts.Collections, q.r.name) {
		return nil, fmt.Errorf("it has the one collection %q, not %q", q.r.name, opts.Collections)
	}
	var join listeners.Join
	if opts != nil && opts.Current {
		join = q.join
	}
	qs := &q.r.queries
	qs.mu.Lock()
	defer qs.mu.Unlock()
	switch {
	case isClosed(q.r.done):
		return nil, ErrClosed
	case q.failure != nil:
		return nil, q.failure
	case q.feed == nil:
		if err := qs.addLocked(q); err != nil {
			return nil, err
		}
	}
	sub, err := q.feed.Subscribe(name, l, opts, join)
	if err != nil {
		q.idleLocked()
		return nil, err
	}
	return sub, nil
}

// join implements [listeners.Join].
//
// As with a region's own, no change is lost or told twice: the query is heard
// for already, so each batch comes into its feed, or was shown before, and is
// in the view that is loaded now.
func (q *Query[K, V]) join(ctx context.Context, emit func(*listeners.Batch) error) (at listeners.Position, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = q.panicked(&listeners.PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	if err := q.r.WaitReady(ctx); err != nil {
		if isClosed(q.r.done) {
			err = listeners.ErrClosed
		}
		return listeners.Position{}, err
	}
	q.r.expireDue()
	v := q.r.view.Load()
	return v.position, q.tell(v, emit)
}

func (q *Query[K, V]) panicked(p *listeners.PanicError) error {
	return fmt.Errorf("the function of query %q of region %q: %w", q.name, q.r.name, p)
}

// tell emits the set within a view as Reset, Snapshot and Live batches.
func (q *Query[K, V]) tell(v *view[K, V], emit func(*listeners.Batch) error) error {
	t := telling{source: q.r.grid.name, at: v.position, tx: listeners.Tx{Time: time.Now()}, emit: emit}
	if err := t.begin(); err != nil {
		return err
	}
	for e := range q.entries(v) {
		if err := t.row(listeners.Event{
			Op: listeners.Read, Cause: listeners.CauseSnapshot, Position: e.pos,
			Schema: e.shape.schema, After: listeners.NewRecord(e),
		}, eventBytes+e.size); err != nil {
			return err
		}
	}
	return t.end()
}

// A telling emits the state of a set whose size it does not know before the
// end.
type telling struct {
	source string
	at     listeners.Position
	tx     listeners.Tx
	emit   func(*listeners.Batch) error

	rows  []listeners.Event
	size  int
	later bool // a Snapshot batch was emitted
}

func (t *telling) begin() error { return t.emit(t.batch(listeners.Reset)) }

// row adds a row, and first emits those before it if they make a batch.
func (t *telling) row(e listeners.Event, size int) error {
	if len(t.rows) == snapshotRows {
		if err := t.flush(false); err != nil {
			return err
		}
	}
	t.rows = append(t.rows, e)
	t.size += size
	return nil
}

func (t *telling) end() error {
	if err := t.flush(true); err != nil {
		return err
	}
	return t.emit(t.batch(listeners.Live))
}

func (t *telling) flush(last bool) error {
	b := t.batch(listeners.Snapshot)
	b.Events, b.First, b.Last = t.rows, !t.later, last
	b.Size += t.size
	t.rows, t.size, t.later = nil, 0, true
	return t.emit(b)
}

func (t *telling) batch(kind listeners.Kind) *listeners.Batch {
	return &listeners.Batch{Kind: kind, Source: t.source, Tx: t.tx, Position: t.at, First: true, Last: true, Size: batchBytes}
}
