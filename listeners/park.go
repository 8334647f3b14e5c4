package listeners

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Parked is a batch that a listener could not handle, or one that waits
// behind such a one, see [RetryPolicy].Park.
type Parked struct {
	ID uint64 // of this subscription; the first is 1
	// Batch is what the listener was or is to be given. It is read-only.
	Batch *Batch
	// Err is what the listener last returned for it (of a panic a [PanicError]);
	// nil if it was never handed over, or only in a group.
	Err      error
	Attempts int       // how often it was handed over
	Since    time.Time // when it was parked
	// Behind is the ID of an earlier one that concerns one of its keys and has to
	// go first; 0 if there is none.
	Behind uint64
	// Stale says that a Reset of its collections came after it: the state that was
	// told since contains it. It can only be discarded.
	Stale bool
}

// ErrNotParked says that a subscription has parked no batch of an ID, or no
// longer.
var ErrNotParked = errors.New("listeners: not parked")

// ErrStale says that a parked batch is older than the state that its listener
// was told since.
var ErrStale = errors.New("listeners: parked before a reset, whose snapshot contains it; discard it")

// A ParkedBehindError says that an earlier parked batch has to go first.
type ParkedBehindError struct{ ID, Behind uint64 }

// Error implements error.
func (e *ParkedBehindError) Error() string {
	return fmt.Sprintf("parked batch %d concerns a key of %d, which was parked before; retry or discard %d first", e.ID, e.Behind, e.Behind)
}

// A ParkFullError says that a batch could not be parked. It was not handled.
type ParkFullError struct {
	Batches int   // that are parked
	Bytes   int64 // of them
	Err     error // of the listener; nil for a batch that had to wait behind a parked one
}

// Error implements error.
func (e *ParkFullError) Error() string {
	s := fmt.Sprintf("no room to park the batch beside %d of %d bytes; retry or discard those, or raise ParkMax or ParkBytes", e.Batches, e.Bytes)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the listener's error.
func (e *ParkFullError) Unwrap() error { return e.Err }

// A ParkedError is what [Subscription.Wait] returns for a position that a parked
// batch holds back.
type ParkedError struct {
	Subscription string
	ID           uint64
	Position     Position
	Err          error // of the listener
}

// Error implements error.
func (e *ParkedError) Error() string {
	return fmt.Sprintf("subscription %q has parked the batch at %s; retry or discard parked batch %d: %v", e.Subscription, e.Position, e.ID, e.Err)
}

// Unwrap returns the listener's error.
func (e *ParkedError) Unwrap() error { return e.Err }

// Parked returns the batches that are parked, in the order in which they were,
// which is the order of each key. It is empty without [RetryPolicy].Park. The
// list outlives the subscription, in memory.
//
// A batch that concerns a key of a parked one is parked behind it without being
// handed over, and so are the later parts of a transaction of which a part is
// parked: a key's events never swap. An update of the key concerns both keys; a
// truncate, a message and a row without a whole key concern all of their
// collection. Rows that are read again while changes come (a Snapshot without a
// Reset) wait as changes do. A Reset of its collections makes a parked batch stale; of a batch
// that only in part belongs to them, that part becomes one of its own.
func (s *Subscription) Parked() []Parked {
	l := s.lot()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Parked, len(l.list))
	for i, e := range l.list {
		out[i] = e.Parked
	}
	if l.policy.ParkUnordered {
		return out
	}
	before := newQueue()
	for i, e := range l.list {
		if e.Stale {
			continue
		}
		if before.has(e) {
			out[i].Behind = l.blockerOf(i)
		}
		before.add(e)
	}
	return out
}

// RetryParked hands a parked batch over once more, between two others, on the
// subscription's goroutine, and returns what the listener did. If that was nil,
// the batch is no longer parked, and those that waited behind it and nothing else
// follow in order, as new batches would, until one fails: that one is an entry
// with an error then. Other errors are [ErrNotParked], [ErrStale], a
// [ParkedBehindError], the cause of ctx's end, and one that wraps [ErrClosed] or
// what [Subscription.Err] returns after the end.
//
// It waits for its turn: for the batch that the listener is at with its
// attempts, a snapshot, the end of a pause. After ctx's end it waits no more; an
// attempt that has begun goes on, and [Subscription.Parked] tells how it ended.
// A listener cannot retry with the context it was called with.
func (s *Subscription) RetryParked(ctx context.Context, id uint64) error {
	l := s.lot()
	if l == nil {
		return s.parkedErr(id, ErrNotParked)
	}
	if own, _ := ctx.Value(callerKey{}).(*Subscription); own == s {
		return s.parkedErr(id, errors.New("its listener waits for itself; retry on another goroutine"))
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r := &retryRequest{id: id, done: make(chan error, 1)}
	if err := l.ask(r); err != nil {
		return s.parkedErr(id, err)
	}
	s.nudge()
	var err error
	select {
	case err = <-r.done:
	case <-ctx.Done():
		l.withdraw(r)
		return context.Cause(ctx)
	case <-s.done:
		select {
		case err = <-r.done:
		default:
			if err = s.Err(); err == nil {
				err = ErrClosed
			}
		}
	}
	return s.parkedErr(id, err)
}

// DiscardParked gives a parked batch up, and then counts it as handled. Those
// that waited behind it and nothing else are handed over next. It does not
// block. Its errors are [ErrNotParked] and that the batch is being retried.
func (s *Subscription) DiscardParked(id uint64) error {
	l := s.lot()
	if l == nil {
		return s.parkedErr(id, ErrNotParked)
	}
	if err := l.discard(id); err != nil {
		return s.parkedErr(id, err)
	}
	s.move()
	s.nudge()
	return nil
}

func (s *Subscription) parkedErr(id uint64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("subscription %q, parked batch %d: %w", s.name, id, err)
}

// nudge has the subscription's goroutine look for what to do besides batches.
func (s *Subscription) nudge() {
	select {
	case s.wakeup <- struct{}{}:
	default: // it will look
	}
}

func (s *Subscription) lot() *lot {
	if s.relay == nil {
		return nil
	}
	return s.relay.lot
}

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
