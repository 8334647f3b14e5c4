package listeners

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"time"
)

// How many batches may wait for one worker.
const (
	laneQueue = 64
	laneGroup = 4096 // with a GroupPolicy of as many events
)

// An item is a batch that was taken off the feed, until everything before it is
// handled, too.
type item struct {
	kind     Kind
	position Position
	left     int  // parts of it that are not handled
	told     bool // to the listener
	skipped  bool // it was not for this subscription
	last     bool // [Batch].Last
	size     int64
	since    time.Time // its commit
}

// replaces reports whether who has taken note of it need not have done so of the
// item before. The end of a transaction is a position to go on from, its middle
// is none, so a middle does not replace an end.
func (it *item) replaces(before *item) bool {
	quiet := !it.told && !before.told && it.kind == Changes && before.kind == Changes
	return quiet && it.skipped == before.skipped && it.position.Compare(before.position) >= 0 && (it.last || !before.last)
}

// start starts the workers. They end with the subscription's context, or by
// stop, which waits for them.
func (r *relay) start() {
	for _, l := range r.lanes {
		r.wg.Go(l.run)
	}
}

// stop returns when the workers have handled what they were given, or given up.
func (r *relay) stop() {
	if !r.stopped {
		r.stopped = true
		for _, l := range r.lanes {
			close(l.queue)
		}
	}
	r.wg.Wait()
}

// run is a worker.
func (l *lane) run() {
	r := l.relay
	defer r.leave()
	for {
		tasks := l.gather()
		if tasks == nil {
			return
		}
		if err := l.handle(tasks); err != nil {
			if !errors.Is(err, errFeedEnded) {
				r.s.cancel(err)
			}
			return
		}
		clear(tasks) // or else the last ones would stay in memory
	}
}

// leave tells the dispatcher that a worker has ended.
func (r *relay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.left {
		r.left = true
		close(r.gone)
	}
}

// finish takes note of tasks that were handled or parked.
func (r *relay) finish(tasks []task) {
	if len(r.lanes) == 0 {
		return
	}
	r.mu.Lock()
	for _, t := range tasks {
		if t.item != nil {
			t.item.left--
		}
	}
	r.settle()
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// settle moves the subscription's position as far as everything is handled.
func (r *relay) settle() {
	for len(r.items) > 0 && r.items[0].left == 0 {
		it := r.items[0]
		r.items[0] = nil
		r.items = r.items[1:]
		r.bytes -= it.size
		if it.skipped {
			r.s.skipTo(it.position, it.last)
		} else {
			r.s.handled(it.kind, it.position, it.told, it.last)
		}
	}
}

// enqueue adds a batch behind those under way.
func (r *relay) enqueue(it *item) (before Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.items) == 0 {
		r.reach = r.s.reach()
	}
	before = r.reach
	if !it.skipped || it.position.Compare(r.reach) > 0 {
		r.reach = it.position
	}
	// What is not told has no limit, so it must not take memory for each batch.
	for n := len(r.items); n > 0 && it.replaces(r.items[n-1]); n-- {
		r.items[n-1] = nil
		r.items = r.items[:n-1]
	}
	r.items = append(r.items, it)
	r.bytes += it.size
	r.settle()
	return before
}

// skip is Subscription.pass while something is under way.
func (r *relay) skip(p Position, whole bool) {
	if len(r.lanes) == 0 {
		r.s.skipTo(p, whole)
		return
	}
	r.enqueue(&item{position: p, skipped: true, last: whole})
}

// idle waits until nothing is under way. Then the subscription's goroutine is
// the only one that may call the listener.
func (r *relay) idle() error {
	if len(r.lanes) == 0 {
		return nil
	}
	return r.await(func() bool { return len(r.items) == 0 })
}

// room waits until one more batch may be under way.
func (r *relay) room() error {
	return r.await(func() bool { return len(r.items) == 0 || (len(r.items) < r.most && r.bytes < r.limit) })
}

func (r *relay) await(ok func() bool) error {
	for urged := false; ; urged = true {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return nil
		}
		if !urged && r.group != nil && r.group.MaxWait > 0 {
			for _, l := range r.lanes {
				if err := r.send(l, task{}); err != nil {
					return err
				}
			}
			continue
		}
		select {
		case <-r.changed:
		case <-r.s.ctx.Done():
			return r.over()
		case <-r.gone:
			return r.over()
		}
	}
}

// send gives a worker a task; one without a batch asks it not to wait for more.
func (r *relay) send(l *lane, t task) error {
	select {
	case l.queue <- t:
		return nil
	case <-r.s.ctx.Done():
	case <-r.gone:
	}
	return r.over()
}

func (r *relay) over() error {
	if r.s.ctx.Err() != nil {
		return context.Cause(r.s.ctx)
	}
	return errFeedEnded
}

// dispatch gives the workers what split has made of a batch.
func (r *relay) dispatch(b *Batch) error {
	if err := r.room(); err != nil {
		return err
	}
	it := &item{kind: b.Kind, position: b.Position, told: true, last: b.Last, size: int64(b.Size), since: b.Tx.Time}
	for _, p := range r.parts {
		if p != nil {
			it.left++
		}
	}
	before := r.enqueue(it)
	for i, p := range r.parts {
		if p == nil {
			continue
		}
		r.parts[i] = nil
		if err := r.send(r.lanes[i], task{batch: p, item: it, before: before}); err != nil {
			return err
		}
	}
	return nil
}

// split shares a batch out by key, in r.parts. It reports false for one that is
// to be handed over whole, with nothing else under way.
func (r *relay) split(b *Batch) bool {
	clear(r.parts)
	switch {
	case b.Kind == Reset, b.Kind == Live:
		return false
	case len(r.lanes) == 1:
		r.parts[0] = b
		return true
	case b.Last && !b.First && r.own.open:
		return false
	}
	r.where = r.where[:0]
	clear(r.counts)
	for i := range b.Events {
		w, ok := r.worker(&b.Events[i])
		if !ok {
			return false
		}
		r.where = append(r.where, w)
		r.counts[w]++
	}
	some := false
	for w, l := range r.lanes {
		if b.First {
			l.open = false // the source has begun again
		}
		n := r.counts[w]
		if n == 0 && (!b.Last || !l.open) {
			continue
		}
		some = true
		var events []Event
		switch n {
		case 0:
		case len(b.Events):
			events = b.Events
		default:
			events = make([]Event, 0, n)
			for i, at := range r.where {
				if at == w {
					events = append(events, b.Events[i])
				}
			}
		}
		r.parts[w] = l.part(b, events)
	}
	if !some && b.Last {
		r.parts[0] = r.lanes[0].part(b, nil)
	}
	return true
}

// part returns the part of a batch that a worker gets.
func (l *lane) part(b *Batch, events []Event) *Batch {
	first := !l.open
	l.open = !b.Last
	if len(events) == len(b.Events) && first == b.First {
		return b
	}
	p := *b
	p.Events, p.First = events, first
	if len(b.Events) > 0 {
		p.Size = int(int64(b.Size) * int64(len(events)) / int64(len(b.Events)))
	}
	return &p
}

// worker returns the worker of an event's key. It reports false for an event
// that must not overtake others or be overtaken.
func (r *relay) worker(e *Event) (int, bool) {
	switch e.Op {
	case Truncate, Message:
		return 0, false
	default:
	}
	key, whole := appendIdentity(r.key[:0], e.Schema.Collection(), e.Key())
	r.key = key
	if !whole {
		return 0, false
	}
	if _, changed := e.ChangedKey(); changed {
		return 0, false
	}
	return int(maphash.Bytes(r.seed, key) % uint64(len(r.lanes))), true
}

// alone hands a batch over on the subscription's goroutine, when nothing else is
// under way, and ends what the workers have begun of its transaction.
func (r *relay) alone(b *Batch) error {
	if err := r.idle(); err != nil {
		return err
	}
	all := append([]*lane{&r.own}, r.lanes...)
	if b.Kind == Reset || b.Kind == Live || b.First {
		for _, l := range all {
			l.open = false
		}
	}
	if err := r.hand(r.own.part(b, b.Events)); err != nil {
		return err
	}
	clear(r.parts)
	for w, l := range r.lanes {
		if b.Last && l.open {
			r.parts[w] = l.part(b, nil)
		}
	}
	if !slices.ContainsFunc(r.parts, func(p *Batch) bool { return p != nil }) {
		r.s.handled(b.Kind, b.Position, true, b.Last)
		return nil
	}
	return r.dispatch(b)
}
