package grid

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// maxGroup is how many single writes go into one transaction of the database at most. A
// group costs comparisons in the square of its size.
const maxGroup = 64

// A queue holds the single writes that nobody commits yet. Who adds the first
// one leads: it takes the region's lock and commits all that have gathered
// until it got it. The next to come leads the next group, so a leader that waits
// for the lock is what makes groups, and a lone writer never waits for any.
type queue[K comparable, V any] struct {
	mu      sync.Mutex
	waiting []*op[K, V]
	spare   []*op[K, V] // the memory of the group before; under the region's mu
	grouped atomic.Bool // whether the group before had several writers
}

// add reports whether the caller leads. If not, o.done tells it of its end.
func (q *queue[K, V]) add(o *op[K, V]) (leads bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, o)
	return len(q.waiting) == 1
}

// gather lets other goroutines run for as long as that brings more writers, a
// few rounds at most.
func (q *queue[K, V]) gather() {
	for have := 0; have < maxGroup; {
		runtime.Gosched()
		q.mu.Lock()
		now := len(q.waiting)
		q.mu.Unlock()
		if now == have {
			return
		}
		have = now
	}
}

func (q *queue[K, V]) take() []*op[K, V] {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.waiting
	q.waiting = q.spare[:0]
	return taken
}

// lead commits what waits. The first op taken is the leader's own.
//
// If the group before had several writers, they have just been woken and are
// likely to come again: a leader that went first would leave them behind and
// commit alone each time.
func (r *Region[K, V]) lead() {
	if r.queue.grouped.Load() {
		r.queue.gather()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.queue.take()
	size := maxGroup
	if r.unique() {
		size = 1 // so that a look into the state before finds every value
	}
	for group := range slices.Chunk(taken, size) {
		r.commitLocked(group)
	}
	for _, o := range taken[1:] {
		o.done <- struct{}{}
	}
	r.queue.grouped.Store(len(taken) > 1)
	clear(taken)
	r.queue.spare = taken
}
