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

	"github.com/rowcall/rowcall/listeners"
)

// RegionOptions set up a region of [Open]. Nil and zero mean the defaults.
type RegionOptions[V any] struct {
	// FeedBytes bounds the changes that are not yet handled by every listener,
	// in estimated bytes: a change counts as its old and its new entry and some
	// 300 bytes. Default [listeners.DefaultFeedBytes].
	FeedBytes int64
	// HistoryBytes is how much of the last changes the region keeps, counted in
	// the same way, so that a subscription can go on from a position, see
	// [Region.Subscribe]. Default 0: none.
	HistoryBytes int64
	// ValueBytes returns how much memory a value holds outside of its own
	// struct. It is called once for each value written, by [Region.Update]
	// while other writers wait, else under no lock. Default: the lengths of its strings and byte slices, if it is or has any; other
	// slices, maps, pointers and nested structs count nothing.
	ValueBytes func(V) int
	// TTL is how long an entry stays after it was written last, unless
	// [Region.PutTTL] gave it a duration of its own. Default: [Forever].
	TTL time.Duration
	// Idle is how long an entry stays after it was used last, to within a
	// thousandth. Used means written, or found by [Region.Get], [Region.Entry],
	// [TxRegion.Get] or [Loader.Get]; iterations, indexes, snapshots and
	// [Region.Peek] do not count. Default: no limit.
	Idle time.Duration
	// MaxEntries is how many entries the region holds at most: a transaction
	// that adds more is followed by one that evicts those which were used least
	// recently, see the package's documentation. Default: no limit.
	MaxEntries int
}

// A Region is a typed map whose changes are events. K is a string, an integer,
// a bool, a [time.Time], an array or a struct of these, or a type that
// [Options].Keys has a codec for; a named type of such a kind will do, but for
// times. Times are one key if they are one instant, and come back in UTC. All
// methods may be called from any goroutine.
//
// The columns of its events: the key's first, named "key" or, if K is a struct,
// as its fields, where a struct within is one column; then those of V, named as its fields, or "value" if V is not a
// struct. Fields are named as [listeners.Record.Scan] describes.
type Region[K comparable, V any] struct {
	grid  *Grid
	name  string
	order uint64 // of creation; transactions lock regions in this order
	log   *slog.Logger
	codec *codec
	feed  *listeners.Feed
	sizes sizes[V]

	opened time.Time // where the clock began
	limits limits    // of the stay of entries

	view    atomic.Pointer[view[K, V]]
	lookups lookups
	ops     ops[K, V]
	queue   queue[K, V] // of single writes
	indexes atomic.Pointer[[]indexDef[K, V]]
	queries queries[K, V]

	// mu orders commits: a transaction is committed, shown and appended to the
	// feed under it. No listener runs and nobody waits for room under it.
	mu     sync.Mutex
	db     *db[K, V]
	closed bool
	lives  lives[K, V]
	marks  map[string][]*loadMark // by id; of loads and of what they did not find

	shape *shape             // of an open region; a mirror takes it from its source
	begin listeners.Position // before the first change; the zero Position of a mirror

	source upstream                           // of a mirror, nil for others
	told   atomic.Pointer[listeners.Position] // of a mirror, see Told
	ready  chan struct{}                      // closed when the state is complete
	done   chan struct{}                      // closed when Close begins
}

var _ listeners.Source = (*Region[string, int])(nil)

// Open makes an empty region. The error says that the grid is closed, has a
// region of that name ([ErrTaken]), that K cannot be a key, or which options
// make no sense.
func Open[K comparable, V any](g *Grid, name string, opts *RegionOptions[V]) (*Region[K, V], error) {
	r, err := newRegion[K](g, name, opts)
	if err != nil {
		return nil, err
	}
	if opts != nil {
		if r.limits, err = newLimits(opts); err != nil {
			return nil, fmt.Errorf("grid: open region %q: %w", name, err)
		}
	}
	r.shape, err = newShape(g.name, name, r.codec.keyNames(), reflect.TypeFor[V](), valueColumn)
	if err != nil {
		return nil, fmt.Errorf("grid: open region %q: %w", name, err)
	}
	r.begin = listeners.Position{Epoch: g.epoch()}
	r.show(0, r.begin)
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
		sizes: newSizes[K](opts.ValueBytes), opened: time.Now(), lives: newLives[K, V](),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	r.feed = listeners.NewFeed(&listeners.FeedOptions{MaxBytes: opts.FeedBytes, HistoryBytes: opts.HistoryBytes, Resume: r.resume, Begin: r.beginning})
	var err error
	if r.codec, err = newCodec(reflect.TypeFor[K](), g.keys); err != nil {
		return nil, fmt.Errorf("grid: region %q: %w", name, err)
	}
	r.db = newDB[K, V](0)
	return r, nil
}

// Name returns the name given to [Open] or [Mirror].
func (r *Region[K, V]) Name() string { return r.name }

// Get returns the value of a key. It takes no lock.
func (r *Region[K, V]) Get(k K) (V, bool) {
	var room [idRoom]byte
	now := r.view.Load()
	e := now.get(encodeKey(r.codec, room[:0], &k))
	if e == nil || e.life != nil && !r.use(e, now, r.clock()) {
		var zero V
		return zero, false
	}
	return e.val, true
}

// Peek returns the value of a key as [Region.Get] does, and does nothing else:
// whatever reading may come to set off, such as loading or counting, Peek will
// not.
func (r *Region[K, V]) Peek(k K) (V, bool) {
	e := r.Snapshot().find(k)
	if e == nil || e.life != nil && r.over(e, r.clock()) {
		var zero V
		return zero, false
	}
	return e.val, true
}

// Entry returns the value of a key with its version. It takes no lock.
func (r *Region[K, V]) Entry(k K) (Entry[K, V], bool) {
	s := r.Snapshot()
	e := s.find(k)
	if e == nil || e.life != nil && !r.use(e, s.v, r.clock()) {
		return Entry[K, V]{}, false
	}
	return Entry[K, V]{e.key, e.val, e.pos}, true
}

// Len returns the number of keys, in constant time. An entry whose time is up
// counts until its delete is committed.
func (r *Region[K, V]) Len() int { return r.view.Load().length }

// All yields the keys and values in the order of the keys: numbers by value,
// strings and byte arrays by their bytes, false before true, times from the
// earliest on, structs field by field, arrays element by element. Each iteration sees the state at its start and does not hinder
// writers. A long one keeps the memory of what changed meanwhile.
func (r *Region[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		r.view.Load().all(r.staying(yield))
	}
}

// From yields the keys from this one on, in the order and with the snapshot of
// [Region.All].
func (r *Region[K, V]) From(from K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { r.Snapshot().from(&from, nil, r.staying(yield)) }
}

// Range yields the keys from the first one up to, but without, the second, in
// the order and with the snapshot of [Region.All].
func (r *Region[K, V]) Range(from, to K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { r.Snapshot().from(&from, &to, r.staying(yield)) }
}

// Position returns the position of the last change in the region: all changes
// up to it, and no others, are what Get and All show, which leave out entries
// whose time is up before their delete is committed. That of an untouched
// region has Commit 0. For a mirror it is a position of its source.
func (r *Region[K, V]) Position() listeners.Position { return r.view.Load().position }

// Close ends the region: first writes, those of listeners too, and a mirror's
// source; then the subscriptions, as soon as they have handled what was written
// before. Who is being told the present state, or has to be told it again, is
// told it to its end. A paused subscription is not waited for, and ends where it
// is. It returns nil when no callback is running any more. If ctx ends before that,
// Close tells the callbacks to end by their contexts and returns the cause. A
// second call waits again. What the region held can still be read; its name is
// free for a new region. [listeners.Subscription.Reason] tells who was subscribed
// that the region was closed.
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
	r.endSweeper()
	var err error
	if r.source != nil {
		if err = r.source.CloseWait(ctx); err != nil {
			err = fmt.Errorf("grid: close region %q: its mirroring is still busy: %w", r.name, err)
		}
	}
	if waitErr := endSubscriptions(ctx, r.feed, fmt.Sprintf("region %q", r.name), r.grid.name); err == nil {
		err = waitErr
	}
	// After the region's own, of which one is what the queries hear by.
	if waitErr := r.endQueries(ctx); err == nil {
		err = waitErr
	}
	r.grid.remove(r)
	return err
}

// endSubscriptions waits until each of a feed has caught up, or is paused, ends
// it, and waits for its end, all of it no longer than ctx.
func endSubscriptions(ctx context.Context, feed *listeners.Feed, of, grid string) error {
	subs := feed.Subscriptions() // complete: Subscribe refuses new ones
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for _, s := range subs {
		for isBehind(s) && ctx.Err() == nil {
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
	feed.CloseFor(fmt.Errorf("%s of grid %q was closed: %w", of, grid, listeners.ErrClosed))
	var err error
	for _, s := range subs {
		select {
		case <-s.Done():
			continue
		case <-ctx.Done():
		}
		s.Close()
		if !isClosed(s.Done()) && err == nil {
			err = fmt.Errorf("grid: close %s: subscription %q is still busy: %w", of, s.Name(), context.Cause(ctx))
		}
	}
	return err
}

// isBehind reports whether a subscription has something left to hear, and may
// hear it.
func isBehind(s *listeners.Subscription) bool {
	lag := s.Lag()
	return (lag.Joining || lag.Batches > 0) && !s.Paused()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
