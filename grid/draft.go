package grid

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/rowcall/rowcall/listeners"
)

// A draft is a transaction of a mirror before it is committed. Reads go to its
// overlay and then to the state before it.
type draft[K comparable, V any] struct {
	r       *Region[K, V]
	base    *view[K, V]             // nobody but the follower commits meanwhile
	cleared bool                    // base counts no more
	overlay map[string]*entry[K, V] // by id; nil for removed
	events  []listeners.Event
	size    int // of events
	probe   *lookup

	// What prepareLocked made ready for commitLocked.
	db     *db[K, V]
	txn    *dbTxn[K, V]
	length int
}

func newDraft[K comparable, V any](r *Region[K, V]) *draft[K, V] {
	return &draft[K, V]{r: r, base: r.view.Load(), overlay: make(map[string]*entry[K, V]), probe: new(lookups).get()}
}

func (d *draft[K, V]) inBase(id []byte) *entry[K, V] {
	if d.cleared {
		return nil
	}
	d.probe.id = id
	return d.base.find(d.probe)
}

// get returns the entry with this id, or nil.
func (d *draft[K, V]) get(id []byte) *entry[K, V] {
	if e, ok := d.overlay[string(id)]; ok {
		return e
	}
	return d.inBase(id)
}

func (d *draft[K, V]) set(e *entry[K, V]) { d.overlay[string(e.id)] = e }

// remove returns what it removed, or nil.
func (d *draft[K, V]) remove(id []byte) *entry[K, V] {
	e := d.get(id)
	d.overlay[string(id)] = nil
	return e
}

func (d *draft[K, V]) clear() {
	d.cleared = true
	clear(d.overlay)
}

// add appends an event with these records, nil for absent ones.
func (d *draft[K, V]) add(e listeners.Event, before, after *entry[K, V]) {
	d.size += eventBytes
	if before != nil {
		e.Before = listeners.NewRecord(before)
		d.size += before.size
	}
	if after != nil {
		e.After = listeners.NewRecord(after)
		d.size += after.size
	}
	d.events = append(d.events, e)
}

// become turns the base into these rows with as few changes as that takes:
// creates and updates in the order of the rows, then deletes in key order.
// The events have no positions in the source, so they are numbered after at,
// or after the base's position if that is later.
func (d *draft[K, V]) become(rows []*entry[K, V], at listeners.Position) {
	if d.base.position.Compare(at) > 0 {
		at = d.base.position
	}
	add := func(op listeners.Op, before, after *entry[K, V]) {
		at.Index++
		s := after
		if s == nil {
			s = before
		}
		d.add(listeners.Event{Op: op, Cause: listeners.CauseSnapshot, Position: at, Schema: s.shape.schema}, before, after)
	}
	wanted := make(map[string]struct{}, len(rows))
	for _, row := range rows {
		wanted[string(row.id)] = struct{}{}
		held := d.get(row.id)
		switch {
		case held == nil:
			d.set(row)
			add(listeners.Create, nil, row)
		case !reflect.DeepEqual(held.val, row.val):
			d.set(row)
			add(listeners.Update, held, row)
		}
	}
	d.base.all(func(e *entry[K, V]) bool {
		if _, ok := wanted[string(e.id)]; !ok {
			d.remove(e.id)
			add(listeners.Delete, e, nil)
		}
		return true
	})
}

// position returns that of the last event, or at where there is none.
func (d *draft[K, V]) position(at listeners.Position) listeners.Position {
	if len(d.events) > 0 {
		return d.events[len(d.events)-1].Position
	}
	return at
}

// tell hands the events to the feed as one batch. A transaction of which
// nothing is left is none, but who waits for its position has to wait no more.
func (d *draft[K, V]) tell(tx listeners.Tx, at listeners.Position) {
	switch {
	case len(d.events) == 0 && at.Compare(d.base.position) > 0:
		d.r.feed.Pass(at)
	case len(d.events) > 0:
		d.r.feed.Append(&listeners.Batch{
			Kind: listeners.Changes, Source: d.r.grid.name, Tx: tx, Events: d.events,
			Position: at, First: true, Last: true, Size: batchBytes + d.size,
		})
	}
}

// tellAll hands the whole new state to the feed.
func (d *draft[K, V]) tellAll() {
	_ = d.r.tell(d.r.view.Load(), func(b *listeners.Batch) error {
		d.r.feed.Append(b)
		return nil // so tell returns nil
	})
}

// commitDraft applies a draft in one transaction of the database, shows the result with
// this position (an empty transaction's may be an older one, and is not), and
// calls publish under the lock. It waits for room in the feed first.
func (r *Region[K, V]) commitDraft(ctx context.Context, d *draft[K, V], at listeners.Position, publish func()) error {
	if err := r.feed.Reserve(ctx); err != nil {
		return fmt.Errorf("wait for the slowest listener: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := d.prepareLocked(); err != nil {
		return err
	}
	d.commitLocked(at)
	publish()
	return nil
}

// prepareLocked does everything that can fail. Nobody sees anything of it. The
// caller holds the region's mu until commitLocked or abortLocked.
func (d *draft[K, V]) prepareLocked() error {
	if d.r.closed {
		return ErrClosed
	}
	d.db, d.length = d.r.db, d.base.length
	if d.cleared {
		d.db, d.length = newDB[K, V](len(d.r.indexDefs())), 0
	}
	changes := d.sorted()
	for _, c := range changes {
		if c.entry != nil {
			c.entry.index(d.r.indexDefs()) // for one that was added meanwhile
		}
	}
	d.txn = d.db.begin()
	for _, c := range changes {
		held := d.inBase(c.id)
		switch {
		case c.entry != nil:
			if held == nil {
				d.length++
			}
			d.txn.put(c.entry)
		case held != nil:
			d.length--
			d.txn.remove(held)
		}
	}
	return nil
}

// commitLocked makes what was prepared visible.
func (d *draft[K, V]) commitLocked(at listeners.Position) {
	d.txn.commit()
	d.r.db = d.db
	if at.Compare(d.base.position) < 0 {
		at = d.base.position
	}
	d.r.show(d.length, at)
}

// abortLocked takes back what was prepared.
func (d *draft[K, V]) abortLocked() {
	d.txn = nil
}

// A change of a draft: a new entry, or nil for a removed one.
type draftChange[K comparable, V any] struct {
	id    []byte
	entry *entry[K, V]
}

// sorted returns the overlay in key order, in which the tree copies least.
func (d *draft[K, V]) sorted() []draftChange[K, V] {
	changes := make([]draftChange[K, V], 0, len(d.overlay))
	for id, e := range d.overlay {
		changes = append(changes, draftChange[K, V]{[]byte(id), e})
	}
	slices.SortFunc(changes, func(a, b draftChange[K, V]) int { return bytes.Compare(a.id, b.id) })
	return changes
}
