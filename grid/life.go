package grid

import (
	"container/heap"
	"math"
	"sync/atomic"
	"time"
	"unsafe"
)

// never and gone are times of a region's clock that it does not show.
const (
	never = math.MaxInt64
	gone  = -1
)

// A life is what limits the stay of one version of an entry, which has none if
// nothing does. Times are nanoseconds of the region's clock.
//
// Readers change only seen and used, and look at no more than these and until,
// which is written before they can see the entry. The rest is under the
// region's mu.
type life[K comparable, V any] struct {
	until int64         // when its time to live is up
	seen  atomic.Int64  // when it was last used; gone once somebody missed it
	used  atomic.Uint64 // when it was last used, in moments of transactions

	entry *entry[K, V]
	ttl   time.Duration // that it begins with when it is committed
	ranks [2]uint64     // in the two rankings, of the last time that they looked
	slots [2]int        // in them, from 1; 0 if it is in none
}

// A moment is twice the number of the transactions so far, and one more for
// what was read after the last of them.
func written(commit uint64) uint64 { return 2 * commit }
func read(commit uint64) uint64    { return 2*commit + 1 }

func later(t int64, d time.Duration) int64 {
	if t > never-int64(d) {
		return never
	}
	return t + int64(d)
}

// due returns when the time is up, unless the entry is used before that.
func (l *life[K, V]) due(idle time.Duration) int64 {
	if idle == 0 {
		return l.until
	}
	return min(l.until, later(l.seen.Load(), idle))
}

// over reports whether the time is up. Who was told so was told for all: a
// reader that is slow, and whose clock is older, can no longer use the entry.
func (l *life[K, V]) over(now int64, idle time.Duration) bool {
	if idle == 0 {
		return now >= l.until
	}
	for {
		seen := l.seen.Load()
		if seen == gone {
			return true
		}
		if now < min(l.until, later(seen, idle)) {
			return false
		}
		if l.seen.CompareAndSwap(seen, gone) {
			return true
		}
	}
}

// touch takes note of a use, to within a thousandth of idle: so that readers of
// one entry do not hinder each other. It reports false if the time is up.
func (l *life[K, V]) touch(now int64, idle time.Duration) bool {
	for !l.over(now, idle) {
		seen := l.seen.Load()
		if idle == 0 || seen != gone && now-seen <= int64(idle)>>10 || seen != gone && l.seen.CompareAndSwap(seen, now) {
			return true
		}
	}
	return false
}

// stamp takes note of a use at this moment.
func (l *life[K, V]) stamp(moment uint64) {
	for was := l.used.Load(); was < moment && !l.used.CompareAndSwap(was, moment); {
		was = l.used.Load()
	}
}

// A ranking is a heap of lives. A rank may be older than what it stands for,
// which only grows: who takes the first one looks again.
type ranking[K comparable, V any] struct {
	which int // of the two
	items []*life[K, V]
}

// The two rankings.
const (
	byDue = iota
	byUse
)

// Len implements [heap.Interface].
func (q *ranking[K, V]) Len() int { return len(q.items) }

// Less implements [heap.Interface]. Of two of the same rank, the one that was
// written first is first.
func (q *ranking[K, V]) Less(i, j int) bool {
	a, b := q.items[i], q.items[j]
	if a.ranks[q.which] != b.ranks[q.which] {
		return a.ranks[q.which] < b.ranks[q.which]
	}
	return a.entry.pos.Compare(b.entry.pos) < 0
}

// Swap implements [heap.Interface].
func (q *ranking[K, V]) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.items[i].slots[q.which], q.items[j].slots[q.which] = i+1, j+1
}

// Push implements [heap.Interface].
func (q *ranking[K, V]) Push(x any) {
	l := x.(*life[K, V]) //nolint:errcheck // add pushes nothing else
	l.slots[q.which] = len(q.items) + 1
	q.items = append(q.items, l)
}

// Pop implements [heap.Interface].
func (q *ranking[K, V]) Pop() any {
	last := len(q.items) - 1
	l := q.items[last]
	q.items[last] = nil
	q.items = q.items[:last]
	l.slots[q.which] = 0
	return l
}

func (q *ranking[K, V]) add(l *life[K, V], rank uint64) {
	l.ranks[q.which] = rank
	heap.Push(q, l)
}

func (q *ranking[K, V]) remove(l *life[K, V]) {
	if at := l.slots[q.which]; at > 0 {
		heap.Remove(q, at-1)
	}
}

// holds reports whether a life is in it.
func (q *ranking[K, V]) holds(l *life[K, V]) bool { return l.slots[q.which] > 0 }

// first returns the first life, nil if there is none, after rank has told for
// each that came to be first where it belongs by now.
func (q *ranking[K, V]) first(rank func(*life[K, V]) uint64) *life[K, V] {
	for len(q.items) > 0 {
		l := q.items[0]
		now := rank(l)
		if now <= l.ranks[q.which] {
			return l
		}
		l.ranks[q.which] = now
		heap.Fix(q, 0)
	}
	return nil
}

// lifeBytes is what a life takes, with its places in the rankings.
func lifeBytes[K comparable, V any]() int { return int(unsafe.Sizeof(life[K, V]{})) + 16 }
