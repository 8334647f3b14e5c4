package grid

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// queries are those of one region that have listeners. While there are any, a
// subscription of the region's feed hears for all of them, and appends to the
// feed of each what concerns it. These feeds are branches of the region's: a
// full one stops writers, not this.
//
// Before and After are all that it takes to know what enters and leaves; nobody
// keeps the sets.
type queries[K comparable, V any] struct {
	mu     sync.Mutex
	sub    *listeners.Subscription // nil unless active holds something
	round  int                     // counts subscriptions, so that one that was closed knows it
	active map[*Query[K, V]]struct{}
	values map[int]map[string][]*Query[K, V] // by slot and value; no list is empty
	where  []*Query[K, V]
	// touched are those with events, while a batch is looked at.
	touched []*Query[K, V]
}

// addLocked gives a query its feed, and begins to hear for it.
func (qs *queries[K, V]) addLocked(q *Query[K, V]) error {
	if qs.sub == nil {
		qs.round++
		round := qs.round
		// It waits for mu before it looks at anything.
		sub, err := q.r.subscribe("queries", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			qs.mu.Lock()
			defer qs.mu.Unlock()
			if qs.round == round && qs.sub != nil {
				qs.hearLocked(q.r, b)
			}
			return nil
		}), nil, nil)
		if err != nil {
			return err
		}
		qs.sub = sub
		qs.active = make(map[*Query[K, V]]struct{})
		qs.values = make(map[int]map[string][]*Query[K, V])
	}
	q.feed = listeners.NewFeed(&listeners.FeedOptions{MaxBytes: q.bytes, Upstream: qs.sub, Idle: q.idle})
	q.events, q.size = nil, 0 // of a first state that it did not hear the end of
	qs.active[q] = struct{}{}
	list := qs.listLocked(q)
	q.at, q.listed = len(list), true
	qs.setListLocked(q, append(list, q))
	return nil
}

// listLocked returns the list that a query belongs into.
func (qs *queries[K, V]) listLocked(q *Query[K, V]) []*Query[K, V] {
	if q.where != nil {
		return qs.where
	}
	return qs.values[q.slot][q.value]
}

func (qs *queries[K, V]) setListLocked(q *Query[K, V], list []*Query[K, V]) {
	switch {
	case q.where != nil:
		qs.where = list
	case len(list) == 0:
		delete(qs.values[q.slot], q.value)
		if len(qs.values[q.slot]) == 0 {
			delete(qs.values, q.slot)
		}
	default:
		if qs.values[q.slot] == nil {
			qs.values[q.slot] = make(map[string][]*Query[K, V])
		}
		qs.values[q.slot][q.value] = list
	}
}

// unlistLocked ends hearing for a query. Its feed stays until its listeners
// have ended.
func (qs *queries[K, V]) unlistLocked(q *Query[K, V]) {
	if !q.listed {
		return
	}
	q.listed = false
	list := qs.listLocked(q)
	last := len(list) - 1
	list[q.at], list[last].at = list[last], q.at
	list[last] = nil
	qs.setListLocked(q, list[:last])
}

// idle is called when the last listener of a query has ended.
func (q *Query[K, V]) idle() {
	qs := &q.r.queries
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q.idleLocked()
}

func (q *Query[K, V]) idleLocked() {
	if q.feed == nil || len(q.feed.Subscriptions()) > 0 {
		return // another one has come meanwhile
	}
	qs := &q.r.queries
	qs.unlistLocked(q)
	q.feed = nil
	delete(qs.active, q)
	if len(qs.active) == 0 {
		qs.sub.Close()
		qs.sub, qs.active, qs.values, qs.where, qs.touched = nil, nil, nil, nil, nil
	}
}

// failLocked ends a query that has panicked.
func (qs *queries[K, V]) failLocked(q *Query[K, V], at listeners.Position, p *listeners.PanicError) {
	q.failure = q.panicked(p)
	q.events = nil
	qs.unlistLocked(q)
	q.feed.Fail(at, q.failure)
}

// endQueries ends the listeners of all queries as Close does those of the
// region. The region takes no new ones.
func (r *Region[K, V]) endQueries(ctx context.Context) error {
	qs := &r.queries
	qs.mu.Lock()
	feeds := make([]*listeners.Feed, 0, len(qs.active))
	for q := range qs.active {
		feeds = append(feeds, q.feed)
	}
	qs.mu.Unlock()
	var err error
	for _, f := range feeds {
		if waitErr := endSubscriptions(ctx, f, fmt.Sprintf("region %q", r.name), r.grid.name); err == nil {
			err = waitErr
		}
	}
	return err
}

// hearLocked hands a batch of the region's feed on to those that it concerns.
func (qs *queries[K, V]) hearLocked(r *Region[K, V], b *listeners.Batch) {
	switch b.Kind {
	case listeners.Changes:
		for i := range b.Events {
			qs.changeLocked(r, &b.Events[i])
		}
		qs.sendLocked(b)
	case listeners.Reset, listeners.Snapshot, listeners.Live:
		qs.stateLocked(r, b)
	}
}

// sendLocked makes each query's part of a transaction a batch.
func (qs *queries[K, V]) sendLocked(b *listeners.Batch) {
	for i, q := range qs.touched {
		if len(q.events) > 0 {
			part := *b
			part.Events, part.Size = q.events, batchBytes+q.size
			q.events, q.size = nil, 0
			q.feed.Append(&part)
		}
		qs.touched[i] = nil
	}
	qs.touched = qs.touched[:0]
}

// changeLocked finds the queries that one event concerns.
func (qs *queries[K, V]) changeLocked(r *Region[K, V], e *listeners.Event) {
	before, after := entryOf[K, V](e.Before), entryOf[K, V](e.After)
	if e.Op == listeners.Truncate {
		for q := range qs.active {
			qs.addEventLocked(q, e, listeners.Truncate, nil, nil)
		}
		return
	}
	for slot, queries := range qs.values {
		old, ok := qs.valueLocked(r, slot, before, e.Position)
		if !ok {
			continue
		}
		now, ok := qs.valueLocked(r, slot, after, e.Position)
		if !ok {
			continue
		}
		if bytes.Equal(old, now) {
			if len(now) > 0 {
				qs.tellAllLocked(queries[string(now)], e, listeners.Update, before, after)
			}
			continue
		}
		if len(old) > 0 {
			qs.tellAllLocked(queries[string(old)], e, listeners.Delete, before, after)
		}
		if len(now) > 0 {
			qs.tellAllLocked(queries[string(now)], e, listeners.Create, before, after)
		}
	}
	// A query that fails goes, and the last one takes its place.
	for i := 0; i < len(qs.where); {
		q := qs.where[i]
		was, ok := qs.acceptsLocked(q, before, e.Position)
		if !ok {
			continue
		}
		is, ok := qs.acceptsLocked(q, after, e.Position)
		if !ok {
			continue
		}
		i++
		switch {
		case was && is:
			qs.addEventLocked(q, e, listeners.Update, before, after)
		case was:
			qs.addEventLocked(q, e, listeners.Delete, before, after)
		case is:
			qs.addEventLocked(q, e, listeners.Create, before, after)
		}
	}
}

func (qs *queries[K, V]) tellAllLocked(list []*Query[K, V], e *listeners.Event, op listeners.Op, before, after *entry[K, V]) {
	for _, q := range list {
		qs.addEventLocked(q, e, op, before, after)
	}
}

// addEventLocked adds an event to what a query is told of the batch.
func (qs *queries[K, V]) addEventLocked(q *Query[K, V], e *listeners.Event, op listeners.Op, before, after *entry[K, V]) {
	if !q.listed {
		return
	}
	if len(q.events) == 0 {
		qs.touched = append(qs.touched, q)
	}
	own := *e
	own.Op = op
	if op == listeners.Delete && after != nil && !bytes.Equal(before.id, after.id) {
		own.After = listeners.Record{} // the new key is not the one that leaves
	}
	q.events = append(q.events, own)
	q.size += eventBytes
	if before != nil {
		q.size += before.size
	}
	if after != nil {
		q.size += after.size
	}
}

// acceptsLocked reports whether an entry is in the set of a query with a
// function. Ok is false if the query has failed with that.
func (qs *queries[K, V]) acceptsLocked(q *Query[K, V], e *entry[K, V], at listeners.Position) (in, ok bool) {
	if e == nil {
		return false, true
	}
	defer func() {
		if v := recover(); v != nil {
			qs.failLocked(q, at, &listeners.PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	return q.where(e.key, e.val), true
}

// valueLocked returns the encoded index value of an entry, empty if it has
// none. Ok is false if the queries by that index have failed with that.
func (qs *queries[K, V]) valueLocked(r *Region[K, V], slot int, e *entry[K, V], at listeners.Position) (value []byte, ok bool) {
	switch {
	case e == nil:
		return nil, true
	case slot < len(e.places):
		return e.indexValue(slot), true
	}
	// It was written before the index was made.
	defer func() {
		if v := recover(); v != nil {
			p := &listeners.PanicError{Value: v, Stack: debug.Stack()}
			for q := range qs.active {
				if q.where == nil && q.slot == slot && q.listed {
					qs.failLocked(q, at, p)
				}
			}
		}
	}()
	return r.indexDefs()[slot].value(e.key, e.val), true
}

// stateLocked hands on the first state of a mirror, which comes in the feed
// because there may be listeners from before. It is one Reset, its rows, and
// one Live.
func (qs *queries[K, V]) stateLocked(r *Region[K, V], b *listeners.Batch) {
	if b.Kind == listeners.Snapshot {
		for i := range b.Events {
			qs.changeLocked(r, &b.Events[i])
		}
		return
	}
	for i := range qs.touched {
		qs.touched[i] = nil
	}
	qs.touched = qs.touched[:0]
	for q := range qs.active {
		rows := q.events
		q.events, q.size = nil, 0
		if b.Kind == listeners.Live && q.listed {
			q.tellRows(b, rows)
		}
	}
}

func (q *Query[K, V]) tellRows(b *listeners.Batch, rows []listeners.Event) {
	t := telling{source: b.Source, at: b.Position, tx: b.Tx, emit: func(b *listeners.Batch) error {
		q.feed.Append(b)
		return nil // so the errors below are nil
	}}
	_ = t.begin()
	for _, e := range rows {
		e.Op = listeners.Read
		size := eventBytes
		if row := entryOf[K, V](e.After); row != nil {
			size += row.size
		}
		_ = t.row(e, size)
	}
	_ = t.end()
}

// entryOf returns the entry that a record of a region's own event is, nil if
// it is absent.
func entryOf[K comparable, V any](r listeners.Record) *entry[K, V] {
	e, _ := r.Row().(*entry[K, V])
	return e
}
