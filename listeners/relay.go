package listeners

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"sync"
	"time"
)

// A relay stands between a subscription and its listener if there is a
// RetryPolicy, a GroupPolicy or there are Workers.
type relay struct {
	s     *Subscription
	retry *RetryPolicy // nil for none
	lot   *lot         // nil unless retry parks
	group *GroupPolicy // nil for none
	limit int64        // bytes under way before the subscription's goroutine waits
	most  int          // batches under way, likewise

	own lane // of the subscription's goroutine
	// lanes are the workers; empty if only that goroutine calls the listener.
	lanes   []*lane
	wg      sync.WaitGroup
	stopped bool          // of the subscription's goroutine, as are the next five
	parts   []*Batch      // by lane
	where   []int         // lanes, by event
	counts  []int         // events, by lane
	key     []byte        // of an event
	seed    maphash.Seed  // of its hash
	changed chan struct{} // something was handled; of capacity 1
	gone    chan struct{} // closed when a worker has ended

	mu    sync.Mutex // before Subscription.mu
	items []*item    // in order
	bytes int64      // of items
	reach Position   // of the last of them
	left  bool       // gone is closed
}

// errFeedEnded is why something was not handed over when the feed was closed.
var errFeedEnded = errors.New("the feed ended")

// newRelay returns nil if the options ask for nothing that needs one.
func newRelay(s *Subscription, o *SubscribeOptions) *relay {
	if o.Retry == nil && o.Group == nil && o.Workers <= 1 {
		return nil
	}
	r := &relay{s: s, retry: o.Retry.withDefaults(), group: o.Group.withDefaults()}
	r.lot = newLot(r.retry)
	r.own.relay = r
	if o.Group == nil && o.Workers <= 1 {
		return r
	}
	r.limit = orDefault(o.InFlightBytes, DefaultBacklogBytes)
	r.seed = maphash.MakeSeed()
	r.changed, r.gone = make(chan struct{}, 1), make(chan struct{})
	queue := laneQueue
	if r.group != nil {
		queue = max(queue, min(r.group.MaxEvents, laneGroup)) // for a group of transactions of one event
	}
	for range max(1, o.Workers) {
		r.lanes = append(r.lanes, &lane{relay: r, queue: make(chan task, queue)})
	}
	r.most = 2 * queue * len(r.lanes)
	r.parts, r.counts = make([]*Batch, len(r.lanes)), make([]int, len(r.lanes))
	return r
}

// A lane is one goroutine that calls the listener.
type lane struct {
	relay *relay
	chain *chain // of the transaction of which parts come; nil if it came in one

	// Of the subscription's goroutine.
	open bool // it was given parts of a transaction, not its last one

	// Of a worker.
	queue chan task // nil for the subscription's goroutine
	carry task      // that did not fit into the last group
	tasks []task
	front []task
	rest  []task
}

// A task is a batch on its way to the listener.
type task struct {
	batch    *Batch
	item     *item    // nil on the subscription's goroutine
	before   Position // up to where everything before it reaches
	attempts int
	chain    *chain // of its transaction, nil if that comes in one
}

// deliver is Subscription.deliver.
func (r *relay) deliver(b *Batch) error {
	s := r.s
	var wanted *Batch
	err := s.call(b.Position, func(context.Context) error {
		wanted = s.filter(b)
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case len(r.lanes) == 0:
		if wanted != nil {
			if err := r.hand(wanted); err != nil {
				return err
			}
		}
		s.handled(b.Kind, b.Position, wanted != nil, b.Last)
		return nil
	case wanted == nil:
		r.enqueue(&item{kind: b.Kind, position: b.Position, last: b.Last})
		return nil
	case r.split(wanted):
		return r.dispatch(wanted)
	default:
		return r.alone(wanted)
	}
}

// hand has the listener handle a batch on the subscription's goroutine.
func (r *relay) hand(b *Batch) error {
	if r.lot != nil && b.Kind == Reset {
		r.lot.outdate(b.Collections)
	}
	return r.own.handle([]task{{batch: b, before: r.s.reach()}})
}

// reach returns the position up to which everything was handled or left out.
func (s *Subscription) reach() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passed
}

// handle returns nil when the tasks are handled or parked, otherwise why the
// subscription ends.
func (l *lane) handle(tasks []task) error {
	if l.relay.lot != nil {
		l.link(tasks)
	}
	if len(tasks) > 1 {
		var err error
		if tasks, err = l.together(tasks); err != nil {
			return err
		}
		defer clear(tasks)
	}
	for i := range tasks {
		t := &tasks[i]
		if behind, err := l.behind(t); err != nil {
			return err
		} else if behind {
			l.relay.finish(tasks[i : i+1])
			continue
		}
		failed, ended := l.persist(tasks[i : i+1])
		if ended != nil {
			return ended
		}
		if failed == nil {
			l.relay.finish(tasks[i : i+1])
			continue
		}
		if l.relay.lot == nil || t.batch.Kind != Changes {
			return l.relay.s.blame(t.batch.Position, failed)
		}
		if err := l.relay.lot.park(t, failed); err != nil {
			return l.relay.s.blame(t.batch.Position, err)
		}
		l.relay.finish(tasks[i : i+1])
	}
	return nil
}

// together hands over those of a group that wait behind nothing. It returns what
// is to be handed over singly: these, if that failed, and then the others, which
// are not parked before, since some of these may come before them.
func (l *lane) together(tasks []task) ([]task, error) {
	l.front, l.rest = l.front[:0], l.rest[:0]
	if l.relay.lot == nil {
		l.front = append(l.front, tasks...)
	} else {
		l.front, l.rest = l.relay.lot.part(tasks, l.front, l.rest)
	}
	if len(l.front) > 1 {
		failed, ended := l.persist(l.front)
		switch {
		case ended != nil:
			return nil, ended
		case failed == nil:
			l.relay.finish(l.front)
			clear(l.front)
			l.front = l.front[:0]
		case l.relay.retry == nil:
			return nil, l.relay.s.blame(l.front[0].batch.Position, failed)
		}
	}
	l.front = append(l.front, l.rest...)
	clear(l.rest)
	return l.front, nil
}

// behind parks a task that has to wait behind a parked one.
func (l *lane) behind(t *task) (bool, error) {
	if l.relay.lot == nil {
		return false, nil
	}
	behind, err := l.relay.lot.behind(t)
	if err != nil {
		return false, l.relay.s.blame(t.batch.Position, err)
	}
	return behind, nil
}

// persist hands tasks over, together, as often as the policy says. It returns
// what the listener returned at last, or why the subscription ends.
func (l *lane) persist(tasks []task) (failed, ended error) {
	s, p := l.relay.s, l.relay.retry
	for n := 1; ; n++ {
		if n > 1 {
			s.rest(p.delay(n - 1))
		}
		if n > 1 || l.queue != nil {
			s.holdOpen()
			switch {
			case s.ctx.Err() != nil || !s.feed.closed():
			case n > 1:
				return nil, s.blame(tasks[0].batch.Position, failed)
			case s.paused.Load():
				return nil, errFeedEnded
			}
		}
		if s.ctx.Err() != nil {
			return nil, context.Cause(s.ctx)
		}
		var again bool
		failed, again = l.try(tasks)
		switch {
		case failed == nil:
			return nil, nil
		case s.ctx.Err() != nil:
			return nil, context.Cause(s.ctx) // closed meanwhile: not the listener's fault
		case p == nil || !again || n >= p.Attempts:
			return failed, nil
		}
	}
}

// try hands tasks over once, and contains a panic. It reports also whether it is
// worth trying again.
func (l *lane) try(tasks []task) (failed error, again bool) {
	failed = l.contain(tasks[0].batch.Position, func() error {
		ctx, attempt := l.relay.s.ctx, 0
		for i := range tasks {
			tasks[i].attempts++
			attempt = max(attempt, tasks[i].attempts)
		}
		if attempt > 1 {
			ctx = context.WithValue(ctx, attemptKey{}, attempt)
		}
		return l.call(ctx, tasks)
	})
	if p := l.relay.retry; failed != nil && p != nil {
		again = true
		if p.Retryable != nil {
			cause := failed
			panicked := l.contain(tasks[0].batch.Position, func() error {
				again = p.Retryable(cause)
				return nil
			})
			if panicked != nil {
				failed, again = errors.Join(panicked, cause), false
			}
		}
	}
	return failed, again
}

func (l *lane) call(ctx context.Context, tasks []task) error {
	if l.relay.group == nil {
		return l.relay.s.listener.OnBatch(ctx, tasks[0].batch)
	}
	batches := make([]*Batch, len(tasks))
	for i := range tasks {
		batches[i] = tasks[i].batch
	}
	return l.relay.s.listener.(GroupListener).OnBatches(ctx, batches) //nolint:errcheck,forcetypeassert // Subscribe has checked it
}

// contain turns a panic into an error. A callback that ends its goroutine ends
// the subscription.
func (l *lane) contain(at Position, f func() error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
			return
		}
		if ended := l.relay.s.blame(at, errGoexit); l.queue == nil {
			l.relay.s.failure = ended
		} else {
			l.relay.s.cancel(ended)
		}
	}()
	err = f()
	returned = true
	return err
}

// rest waits between two attempts.
func (s *Subscription) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.interrupted():
	case <-s.feed.open.Done():
	case <-s.ctx.Done():
	}
}

// tend hands over what is asked for of the parked batches.
func (r *relay) tend() error {
	if r.lot == nil || r.lot.idle() {
		return nil
	}
	s := r.s
	if err := r.idle(); err != nil {
		return err
	}
	for {
		s.holdOpen()
		if ended := s.ctx.Err() != nil || s.feed.closed(); ended {
			return nil // next finds that, too
		}
		e, request := r.lot.next()
		if e == nil {
			s.move()
			return nil
		}
		t := []task{{batch: e.Batch, attempts: e.Attempts}}
		var failed, ended error
		if request != nil {
			failed, _ = r.own.try(t)
		} else {
			failed, ended = r.own.persist(t)
		}
		if ended != nil || (failed != nil && s.ctx.Err() != nil) {
			r.lot.release()
			if ended == nil {
				ended = context.Cause(s.ctx)
			}
			return ended
		}
		r.lot.tried(&t[0], failed)
		s.move()
		if request != nil {
			request.done <- failed
		}
	}
}

// addTo adds what the feed does not know.
func (r *relay) addTo(l *Lag) {
	r.mu.Lock()
	l.Batches += len(r.items)
	l.Bytes += r.bytes
	if len(r.items) > 0 && !r.items[0].since.IsZero() {
		l.Age = max(l.Age, time.Since(r.items[0].since))
	}
	r.mu.Unlock()
	if r.lot == nil {
		return
	}
	var oldest time.Time
	if l.Parked, l.ParkedBytes, oldest = r.lot.extent(); !oldest.IsZero() {
		l.ParkedAge = max(0, time.Since(oldest))
	}
}

// checkRelay returns what cannot work of Retry, Group and Workers.
func (o *SubscribeOptions) checkRelay(l Listener) error {
	faults := []error{o.Retry.check(), o.Group.check(l)}
	if _, durable := l.(Durable); durable {
		if o.Retry != nil && o.Retry.Park {
			faults = append(faults, errors.New("retry: what a Durable listener stores must be in order; leave Park out"))
		}
		if o.Workers > 1 {
			faults = append(faults, fmt.Errorf("workers: what a Durable listener stores must be in order, which %d cannot keep", o.Workers))
		}
	}
	if o.Workers < 0 || o.InFlightBytes < 0 {
		faults = append(faults, errors.New("workers: Workers and InFlightBytes must not be negative"))
	}
	return errors.Join(faults...)
}
