package grid

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// defaultNegative is the default of [LoaderOptions].MaxNegative.
const defaultNegative = 10_000

// LoaderOptions set up a [Loader]. Nil and zero mean the defaults.
type LoaderOptions struct {
	// TTL is how long a loaded entry stays, as with [Region.PutTTL]. Default:
	// what the region says.
	TTL time.Duration
	// NegativeTTL is how long a Loader remembers that a key was not found.
	// Default 0: it asks each time.
	NegativeTTL time.Duration
	// MaxNegative is how many keys that were not found a Loader remembers at
	// most; of more, it forgets the oldest. Default 10000.
	MaxNegative int
}

// A Loader reads a region through to the store behind it. All methods may be
// called from any goroutine. It starts none and needs no closing.
type Loader[K comparable, V any] struct {
	r    *Region[K, V]
	load func(context.Context, K) (V, bool, error)
	opts LoaderOptions

	mu      sync.Mutex // taken before the region's
	flights map[string]*flight[V]
	absent  []*flight[V] // those kept, in the order of their ends
}

// A flight is one call of a load function and what came of it.
type flight[V any] struct {
	id   string
	mark loadMark

	// Under the Loader's mu.
	users int
	kept  bool // for the next to ask, as nothing was found

	done      chan struct{} // closed when what follows is there
	val       V
	found     bool
	err       error
	abandoned bool      // the caller that loaded gave up: another one should
	until     time.Time // how long nothing found may be remembered
}

// A LoadPanicError is a panic of a load function.
type LoadPanicError struct {
	Value any    // that it panicked with
	Stack []byte // where
}

// Error implements error.
func (e *LoadPanicError) Error() string {
	return fmt.Sprintf("the load function panicked: %v", e.Value)
}

var (
	errLoadExit = errors.New("the load function ended its goroutine with runtime.Goexit")
	errLoadLoop = errors.New("the load function asked its Loader for the key that it is loading: read the store there")
)

// NewLoader returns a Loader that fills a region with what load returns for a
// key: its value and true, false if the store does not have it, or an error.
//
// load runs under no lock, on the goroutine and with the context of a caller of
// [Loader.Get], at any time for several keys, but for one key once. It reads
// the store, and must not write into a region: a listener may wait for it. The
// errors are [ErrMirror] and misuse.
func NewLoader[K comparable, V any](r *Region[K, V], load func(ctx context.Context, k K) (V, bool, error), opts *LoaderOptions) (*Loader[K, V], error) {
	if opts == nil {
		opts = new(LoaderOptions)
	}
	l := &Loader[K, V]{r: r, load: load, opts: *opts, flights: make(map[string]*flight[V])}
	if l.opts.MaxNegative == 0 {
		l.opts.MaxNegative = defaultNegative
	}
	var errs []error
	if load == nil {
		errs = append(errs, errors.New("the function is nil"))
	}
	if r.source != nil {
		errs = append(errs, ErrMirror)
	}
	if opts.TTL < 0 {
		errs = append(errs, fmt.Errorf("the TTL is %s: use 0 for the region's, or Forever for none", opts.TTL))
	}
	if opts.NegativeTTL < 0 {
		errs = append(errs, fmt.Errorf("the NegativeTTL is %s: use 0 to remember nothing", opts.NegativeTTL))
	}
	if opts.MaxNegative < 0 {
		errs = append(errs, fmt.Errorf("MaxNegative is %d: use a NegativeTTL of 0 to remember nothing", opts.MaxNegative))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("grid: loader of region %q: %w", r.name, err)
	}
	return l, nil
}

// Get returns the value of a key: that of the region, found as by [Region.Get],
// or the one that load returns, which it stores in a transaction of its own,
// one create event with [listeners.CauseLoad] and the caller's tag. It returns
// false if the store does not have the key.
//
// Callers that miss one key at a time share one call of load, and its error. An
// error is not remembered. If the caller whose context load has gives up, one of
// the others calls load anew. A panic of load is a [*LoadPanicError] for all of
// them.
//
// A write that is committed while load runs wins, also the delete of a key that
// is not there, and Clear: then what was loaded is not stored, and who calls Get
// afterwards does not get it. A write also makes the Loader forget that the key
// was not found. So Delete is what to call when the store has changed.
//
// Get waits for load until ctx ends, and for room to store as [Region.Put] does.
// Its errors are load's, the cause of ctx's end, [ErrClosed] for a key that the
// closed region does not hold, and a [*UniqueError]. It may be called by a
// listener, which passes its own context on, but not where writers wait, such as
// in the function given to [Region.Update].
func (l *Loader[K, V]) Get(ctx context.Context, k K) (v V, found bool, err error) {
	if v, found = l.r.Get(k); found {
		return v, true, nil
	}
	id := string(encodeKey(l.r.codec, nil, &k))
	for again := true; again; {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		v, found, again, err = l.attempt(ctx, k, id)
	}
	if err != nil {
		var zero V
		return zero, false, fmt.Errorf("grid: load key %v into region %q: %w", k, l.r.name, err)
	}
	return v, found, nil
}

// attempt takes part in one flight.
func (l *Loader[K, V]) attempt(ctx context.Context, k K, id string) (v V, found, again bool, err error) {
	f, leads, err := l.join(id)
	switch {
	case err != nil:
		return v, false, false, err
	case f == nil:
		v, found = l.r.Get(k)
		return v, found, !found, nil
	}
	defer l.leave(f)
	if leads {
		l.fly(ctx, f, k)
	} else {
		if trailOf(ctx).has(&f.mark) {
			return v, false, false, errLoadLoop
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return v, false, false, context.Cause(ctx)
		}
	}
	if !f.mark.overtaken.Load() {
		switch {
		case f.abandoned && !leads:
			return v, false, true, nil
		case f.err != nil || !f.found:
			return v, false, false, f.err
		}
		if err := l.store(ctx, f, k); err != nil {
			return v, false, false, err
		}
	}
	// Whoever overtook may have deleted it; then what was loaded is as good as
	// any value of the time in which this call waits for one.
	if v, found = l.r.Get(k); found {
		return v, true, false, nil
	}
	return f.val, f.found, f.abandoned && !leads, f.err
}

// join returns the flight of a key and whether the caller is to load; nil if the
// region has the key.
func (l *Loader[K, V]) join(id string) (f *flight[V], leads bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f = l.flights[id]; f != nil && f.joinable(time.Now()) {
		f.users++
		return f, false, nil
	}
	f = &flight[V]{id: id, users: 1, done: make(chan struct{})}
	if there, err := l.r.addMark(id, &f.mark); there || err != nil {
		return nil, false, err
	}
	l.flights[id] = f
	return f, true, nil
}

// joinable reports whether a call that begins now may have what the flight
// brings.
func (f *flight[V]) joinable(now time.Time) bool {
	switch {
	case f.mark.overtaken.Load():
		return false
	case !isClosed(f.done):
		return true
	}
	return f.found || f.err == nil && now.Before(f.until)
}

// fly calls load.
func (l *Loader[K, V]) fly(ctx context.Context, f *flight[V], k K) {
	f.err = errLoadExit
	defer func() {
		if v := recover(); v != nil {
			f.err = &LoadPanicError{Value: v, Stack: debug.Stack()}
		}
		if f.err != nil {
			f.found = false
			f.abandoned = ctx.Err() != nil
		} else if !f.found {
			l.remember(f)
		}
		close(f.done)
	}()
	f.val, f.found, f.err = l.load(trailOf(ctx).with(ctx, &f.mark), k)
}

// store stores what a flight brought, unless somebody has.
func (l *Loader[K, V]) store(ctx context.Context, f *flight[V], k K) error {
	if err := l.r.reserve(ctx); err != nil {
		return err
	}
	o := l.r.ops.get()
	defer l.r.ops.put(o)
	o.id = append(o.id[:0], f.id...)
	o.kind, o.mark, o.tag = opLoad, &f.mark, tagOf(ctx)
	o.next = l.r.newEntry(l.r.shape, o.id, k, f.val)
	l.r.limit(o.next, l.opts.TTL)
	l.r.commit(o)
	return o.err
}

// remember keeps a flight that found nothing.
func (l *Loader[K, V]) remember(f *flight[V]) {
	if l.opts.NegativeTTL == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	f.until, f.kept = now.Add(l.opts.NegativeTTL), true
	l.absent = append(l.absent, f)
	for len(l.absent) > l.opts.MaxNegative || !l.absent[0].joinable(now) {
		old := l.absent[0]
		if old == f {
			break // it is not done, or overtaken already
		}
		l.absent[0] = nil
		l.absent = l.absent[1:]
		if old.kept = false; old.users == 0 {
			l.drop(old)
		}
	}
}

func (l *Loader[K, V]) leave(f *flight[V]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.users--; f.users == 0 && !f.kept {
		l.drop(f)
	}
}

// drop forgets a flight that nobody is in. The caller holds mu.
func (l *Loader[K, V]) drop(f *flight[V]) {
	l.r.dropMark(f.id, &f.mark)
	if l.flights[f.id] == f {
		delete(l.flights, f.id)
	}
}
