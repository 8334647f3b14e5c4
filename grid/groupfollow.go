package grid

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/rowcall/rowcall/listeners"
)

// A groupFollower is the listener with which a group hears its source. Its
// methods run on its subscription's goroutine alone.
type groupFollower struct {
	group  *Group
	tables []groupTable
	others bool // the snapshot that is under way is none of ours
}

// OnBatch implements [listeners.Listener].
func (f *groupFollower) OnBatch(ctx context.Context, b *listeners.Batch) error {
	err := f.onBatch(ctx, b)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return listeners.ErrClosed
	}
	f.group.log.ErrorContext(ctx, "mirror group stopped", "position", b.Position, "error", err)
	return err // the subscription's name says which group
}

func (f *groupFollower) onBatch(ctx context.Context, b *listeners.Batch) error {
	switch b.Kind {
	case listeners.Reset:
		f.others = true
		for _, t := range f.tables {
			t.forget()
			if b.Collections == nil || slices.Contains(b.Collections, t.collection()) {
				f.others = false
				t.begin()
			}
		}
		return nil
	case listeners.Snapshot:
		if f.others {
			return nil
		}
		if err := f.each(b, groupTable.row); err != nil {
			return err
		}
		return f.commit(ctx, b.Position, b.Tx, false) // rows that were read again; those of a snapshot wait
	case listeners.Live:
		if f.others {
			f.others = false
			return nil
		}
		return f.live(ctx, b)
	case listeners.Changes:
		return f.changes(ctx, b)
	}
	return fmt.Errorf("unknown kind of batch %s", b.Kind)
}

// each hands every event to its table.
func (f *groupFollower) each(b *listeners.Batch, do func(groupTable, *listeners.Event) error) error {
	for i := range b.Events {
		e := &b.Events[i]
		at := slices.IndexFunc(f.tables, func(t groupTable) bool { return t.collection() == e.Schema.Collection() })
		if at < 0 {
			continue // not asked for
		}
		if err := do(f.tables[at], e); err != nil {
			return err
		}
	}
	return nil
}

// changes collects the parts of a transaction and commits it when it is whole.
func (f *groupFollower) changes(ctx context.Context, b *listeners.Batch) error {
	if b.First {
		for _, t := range f.tables {
			t.forget()
		}
	}
	if err := f.each(b, groupTable.change); err != nil {
		return err
	}
	if !b.Last {
		return nil
	}
	for _, t := range f.tables {
		if err := t.settle(); err != nil {
			return err
		}
	}
	if at := f.group.Position(); f.pending() && b.Position.Compare(at) <= 0 {
		return fmt.Errorf("the source went back from position %s to %s without a reset", at, b.Position)
	}
	return f.commit(ctx, b.Position, b.Tx, false)
}

func (f *groupFollower) pending() bool { return slices.ContainsFunc(f.tables, groupTable.pending) }

// live commits the collected state of all tables in one transaction.
func (f *groupFollower) live(ctx context.Context, b *listeners.Batch) error {
	first := !isClosed(f.group.ready)
	at := b.Position
	if now := f.group.Position(); now.Compare(at) > 0 {
		at = now // as draft.become does
	}
	for _, t := range f.tables {
		at = t.live(at)
	}
	if err := f.commit(ctx, at, b.Tx, first); err != nil {
		return err
	}
	if first {
		for _, t := range f.tables {
			t.becomeReady()
		}
		close(f.group.ready)
	}
	return nil
}

// commit makes what is pending in the tables visible at once, as one batch in
// each region's feed and one in the group's. It waits for room in these first.
// Whole says that nobody has heard anything before: then they hear the state.
func (f *groupFollower) commit(ctx context.Context, at listeners.Position, tx listeners.Tx, whole bool) error {
	g := f.group
	var parts []groupTable
	for _, t := range f.tables {
		if t.pending() {
			parts = append(parts, t)
			if err := f.reserve(ctx, t); err != nil {
				return err
			}
		}
	}
	if len(parts) == 0 && !whole {
		return nil
	}
	if err := g.feed.Reserve(ctx); err != nil {
		return fmt.Errorf("wait for the slowest listener of the group: %w", err)
	}
	slices.SortFunc(parts, func(a, b groupTable) int { return cmp.Compare(a.order(), b.order()) })
	for _, t := range parts {
		t.lock()
		defer t.unlock()
	}
	var prepared []groupTable
	for _, t := range parts {
		closed, err := t.prepareLocked()
		if err != nil {
			for _, p := range prepared {
				p.abortLocked()
			}
			return fmt.Errorf("region %q: %w", t.Name(), err)
		}
		if !closed {
			prepared = append(prepared, t)
		}
	}
	before := g.Position()
	g.show(prepared, at)
	var all []listeners.Event
	size := batchBytes
	for _, t := range prepared {
		events, n := t.tellLocked(tx, at, whole)
		all, size = append(all, events...), size+n
	}
	if whole {
		return g.tell(g.present(), nil, func(b *listeners.Batch) error {
			g.feed.Append(b)
			return nil
		})
	}
	if len(all) > 0 {
		g.append(all, size, at, tx)
	} else if at.Compare(before) > 0 {
		g.feed.Pass(at) // for who waits for it
	}
	return nil
}

// reserve waits for room in a region's feed; one that was closed needs none.
func (f *groupFollower) reserve(ctx context.Context, t groupTable) error {
	err := t.reserve(ctx)
	if err == nil || ctx.Err() == nil && isClosed(t.Done()) {
		return nil
	}
	return fmt.Errorf("wait for the slowest listener of region %q: %w", t.Name(), err)
}

// show makes what was prepared visible to those who look at several regions.
func (g *Group) show(prepared []groupTable, at listeners.Position) {
	g.showing.Lock()
	defer g.showing.Unlock()
	for _, t := range prepared {
		t.showLocked(at)
	}
	g.position = at
}

// append tells the group's own listeners of a transaction, in the order of the
// source.
func (g *Group) append(events []listeners.Event, size int, at listeners.Position, tx listeners.Tx) {
	slices.SortStableFunc(events, func(a, b listeners.Event) int { return a.Position.Compare(b.Position) })
	g.feed.Append(&listeners.Batch{
		Kind: listeners.Changes, Source: g.grid.name, Tx: tx, Events: events, Position: at, First: true, Last: true,
		Size: size,
	})
}
