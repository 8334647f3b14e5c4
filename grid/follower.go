package grid

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/rowcall/rowcall/listeners"
)

// A follower is the listener with which a mirror hears its source. Its methods
// run on its subscription's goroutine alone.
type follower[K comparable, V any] struct {
	r     *Region[K, V]
	table *sourceTable[K, V] // nil before the first event

	collecting bool
	others     bool               // a snapshot of other collections is under way
	rows       []*entry[K, V]     // of the snapshot, in order of arrival
	at         listeners.Position // of its last batch
	tx         listeners.Tx
	open       *draft[K, V] // a transaction of which parts have come
}

func newFollower[K comparable, V any](r *Region[K, V]) *follower[K, V] {
	return &follower[K, V]{r: r}
}

// OnBatch implements [listeners.Listener].
func (f *follower[K, V]) OnBatch(ctx context.Context, b *listeners.Batch) error {
	err := f.onBatch(ctx, b)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil || isClosed(f.r.done) {
		return listeners.ErrClosed
	}
	f.r.log.ErrorContext(ctx, "mirror stopped", "position", b.Position, "error", err)
	return err // the subscription's name says which mirror
}

func (f *follower[K, V]) onBatch(ctx context.Context, b *listeners.Batch) error {
	switch b.Kind {
	case listeners.Reset:
		f.others = f.spared(b)
		if !f.others {
			f.collecting, f.rows, f.open = true, nil, nil
			f.at, f.tx = b.Position, b.Tx
		}
		return nil
	case listeners.Snapshot:
		if f.others {
			return nil
		}
		if !f.collecting && isClosed(f.r.ready) {
			return f.refresh(ctx, b)
		}
		f.at, f.tx = b.Position, b.Tx
		return f.collect(b)
	case listeners.Live:
		f.others = false
		return f.live(ctx, b.Position, b.Tx)
	case listeners.Changes:
		return f.changes(ctx, b)
	}
	return fmt.Errorf("unknown kind of batch %s", b.Kind)
}

// spared reports whether a reset leaves what the mirror holds alone.
func (f *follower[K, V]) spared(b *listeners.Batch) bool {
	return b.Collections != nil && f.table != nil && !slices.Contains(b.Collections, f.table.schema.Collection())
}

// collect keeps decoded rows, so that the source's memory is free.
func (f *follower[K, V]) collect(b *listeners.Batch) error {
	if !f.collecting {
		return fmt.Errorf("the source sent a snapshot without a reset at %s", b.Position)
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Op == listeners.Message {
			continue // says nothing of a row
		}
		row, err := f.row(e)
		if err != nil {
			return fmt.Errorf("%s at %s: %w", e.Op, e.Position, err)
		}
		f.rows = append(f.rows, row)
	}
	return nil
}

// row decodes an event of the current state.
func (f *follower[K, V]) row(e *listeners.Event) (*entry[K, V], error) {
	if err := f.learn(e.Schema); err != nil {
		return nil, err
	}
	k, err := f.table.key(e.After, listeners.Record{})
	if err != nil {
		return nil, err
	}
	v, err := f.table.value(e, nil)
	if err != nil {
		return nil, err
	}
	return f.entry(e, k, v), nil
}

func (f *follower[K, V]) entry(e *listeners.Event, k K, v V) *entry[K, V] {
	n := f.r.newEntry(f.table.shape, encodeKey(f.r.codec, nil, &k), k, v)
	n.pos = e.Position
	return n
}

// live applies the collected snapshot in one transaction.
func (f *follower[K, V]) live(ctx context.Context, position listeners.Position, tx listeners.Tx) error {
	rows, collected := f.rows, f.collecting
	f.rows, f.collecting = nil, false
	first := !isClosed(f.r.ready)
	if !collected && !first {
		return nil
	}
	d := newDraft(f.r)
	if first {
		for _, row := range rows {
			d.set(row)
		}
		if err := f.r.commitDraft(ctx, d, position, func() { f.r.told.Store(&position); d.tellAll() }); err != nil {
			return err
		}
		close(f.r.ready)
		return nil
	}
	d.become(rows, position)
	at := d.position(position)
	return f.r.commitDraft(ctx, d, at, func() { f.r.told.Store(&at); d.tell(tx, at) })
}

// changes collects the parts of a transaction and applies it when it is whole.
func (f *follower[K, V]) changes(ctx context.Context, b *listeners.Batch) error {
	if f.collecting {
		// The snapshot goes on with other collections; of this one it was whole,
		// or it would have no changes yet.
		if err := f.live(ctx, f.at, f.tx); err != nil {
			return err
		}
	}
	if !isClosed(f.r.ready) {
		return fmt.Errorf("the source sent changes at %s before its snapshot was complete", b.Position)
	}
	if f.open == nil || b.First {
		f.open = newDraft(f.r)
	}
	for i := range b.Events {
		e := &b.Events[i]
		if err := f.change(f.open, e); err != nil {
			return fmt.Errorf("%s of %s at %s: %w", e.Op, e.Key(), e.Position, err)
		}
	}
	if !b.Last {
		return nil
	}
	d := f.open
	f.open = nil
	if at := d.base.position; len(d.events) > 0 && b.Position.Compare(at) <= 0 {
		return fmt.Errorf("the source went back from position %s to %s without a reset", at, b.Position)
	}
	return f.r.commitDraft(ctx, d, b.Position, func() { d.tell(b.Tx, b.Position) })
}

// refresh applies rows that the source reads again while it streams: those that
// the mirror has otherwise, or not at all, change. Each batch is a transaction of
// its own, so that a table need not be held twice.
func (f *follower[K, V]) refresh(ctx context.Context, b *listeners.Batch) error {
	d := newDraft(f.r)
	for i := range b.Events {
		e := &b.Events[i]
		if err := f.change(d, e); err != nil {
			return fmt.Errorf("%s of %s at %s: %w", e.Op, e.Key(), e.Position, err)
		}
	}
	return f.r.commitDraft(ctx, d, b.Position, func() { d.tell(b.Tx, b.Position) })
}

// change adds one event to a draft. What does not fit what the mirror holds is
// made to fit, and logged: then the source has left something out.
func (f *follower[K, V]) change(d *draft[K, V], e *listeners.Event) error {
	if e.Op == listeners.Message {
		return nil // says nothing of a row
	}
	if e.Op == listeners.Truncate && len(e.Schema.Columns) == 0 {
		// From a stream, which says of a collection only what its rows say.
		if f.table == nil {
			return nil // no row was ever heard of
		}
	} else if err := f.learn(e.Schema); err != nil {
		return err
	}
	own := listeners.Event{Op: e.Op, Cause: mirrored(e.Cause), Position: e.Position, Schema: f.table.shape.schema}
	old := e.Before
	if !old.Exists() {
		old = e.OldKey
	}
	switch e.Op {
	case listeners.Truncate:
		d.clear()
		d.add(own, nil, nil)
		return nil
	case listeners.Delete:
		k, err := f.table.key(old, listeners.Record{})
		if err != nil {
			return err
		}
		held := d.remove(encodeKey(f.r.codec, nil, &k))
		if held == nil {
			f.odd(e, false)
			return nil
		}
		d.add(own, held, nil)
		return nil
	case listeners.Create, listeners.Update, listeners.Read:
		return f.upsert(d, e, own, old)
	case listeners.Message: // left out above
	}
	return fmt.Errorf("unknown operation %s", e.Op)
}

func (f *follower[K, V]) upsert(d *draft[K, V], e *listeners.Event, own listeners.Event, old listeners.Record) error {
	k, err := f.table.key(e.After, old)
	if err != nil {
		return err
	}
	id := encodeKey(f.r.codec, nil, &k)
	var held *entry[K, V]
	if _, moved := e.ChangedKey(); moved {
		was, err := f.table.key(old, listeners.Record{})
		if err != nil {
			return fmt.Errorf("old key: %w", err)
		}
		held = d.remove(encodeKey(f.r.codec, nil, &was))
	} else {
		held = d.get(id)
	}
	v, err := f.table.value(e, held)
	if err != nil {
		return err
	}
	if d.get(id) != nil && held == nil {
		held = d.get(id) // moved onto another row: that one is what was there
	}
	switch {
	case held == nil && e.Op == listeners.Update:
		f.odd(e, false)
		own.Op = listeners.Create
	case held != nil && e.Op == listeners.Read:
		if reflect.DeepEqual(held.val, v) {
			return nil // read again, and as it was
		}
		own.Op = listeners.Update
	case e.Op == listeners.Read:
		own.Op = listeners.Create
	case held != nil && e.Op != listeners.Update:
		f.odd(e, true)
		own.Op = listeners.Update
	}
	next := f.entry(e, k, v)
	d.set(next)
	d.add(own, held, next)
	return nil
}

// odd logs an event that the mirror's content did not let expect.
func (f *follower[K, V]) odd(e *listeners.Event, held bool) {
	f.r.log.Warn("the source does not fit what the mirror holds; it goes on with the source's word",
		"op", e.Op, "key", e.Key(), "held", held, "position", e.Position)
}

// mirrored returns the cause of a mirror's event. What more the source says than
// that somebody wrote is worth more than that this is a mirror.
func mirrored(c listeners.Cause) listeners.Cause {
	if c == listeners.CauseWrite {
		return listeners.CauseMirror
	}
	return c
}

// learn prepares for a schema of the source, if it is not the last one seen.
func (f *follower[K, V]) learn(s *listeners.Schema) error {
	if f.table != nil && f.table.schema == s {
		return nil
	}
	if f.table != nil && f.table.schema.Collection() != s.Collection() {
		return fmt.Errorf("the source has several collections, %s and %s: name one in MirrorOptions.Collection",
			f.table.schema.Collection(), s.Collection())
	}
	t, err := newSourceTable[K, V](f.r.grid.name, f.r.name, s, f.r.codec, reflect.TypeFor[V]())
	if err != nil {
		return err
	}
	f.table = t
	return nil
}
