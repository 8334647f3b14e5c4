package grid

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A writerDef is a writer as it was added. Its address is its identity.
type writerDef struct {
	name string
	fn   func(context.Context, *Pending) error
}

// A Pending is a transaction that is about to be committed, see
// [Grid.AddWriter] and [Changing]. It ends with the call that it is given to.
type Pending struct {
	tx   *Tx
	over bool
}

// Tag returns the tag of the transaction, see [WithTag].
func (p *Pending) Tag() string { return p.tx.tag }

// AddWriter has fn asked before each commit of a write into a region of the
// grid, once for the whole transaction: a single write is a transaction of one
// key; PutAll, Clear and Do are one, over all regions that they change. Writers
// are asked in the order in which they were added, each with what the ones
// before have made of it. If fn returns an error, nothing is stored, the later
// ones are not asked, and the caller gets the error with the name. A panic goes
// on to the caller. Calling remove ends it; a second time is fine. Both go for
// writes that begin afterwards.
//
// fn runs under no lock, on the goroutine and with the context of who writes. So
// if what the transaction is based on changes meanwhile, it is made up and fn is
// asked again: being asked does not mean that it is committed, and an error
// counts only if nothing has changed. While a grid has writers, that goes for
// single writes too, single writes are not committed together, and the function
// given to [Region.Update] may be called several times, as that of [Grid.Do].
// fn may read, and must not write into regions of the grid.
//
// Nobody is asked for what expires or is evicted, for mirrors, for what a
// [Loader] has loaded, or for a transaction that changes nothing.
func (g *Grid) AddWriter(name string, fn func(ctx context.Context, p *Pending) error) (remove func(), err error) {
	if fn == nil {
		return nil, fmt.Errorf("grid %q: add writer %q: the function is nil", g.name, name)
	}
	w := &writerDef{name, fn}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, fmt.Errorf("grid %q: add writer %q: %w", g.name, name, ErrClosed)
	}
	all := append(slices.Clone(g.writerDefs()), w)
	g.writers.Store(&all)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		left := slices.DeleteFunc(slices.Clone(g.writerDefs()), func(o *writerDef) bool { return o == w })
		g.writers.Store(&left)
	}, nil
}

// writerDefs returns the present writers, which change under mu only.
func (g *Grid) writerDefs() []*writerDef {
	if defs := g.writers.Load(); defs != nil {
		return *defs
	}
	return nil
}

// A PendingRegion is what a transaction is about to do to one region. It ends with
// the call of the writer.
type PendingRegion[K comparable, V any] struct {
	p *Pending
	t *TxRegion[K, V] // nil if it does nothing to the region
}

// A PendingChange is what a transaction is about to do to one key.
type PendingChange[V any] struct {
	Op            listeners.Op // Create, Update or Delete
	Before, After V            // the zero value where there is none
}

// Changing returns what a transaction is about to do to a region, which may be
// nothing.
func Changing[K comparable, V any](p *Pending, r *Region[K, V]) PendingRegion[K, V] {
	for _, part := range p.tx.parts {
		if part.of(r) && part.changing() {
			return PendingRegion[K, V]{p, part.(*TxRegion[K, V])} //nolint:errcheck // the region has these types
		}
	}
	return PendingRegion[K, V]{p: p}
}

// Cleared reports whether the transaction is [Region.Clear]. Then All yields
// nothing.
func (c PendingRegion[K, V]) Cleared() bool { return c.t != nil && c.t.wiped }

// All yields the keys with what is done to them all in all, in key order. What
// Set changes meanwhile is not in it.
func (c PendingRegion[K, V]) All() iter.Seq2[K, PendingChange[V]] {
	return func(yield func(K, PendingChange[V]) bool) {
		if c.t == nil {
			return
		}
		for _, w := range c.t.sorted() {
			before := c.t.held(w.id)
			var to PendingChange[V]
			switch {
			case before == nil && w.next == nil:
				continue
			case before == nil:
				to.Op = listeners.Create
			case w.next == nil:
				to.Op = listeners.Delete
			default:
				to.Op = listeners.Update
			}
			var k K
			if before != nil {
				k, to.Before = before.key, before.val
			}
			if w.next != nil {
				k, to.After = w.next.key, w.next.val
			}
			if !yield(k, to) {
				return
			}
		}
	}
}

// Set has another value stored for a key that the transaction creates or
// updates; how long the entry stays is not changed. The value must not change
// afterwards. The errors are [ErrTxOver] after the call of the writer, and that
// the transaction does not store the key.
func (c PendingRegion[K, V]) Set(k K, v V) error {
	if c.p.over {
		return ErrTxOver
	}
	if c.t != nil {
		id := encodeKey(c.t.r.codec, nil, &k)
		if w, ok := c.t.writes[string(id)]; ok && w.next != nil {
			next := c.t.r.newEntry(c.t.r.shape, id, k, v)
			c.t.r.limit(next, ownTTL(w.next))
			w.next = next
			c.t.writes[string(id)] = w
			return nil
		}
	}
	return fmt.Errorf("grid: a writer sets key %v, which the transaction does not create or update", k)
}

// ownTTL returns the duration to give to another entry in the place of e.
func ownTTL[K comparable, V any](e *entry[K, V]) time.Duration {
	switch {
	case e.life == nil:
		return 0
	case e.life.ttl == 0:
		return Forever
	}
	return e.life.ttl
}

// held returns what a key had before the transaction, which must not change
// until it is committed.
func (t *TxRegion[K, V]) held(id []byte) *entry[K, V] {
	if e, read := t.reads[string(id)]; read {
		return e
	}
	e := t.base.find(newLookup(id))
	if e != nil && t.r.over(e, t.at) {
		e = nil
	}
	if t.reads == nil {
		t.reads = make(map[string]*entry[K, V])
	}
	t.reads[string(id)] = e
	return e
}

// changing reports whether the transaction changes the region. From then on it
// is based on all that it writes over.
func (t *TxRegion[K, V]) changing() bool {
	some := t.wiped
	for _, w := range t.writes {
		before := t.held(w.id)
		some = some || w.next != nil || before != nil
	}
	return some
}

// ask asks the writers.
func (tx *Tx) ask(ctx context.Context) error {
	defs := tx.grid.writerDefs()
	if len(defs) == 0 {
		return nil
	}
	some := false
	for _, p := range tx.parts {
		some = p.changing() || some
	}
	if !some {
		return nil
	}
	for _, w := range defs {
		if err := w.asked(ctx, tx); err != nil {
			return fmt.Errorf("writer %q: %w", w.name, err)
		}
	}
	return nil
}

func (w *writerDef) asked(ctx context.Context, tx *Tx) error {
	p := &Pending{tx: tx}
	defer func() { p.over = true }() // also when it panics
	return w.fn(ctx, p)
}

// writeAsking commits what fn writes, as [Grid.Do] does, and returns its
// position.
func (r *Region[K, V]) writeAsking(ctx context.Context, fn func(t *TxRegion[K, V]) error) (listeners.Position, error) {
	if r.source != nil {
		return listeners.Position{}, ErrMirror
	}
	for {
		if ctx.Err() != nil {
			return listeners.Position{}, context.Cause(ctx)
		}
		tx := &Tx{grid: r.grid, tag: tagOf(ctx), single: true}
		t := In(tx, r)
		ended, err := tx.finish(ctx, fn(t))
		switch {
		case !ended:
		case err != nil || t.batch == nil:
			return listeners.Position{}, err
		default:
			return t.batch.Position, nil
		}
	}
}

// writeOneAsking is [Region.writeFor] of a grid with writers. It takes values, so
// that the caller's stay on its stack.
func (r *Region[K, V]) writeOneAsking(ctx context.Context, kind opKind, k K, v V, version listeners.Position, ttl time.Duration) (listeners.Position, error) {
	return r.writeAsking(ctx, func(t *TxRegion[K, V]) error {
		o := &op[K, V]{kind: kind, version: version}
		o.id = encodeKey(r.codec, nil, &k)
		if kind != opDelete {
			o.next = r.newEntry(r.shape, o.id, k, v)
			r.limit(o.next, ttl)
		}
		_, err := o.decide(t.held(o.id))
		if err == nil {
			t.write(o.id, o.next)
		}
		return err
	})
}

// updateAsking is [Region.Update] of a grid with writers.
func (r *Region[K, V]) updateAsking(ctx context.Context, k K, fn func(V) (V, error)) (listeners.Position, error) {
	return r.writeAsking(ctx, func(t *TxRegion[K, V]) error {
		held := t.held(encodeKey(r.codec, nil, &k))
		if held == nil {
			return ErrNotFound
		}
		v, err := fn(held.val)
		if err != nil {
			return err
		}
		t.put(k, v)
		return nil
	})
}

// putAllAsking is [Region.PutAll] of a grid with writers.
func (r *Region[K, V]) putAllAsking(ctx context.Context, pairs iter.Seq2[K, V]) (listeners.Position, error) {
	var keys []K
	var values []V
	for k, v := range pairs {
		keys, values = append(keys, k), append(values, v)
	}
	return r.writeAsking(ctx, func(t *TxRegion[K, V]) error {
		for i, k := range keys {
			t.put(k, values[i])
		}
		return nil
	})
}

// errChanged is why a Clear has to be asked for again.
var errChanged = errors.New("the region has changed")

// clearAsking is [Region.Clear] of a grid with writers.
func (r *Region[K, V]) clearAsking(ctx context.Context) (listeners.Position, error) {
	for {
		if ctx.Err() != nil {
			return listeners.Position{}, context.Cause(ctx)
		}
		tx := &Tx{grid: r.grid, tag: tagOf(ctx), single: true}
		t := In(tx, r)
		t.wiped = t.base.length > 0
		veto := tx.ask(ctx)
		if veto == nil {
			if err := r.reserve(ctx); err != nil {
				return listeners.Position{}, err
			}
		}
		pos, err := r.clearFrom(ctx, t.base, veto)
		if !errors.Is(err, errChanged) {
			return pos, err
		}
	}
}
