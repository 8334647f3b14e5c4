package grid

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// Forever is the duration of an entry that stays until it is deleted, whatever
// [RegionOptions].TTL says.
const Forever time.Duration = math.MaxInt64

const (
	// sweepRows is how many entries leave in one batch at most.
	sweepRows = 1000
	// sweepPause is how long a sweep waits after the one before, so that
	// entries that end one after another leave together.
	sweepPause = time.Millisecond
)

// limits are what [RegionOptions] say of the stay of entries; zero for none.
type limits struct {
	ttl, idle time.Duration
	max       int
}

func newLimits[V any](opts *RegionOptions[V]) (limits, error) {
	l := limits{ttl: opts.TTL, idle: opts.Idle, max: opts.MaxEntries}
	var errs []error
	if l.ttl < 0 {
		errs = append(errs, fmt.Errorf("the TTL is %s: use 0 or Forever for none", l.ttl))
	}
	if l.idle < 0 {
		errs = append(errs, fmt.Errorf("the Idle time is %s: use 0 for none", l.idle))
	}
	if l.max < 0 {
		errs = append(errs, fmt.Errorf("MaxEntries is %d: use 0 for no limit", l.max))
	}
	if l.ttl == Forever {
		l.ttl = 0
	}
	return l, errors.Join(errs...)
}

func (l *limits) any() bool { return *l != limits{} }

// lives are the lives of a region's entries, under its mu.
type lives[K comparable, V any] struct {
	due ranking[K, V] // those that end by themselves
	use ranking[K, V] // all of a region with MaxEntries

	sweeping bool  // the sweeper runs; it ends when nothing can be due
	armed    int64 // until when it waits
	nudge    chan struct{}
	stop     context.CancelFunc // of the first sweeper on; nil before
	sweepers sync.WaitGroup
	ctx      context.Context //nolint:containedctx // ends with Close
}

func newLives[K comparable, V any]() lives[K, V] {
	return lives[K, V]{
		due: ranking[K, V]{which: byDue}, use: ranking[K, V]{which: byUse},
		nudge: make(chan struct{}, 1),
	}
}

// clock is what entries' times are measured by: it does not jump when somebody
// sets the system's.
func (r *Region[K, V]) clock() int64 { return r.clockAt(time.Now()) }

func (r *Region[K, V]) clockAt(at time.Time) int64 { return int64(at.Sub(r.opened)) }

// limit gives an entry that nobody else knows yet its life, with a duration of
// its own unless that is zero.
func (r *Region[K, V]) limit(e *entry[K, V], own time.Duration) {
	if own == 0 && !r.limits.any() {
		return
	}
	if e.life == nil {
		e.life = new(life[K, V])
		e.size += lifeBytes[K, V]()
	}
	e.life.ttl = r.limits.ttl
	switch {
	case own == Forever:
		e.life.ttl = 0
	case own != 0:
		e.life.ttl = own
	}
}

// over reports whether an entry is there no more, though its delete may not be
// committed yet.
func (r *Region[K, V]) over(e *entry[K, V], now int64) bool {
	return e.life != nil && e.life.over(now, r.limits.idle)
}

// use reports whether an entry of this view is still there, and takes note
// that it is used.
func (r *Region[K, V]) use(e *entry[K, V], v *view[K, V], now int64) bool {
	l := e.life
	if l == nil {
		return true
	}
	if !l.touch(now, r.limits.idle) {
		return false
	}
	if r.limits.max > 0 {
		l.stamp(read(v.position.Commit))
	}
	return true
}

// settleLocked puts the new version of an entry into the place of the old one,
// nil for none, when nothing can fail any more and nobody sees the new one yet.
func (r *Region[K, V]) settleLocked(before, after *entry[K, V], now int64) {
	if before != nil && before.life != nil {
		r.lives.due.remove(before.life)
		r.lives.use.remove(before.life)
	}
	if after == nil || after.life == nil {
		return
	}
	l := after.life
	l.entry, l.until = after, never
	if l.ttl > 0 {
		l.until = later(now, l.ttl)
	}
	l.seen.Store(now)
	l.used.Store(written(after.pos.Commit))
	if due := l.due(r.limits.idle); due != never {
		r.lives.due.add(l, uint64(due))
	}
	if r.limits.max > 0 {
		r.lives.use.add(l, l.used.Load())
	}
}

// dueLocked takes entries whose time is up out of the rankings, in the order of
// their ends, n at most.
func (r *Region[K, V]) dueLocked(now int64, n int) []*entry[K, V] {
	var due []*entry[K, V]
	for len(due) < n {
		l := r.lives.due.first(func(l *life[K, V]) uint64 {
			if l.over(now, r.limits.idle) {
				return 0
			}
			return uint64(l.due(r.limits.idle))
		})
		if l == nil || !l.over(now, r.limits.idle) {
			break
		}
		r.lives.due.remove(l)
		r.lives.use.remove(l)
		due = append(due, l.entry)
	}
	return due
}

// evictLocked deletes from a transaction of this many entries, which is about to
// be committed with this position, what is more than the region may hold. It
// returns the batch that says so, nil if there is none. What has to leave anyway
// leaves first.
func (r *Region[K, V]) evictLocked(txn *dbTxn[K, V], length int, pos listeners.Position, at time.Time) *listeners.Batch {
	excess := length - r.limits.max
	if r.limits.max == 0 || excess <= 0 {
		return nil
	}
	victims := r.dueLocked(r.clockAt(at), excess)
	expired := len(victims)
	for len(victims) < excess {
		l := r.lives.use.first(func(l *life[K, V]) uint64 { return l.used.Load() })
		if l == nil {
			break
		}
		r.lives.due.remove(l)
		r.lives.use.remove(l)
		victims = append(victims, l.entry)
	}
	b := r.removal(txn, victims, pos, at)
	for i := range b.Events {
		if i >= expired {
			b.Events[i].Cause = listeners.CauseEvict
		}
	}
	return b
}

// removal deletes entries in a transaction and returns the batch, with the
// position that follows this one, and [listeners.CauseExpire].
func (r *Region[K, V]) removal(txn *dbTxn[K, V], victims []*entry[K, V], after listeners.Position, at time.Time) *listeners.Batch {
	pos := following(after)
	events, size := make([]listeners.Event, len(victims)), batchBytes
	for i, e := range victims {
		txn.remove(e)
		pos.Index = uint32(i)
		size += r.describe(&events[i], e, nil, pos)
		events[i].Cause = listeners.CauseExpire
	}
	return &listeners.Batch{
		Kind: listeners.Changes, Source: r.grid.name, Tx: listeners.Tx{ID: pos.Commit, Time: at},
		Events: events, Position: pos, First: true, Last: true, Size: size,
	}
}

// expireLocked commits the deletes of these entries, which are out of the
// rankings already, as one transaction.
func (r *Region[K, V]) expireLocked(due []*entry[K, V], at time.Time) {
	if len(due) == 0 {
		return
	}
	now := r.view.Load()
	txn := r.db.begin()
	b := r.removal(txn, due, now.position, at)
	txn.commit()
	r.show(now.length-len(due), b.Position)
	r.feed.Append(b)
}

// buryLocked commits the deletes of those of the entries whose time is up, so
// that what is written next to their keys comes after their end.
func (r *Region[K, V]) buryLocked(at time.Time, entries func(yield func(*entry[K, V]) bool)) {
	if r.closed || r.lives.due.Len() == 0 {
		return
	}
	var due []*entry[K, V]
	now := r.clockAt(at)
	for e := range entries {
		// Two writes may come upon one entry. Once it is out of the ranking, it is
		// among those that are due.
		if e != nil && r.over(e, now) && r.lives.due.holds(e.life) {
			r.lives.due.remove(e.life)
			r.lives.use.remove(e.life)
			due = append(due, e)
		}
	}
	r.expireLocked(due, at)
}

// expireDue commits the deletes of all whose time is up.
func (r *Region[K, V]) expireDue() {
	at := time.Now()
	for r.expireSome(at) {
	}
}

// expireSome commits one batch of such deletes and reports whether there may
// be more.
func (r *Region[K, V]) expireSome(at time.Time) (more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.expireSomeLocked(at)
}

func (r *Region[K, V]) expireSomeLocked(at time.Time) (more bool) {
	if r.closed {
		return false
	}
	due := r.dueLocked(r.clockAt(at), sweepRows)
	r.expireLocked(due, at)
	return len(due) == sweepRows
}

// scheduleLocked sees to it that somebody comes when the next entry's time is
// up. It follows each commit.
func (r *Region[K, V]) scheduleLocked() {
	l := &r.lives
	switch {
	case l.due.Len() == 0:
	case !l.sweeping:
		if l.stop == nil {
			l.ctx, l.stop = context.WithCancel(context.Background()) //nolint:gosec // endSweeper calls it
		}
		l.sweeping = true
		l.sweepers.Go(r.sweep)
	case int64(l.due.items[0].ranks[byDue]) < l.armed:
		select {
		case l.nudge <- struct{}{}:
		default:
		}
	}
}

// sweep runs on a goroutine of its own while there are entries that end by
// themselves. [Region.Close] ends it and waits for it.
func (r *Region[K, V]) sweep() {
	ctx := r.lives.ctx
	timer := time.NewTimer(never)
	defer timer.Stop()
	var swept int64
	for {
		next, ok := r.arm()
		if !ok {
			return
		}
		if wait := max(next, later(swept, sweepPause)) - r.clock(); wait > 0 {
			timer.Reset(time.Duration(wait))
			select {
			case <-timer.C:
			case <-r.lives.nudge:
				continue
			case <-ctx.Done():
				return
			}
		}
		// Outside the lock, as every writer waits.
		if err := r.feed.Reserve(ctx); err != nil {
			return
		}
		r.expireSome(time.Now())
		swept = r.clock()
	}
}

// arm returns until when the sweeper is to wait. If it reports false, the
// sweeper ends, and the next entry starts another.
func (r *Region[K, V]) arm() (next int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.lives
	if r.closed || l.due.Len() == 0 {
		l.sweeping = false
		return 0, false
	}
	l.armed = int64(l.due.items[0].ranks[byDue])
	return l.armed, true
}

// endSweeper follows the region's closing.
func (r *Region[K, V]) endSweeper() {
	r.mu.Lock()
	stop := r.lives.stop
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
	r.lives.sweepers.Wait()
}

// clear forgets all entries of a region that was cleared.
func (l *lives[K, V]) clear() { l.due.items, l.use.items = nil, nil }

// renew puts the copies of entries that a new index has made into the place of
// those that they were copied from.
func (l *lives[K, V]) renew(now *view[K, V]) {
	if l.due.Len() == 0 && l.use.Len() == 0 {
		return
	}
	now.all(func(e *entry[K, V]) bool {
		if e.life != nil {
			e.life.entry = e
		}
		return true
	})
}
