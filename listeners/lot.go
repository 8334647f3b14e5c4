package listeners

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// A lot is where batches are parked. Batches enter it on the goroutine that
// hands them over, and leave it on the subscription's, or by discard.
type lot struct {
	policy *RetryPolicy

	mu     sync.Mutex
	list   []*entry
	claims claimSet // of those that are not stale
	bytes  int64
	ids    uint64
	asked  []*retryRequest
	busy   *entry // being handed over
	loose  bool   // one that waited may be free

	holds *entry // whose before is the lowest; nil if none holds the position back
}

type entry struct {
	Parked

	claims []claim
	chain  *chain   // of its transaction; nil if that came in one
	before Position // behind which it was
	waits  bool     // only behind another
}

type retryRequest struct {
	id   uint64
	done chan error // of capacity 1
}

func newLot(p *RetryPolicy) *lot {
	if p == nil || !p.Park {
		return nil
	}
	return &lot{policy: p, claims: newClaimSet()}
}

// A chain stands for a transaction that comes in parts, at one lane.
type chain struct{ _ byte } // so that no two have one address

// link says of which transactions tasks are parts. A group may hold the end of
// one and the beginning of another, and its tasks are looked at more than once.
func (l *lane) link(tasks []task) {
	for i := range tasks {
		t := &tasks[i]
		switch b := t.batch; {
		case b.Kind != Changes, b.First && b.Last:
			l.chain = nil
		case b.First, l.chain == nil:
			l.chain = new(chain)
		}
		t.chain = l.chain
	}
}

// behind parks a task if it has to wait behind another.
func (l *lot) behind(t *task) (bool, error) {
	b := t.batch
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 || !ofRows(b) || l.policy.ParkUnordered {
		return false, nil
	}
	claims := claimsOf(b)
	if !l.claims.touches(claims) && !l.has(t.chain) {
		return false, nil
	}
	return true, l.add(t, claims, nil)
}

// ofRows reports whether a batch may have to wait behind a parked one. Rows that
// are read again while changes come have no Reset before them; behind one, of its
// collections nothing is parked that is not stale.
func ofRows(b *Batch) bool { return b.Kind == Changes || b.Kind == Snapshot }

// part appends to rest the tasks of a group that have to wait behind what is
// parked, or behind another of rest, and to front the others.
func (l *lot) part(tasks, front, rest []task) (_, _ []task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 || l.policy.ParkUnordered {
		return append(front, tasks...), rest
	}
	waiting := newQueue()
	for _, t := range tasks {
		e := &entry{claims: claimsOf(t.batch), chain: t.chain}
		if !ofRows(t.batch) || !l.claims.touches(e.claims) && !l.has(e.chain) && !waiting.has(e) {
			front = append(front, t)
			continue
		}
		waiting.add(e)
		rest = append(rest, t)
	}
	return front, rest
}

// park parks a task that failed.
func (l *lot) park(t *task, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.add(t, claimsOf(t.batch), cause)
}

func (l *lot) add(t *task, claims []claim, cause error) error {
	size := int64(t.batch.Size)
	if len(l.list) > 0 && (len(l.list) >= l.policy.ParkMax || l.bytes+size > l.policy.ParkBytes) {
		return &ParkFullError{Batches: len(l.list), Bytes: l.bytes, Err: cause}
	}
	l.ids++
	e := &entry{
		Parked: Parked{ID: l.ids, Batch: t.batch, Err: cause, Attempts: t.attempts, Since: time.Now()},
		claims: claims, chain: t.chain, before: t.before, waits: cause == nil,
	}
	l.list = append(l.list, e)
	l.claims.add(claims)
	l.bytes += size
	l.changed()
	return nil
}

// has reports whether a part of a chain is parked.
func (l *lot) has(c *chain) bool {
	return c != nil && slices.ContainsFunc(l.list, func(e *entry) bool { return !e.Stale && e.chain == c })
}

// blockerOf returns the ID of the first one that has to go before the i-th, 0
// if there is none.
func (l *lot) blockerOf(i int) uint64 {
	e := l.list[i]
	if e.Stale || l.policy.ParkUnordered {
		return 0
	}
	its := newQueue()
	its.add(e)
	for _, o := range l.list[:i] {
		if !o.Stale && its.has(o) {
			return o.ID
		}
	}
	return 0
}

// A queue is what entries concern, and of which transactions they are parts.
type queue struct {
	claims claimSet
	chains map[*chain]bool
}

func newQueue() queue { return queue{newClaimSet(), make(map[*chain]bool)} }

func (q queue) add(e *entry) {
	q.claims.add(e.claims)
	if e.chain != nil {
		q.chains[e.chain] = true
	}
}

func (q queue) has(e *entry) bool { return q.chains[e.chain] || q.claims.touches(e.claims) }

// changed is called when the list is another.
func (l *lot) changed() {
	l.holds = nil
	if l.policy.ParkReleases {
		return
	}
	for _, e := range l.list {
		if !e.Stale && (l.holds == nil || e.before.Compare(l.holds.before) < 0) {
			l.holds = e
		}
	}
}

// limit returns the position that Stored must not pass, false if there is none.
func (l *lot) limit() (Position, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds == nil {
		return Position{}, false
	}
	return l.holds.before, true
}

// holding returns the batch that keeps p from being reached until somebody
// retries or discards it.
func (l *lot) holding(p Position) (Parked, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds == nil || l.busy != nil || l.loose || len(l.asked) > 0 || l.holds.before.Compare(p) >= 0 {
		return Parked{}, false
	}
	return l.holds.Parked, true
}

// extent returns how many batches are parked, their bytes, and since when the
// oldest of them is committed.
func (l *lot) extent() (batches int, bytes int64, oldest time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if t := e.Batch.Tx.Time; !t.IsZero() && (oldest.IsZero() || t.Before(oldest)) {
			oldest = t
		}
	}
	return len(l.list), l.bytes, oldest
}

func (l *lot) index(id uint64) int {
	return slices.IndexFunc(l.list, func(e *entry) bool { return e.ID == id })
}

func (l *lot) ask(r *retryRequest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.index(r.id) < 0 {
		return ErrNotParked
	}
	l.asked = append(l.asked, r)
	return nil
}

func (l *lot) withdraw(r *retryRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = slices.DeleteFunc(l.asked, func(o *retryRequest) bool { return o == r })
}

func (l *lot) discard(id uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.index(id)
	if i < 0 {
		return ErrNotParked
	}
	if l.list[i] == l.busy {
		return errors.New("it is being retried; discard it if that fails")
	}
	l.drop(i)
	return nil
}

// drop takes the i-th off the list.
func (l *lot) drop(i int) {
	e := l.list[i]
	l.list = slices.Delete(l.list, i, i+1)
	l.bytes -= int64(e.Batch.Size)
	if !e.Stale {
		l.claims.remove(e.claims)
	}
	l.loose = true
	l.changed()
}

// next returns what to hand over: one that was asked for, with its request, or
// one that waited and is free. It answers requests that cannot be granted.
func (l *lot) next() (*entry, *retryRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// First those that waited: they come before what anybody asks for.
	if e := l.free(); e != nil {
		l.busy = e
		return e, nil
	}
	for len(l.asked) > 0 {
		r := l.asked[0]
		l.asked = slices.Delete(l.asked, 0, 1)
		i := l.index(r.id)
		switch {
		case i < 0:
			r.done <- ErrNotParked
		case l.list[i].Stale:
			r.done <- ErrStale
		default:
			if b := l.blockerOf(i); b != 0 {
				r.done <- &ParkedBehindError{ID: r.id, Behind: b}
				continue
			}
			l.busy = l.list[i]
			return l.busy, r
		}
	}
	return nil, nil
}

// free returns the first that waited and has nothing before it, nil if there is
// none.
func (l *lot) free() *entry {
	if !l.loose {
		return nil
	}
	before := newQueue()
	for _, e := range l.list {
		if e.Stale {
			continue
		}
		if e.waits && !before.has(e) {
			return e
		}
		before.add(e)
	}
	l.loose = false
	return nil
}

// idle reports whether next would find nothing to do.
func (l *lot) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked) == 0 && !l.loose
}

// tried takes note of how handing over the busy one ended.
func (l *lot) tried(t *task, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.busy
	l.busy = nil
	e.Attempts = t.attempts
	if err == nil {
		l.drop(slices.Index(l.list, e))
		return
	}
	e.Err, e.waits = err, false
}

// release gives up handing over the busy one, since the subscription ends.
func (l *lot) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = nil
}

// outdate makes stale what is parked of these collections, nil for all.
func (l *lot) outdate(collections []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 {
		return
	}
	concerned := func(e *Event) bool { return collections == nil || slices.Contains(collections, e.Schema.Collection()) }
	var list []*entry
	for _, e := range l.list {
		list = append(list, e)
		if e.Stale {
			continue
		}
		old := e.Batch.eventsThat(concerned)
		if len(old) == 0 && collections != nil {
			continue
		}
		l.claims.remove(e.claims)
		l.loose = true
		if len(old) == len(e.Batch.Events) {
			e.Stale = true
			continue
		}
		was := *e.Batch
		stale, rest := was, was
		stale.Events = old
		stale.Size = was.Size / len(was.Events) * len(old)
		rest.Events = was.eventsThat(func(e *Event) bool { return !concerned(e) })
		rest.Size = was.Size - stale.Size
		l.ids++
		gone := *e
		gone.Parked.ID, gone.Parked.Batch, gone.Parked.Stale = l.ids, &stale, true
		e.Batch, e.claims = &rest, claimsOf(&rest)
		l.claims.add(e.claims)
		list = append(list, &gone)
	}
	l.list = list
	l.changed()
}
