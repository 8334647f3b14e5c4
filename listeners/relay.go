package listeners

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// A relay stands between a subscription and its listener if there is a
// RetryPolicy, a GroupPolicy or there are Workers.
type relay struct {
	s     *Subscription
	retry *RetryPolicy // nil for none
	lot   *lot         // nil unless retry parks

	own lane // of the subscription's goroutine
}

// errFeedEnded is why something was not handed over when the feed was closed.
var errFeedEnded = errors.New("the feed ended")

// newRelay returns nil if the options ask for nothing that needs one.
func newRelay(s *Subscription, o *SubscribeOptions) *relay {
	if o.Retry == nil {
		return nil
	}
	r := &relay{s: s, retry: o.Retry.withDefaults()}
	r.lot = newLot(r.retry)
	r.own.relay = r
	return r
}

// A lane is one goroutine that calls the listener.
type lane struct {
	relay *relay
	chain uint64 // of the transaction of which parts come, if one is parked
}

// A task is a batch on its way to the listener.
type task struct {
	batch    *Batch
	before   Position // up to where everything before it reaches
	attempts int
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
	if wanted != nil {
		if err := r.hand(wanted); err != nil {
			return err
		}
	}
	s.handled(b.Kind, b.Position, wanted != nil)
	return nil
}

// hand has the listener handle a batch on the subscription's goroutine.
func (r *relay) hand(b *Batch) error {
	if r.lot != nil {
		switch b.Kind {
		case Reset:
			r.lot.outdate(b.Collections)
		case Snapshot:
			r.lot.outdate(collectionsOf(b))
		case Changes, Live:
		}
	}
	return r.own.handle([]task{{batch: b, before: r.s.reach()}})
}

func collectionsOf(b *Batch) []string {
	out := []string{}
	for i := range b.Events {
		if name := b.Events[i].Schema.Collection(); len(out) == 0 || out[len(out)-1] != name {
			out = append(out, name)
		}
	}
	return out
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
	for i := range tasks {
		t := &tasks[i]
		if behind, err := l.behind(t); err != nil {
			return err
		} else if behind {
			continue
		}
		failed, ended := l.persist(tasks[i : i+1])
		if ended != nil {
			return ended
		}
		if failed == nil {
			continue
		}
		if l.relay.lot == nil || t.batch.Kind != Changes {
			return l.relay.s.blame(t.batch.Position, failed)
		}
		if err := l.relay.lot.park(t, failed, &l.chain); err != nil {
			return l.relay.s.blame(t.batch.Position, err)
		}
	}
	return nil
}

// behind parks a task that has to wait behind a parked one.
func (l *lane) behind(t *task) (bool, error) {
	if l.relay.lot == nil {
		return false, nil
	}
	behind, err := l.relay.lot.behind(t, &l.chain)
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
			s.holdOpen()
			if s.ctx.Err() == nil && s.feed.closed() {
				return nil, s.blame(tasks[0].batch.Position, failed)
			}
		}
		if s.ctx.Err() != nil {
			return nil, context.Cause(s.ctx)
		}
		again := false
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
	return l.relay.s.listener.OnBatch(ctx, tasks[0].batch)
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
		l.relay.s.failure = l.relay.s.blame(at, errGoexit)
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
	for {
		s.holdOpen()
		if s.ctx.Err() != nil || s.feed.closed() {
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
	if r.lot == nil {
		return
	}
	var oldest time.Time
	if l.Parked, l.ParkedBytes, oldest = r.lot.extent(); !oldest.IsZero() {
		l.ParkedAge = max(0, time.Since(oldest))
	}
}

// checkRelay returns what cannot work of Retry.
func (o *SubscribeOptions) checkRelay(l Listener) error {
	faults := []error{o.Retry.check()}
	if _, durable := l.(Durable); durable && o.Retry != nil && o.Retry.Park {
		faults = append(faults, errors.New("Retry: what a Durable listener stores must be in order; leave Park out"))
	}
	return errors.Join(faults...)
}
