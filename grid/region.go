package grid

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/rowcall/rowcall/listeners"
)

// RegionOptions set up a region of [Open]. Nil and zero mean the defaults.
type RegionOptions[V any] struct {
	// FeedBytes bounds the changes that are not yet handled by every listener,
	// in estimated bytes: a change counts as its old and its new entry and some
	// 300 bytes. Default [listeners.DefaultFeedBytes].
	FeedBytes int64
	// ValueBytes returns how much memory a value holds outside of its own
	// struct. It is called once for each value written, by [Region.Update]
	// while other writers wait, else under no lock. Default: the lengths of its strings and byte slices, if it is or has any; other
	// slices, maps, pointers and nested structs count nothing.
	ValueBytes func(V) int
}

// A Region is a typed map whose changes are events. K is a string, an integer,
// a bool, a byte array or a struct of these; a named type of such a kind will
// do. All methods may be called from any goroutine.
//
// The columns of its events: the key's first, named "key" or, if K is a struct,
// as its fields; then those of V, named as its fields, or "value" if V is not a
// struct. Fields are named as [listeners.Record.Scan] describes.
type Region[K comparable, V any] struct {
	grid  *Grid
	name  string
	order uint64 // of creation; transactions lock regions in this order
	log   *slog.Logger
	codec *codec
	feed  *listeners.Feed
	sizes sizes[V]

	view    atomic.Pointer[view[K, V]]
	lookups lookups
	ops     ops[K, V]
	queue   queue[K, V] // of single writes
	indexes atomic.Pointer[[]indexDef[K, V]]
	queries queries[K, V]

	// mu orders commits: a transaction is committed, shown and appended to the
	// feed under it. No listener runs and nobody waits for room under it.
	mu     sync.Mutex
	db     *memdb.MemDB
	closed bool

	shape *shape // of an open region; a mirror takes it from its source

	source *listeners.Subscription // of a mirror, nil for others
	ready  chan struct{}           // closed when the state is complete
	done   chan struct{}           // closed when Close begins
}

var _ listeners.Source = (*Region[string, int])(nil)

// Open makes an empty region. The error says that the grid is closed, has a
// region of that name ([ErrTaken]), or that K cannot be a key.
func Open[K comparable, V any](g *Grid, name string, opts *RegionOptions[V]) (*Region[K, V], error) {
	r, err := newRegion[K](g, name, opts)
	if err != nil {
		return nil, err
	}
	r.shape, err = newShape(g.name, name, r.codec.keyNames(), reflect.TypeFor[V](), valueColumn)
	if err != nil {
		return nil, fmt.Errorf("grid: open region %q: %w", name, err)
	}
	r.show(0, listeners.Position{Epoch: g.epoch()})
	close(r.ready)
	if err := g.add(r); err != nil {
		return nil, err
	}
	return r, nil
}

// newRegion makes what Open and Mirror have in common.
func newRegion[K comparable, V any](g *Grid, name string, opts *RegionOptions[V]) (*Region[K, V], error) {
	if err := g.vacant(name); err != nil {
		return nil, err
	}
	if opts == nil {
		opts = new(RegionOptions[V])
	}
	r := &Region[K, V]{
		grid: g, name: name, order: g.epoch(), log: g.log.With("grid", g.name, "region", name),
		feed:  listeners.NewFeed(&listeners.FeedOptions{MaxBytes: opts.FeedBytes}),
		sizes: newSizes[K](opts.ValueBytes),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	var err error
	if r.codec, err = newCodec(reflect.TypeFor[K]()); err != nil {
		return nil, fmt.Errorf("grid: region %q: %w", name, err)
	}
	if r.db, err = newDB[K, V](nil); err != nil {
		return nil, fmt.Errorf("grid: region %q: %w", name, err)
	}
	return r, nil
}

// Name returns the name given to [Open] or [Mirror].
func (r *Region[K, V]) Name() string { return r.name }

// Get returns the value of a key. It takes no lock.
func (r *Region[K, V]) Get(k K) (V, bool) {
	l := r.lookups.get()
	l.id = encodeKey(r.codec, l.id[:0], &k)
	e := r.view.Load().find(l)
	r.lookups.put(l)
	if e == nil {
		var zero V
		return zero, false
	}
	return e.val, true
}

// Peek returns the value of a key as [Region.Get] does, and does nothing else:
// whatever reading may come to set off, such as loading or counting, Peek will
// not.
func (r *Region[K, V]) Peek(k K) (V, bool) { return r.Snapshot().Get(k) }

// Entry returns the value of a key with its version. It takes no lock.
func (r *Region[K, V]) Entry(k K) (Entry[K, V], bool) { return r.Snapshot().Entry(k) }

// Len returns the number of keys, in constant time.
func (r *Region[K, V]) Len() int { return r.view.Load().length }

// All yields the keys and values in the order of the keys: numbers by value,
// strings and byte arrays by their bytes, false before true, structs field by
// field. Each iteration sees the state at its start and does not hinder
// writers. A long one keeps the memory of what changed meanwhile.
func (r *Region[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		r.view.Load().all(func(e *entry[K, V]) bool { return yield(e.key, e.val) })
	}
}

// From yields the keys from this one on, in the order and with the snapshot of
// [Region.All].
func (r *Region[K, V]) From(from K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { r.Snapshot().From(from)(yield) }
}

// Range yields the keys from the first one up to, but without, the second, in
// the order and with the snapshot of [Region.All].
func (r *Region[K, V]) Range(from, to K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { r.Snapshot().Range(from, to)(yield) }
}

// Position returns the position of the last change in the region: all changes
// up to it, and no others, are what Get and All show. That of an untouched
// region has Commit 0. For a mirror it is a position of its source.
func (r *Region[K, V]) Position() listeners.Position { return r.view.Load().position }

// Close ends the region: first writes, those of listeners too, and a mirror's
// source; then the subscriptions, as soon as they have handled what was written
// before. It
// returns nil when no callback is running any more. If ctx ends before that,
// Close tells the callbacks to end by their contexts and returns the cause. A
// second call waits again. What the region held can still be read; its name is
// free for a new region.
//
// A listener that wants to end the region it hears must not wait for itself:
// it closes its subscription, or calls Close on another goroutine.
func (r *Region[K, V]) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.done)
	}
	r.mu.Unlock()
	var err error
	if r.source != nil {
		if err = r.source.CloseWait(ctx); err != nil {
			err = fmt.Errorf("grid: close region %q: its mirroring is still busy: %w", r.name, err)
		}
	}
	if waitErr := r.endSubscriptions(ctx, r.feed); err == nil {
		err = waitErr
	}
	// After the region's own, of which one is what the queries hear by.
	if waitErr := r.endQueries(ctx); err == nil {
		err = waitErr
	}
	r.grid.remove(r)
	return err
}

// endSubscriptions waits until each of a feed has caught up, ends it, and waits
// for its end, all of it no longer than ctx.
func (r *Region[K, V]) endSubscriptions(ctx context.Context, feed *listeners.Feed) error {
	subs := feed.Subscriptions() // complete: Subscribe refuses new ones
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for _, s := range subs {
		for s.Lag().Batches > 0 && ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-s.Done():
			case <-ctx.Done():
			}
			if isClosed(s.Done()) {
				break
			}
		}
	}
	// Close lets a Durable listener flush, which closing its subscription
	// would cut short.
	feed.Close()
	var err error
	for _, s := range subs {
		select {
		case <-s.Done():
			continue
		case <-ctx.Done():
		}
		s.Close()
		if !isClosed(s.Done()) && err == nil {
			err = fmt.Errorf("grid: close region %q: subscription %q is still busy: %w", r.name, s.Name(), context.Cause(ctx))
		}
	}
	return err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
