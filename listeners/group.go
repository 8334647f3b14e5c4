package listeners

import (
	"context"
	"errors"
	"time"
)

// What a [GroupPolicy] that does not say otherwise does.
const (
	DefaultGroupEvents = 1000
	DefaultGroupBytes  = 1 << 20
)

// A GroupPolicy hands several batches over at once, so that a listener can write
// a thousand rows in one statement. Nil means one batch at a time; zero fields
// mean their defaults. The listener must be a [GroupListener].
//
// A group holds consecutive Changes, or consecutive Snapshot batches, each whole:
// transactions stay recognisable. Reset and Live come alone. With a
// [RetryPolicy] a group that fails is retried as a group; if its attempts are
// used up, or the error is not one to retry, its batches are handed over singly,
// in order, each with as many attempts again, so that only the bad one is parked
// or ends the subscription. Without one it ends at the group's first batch.
type GroupPolicy struct {
	// MaxEvents and MaxBytes, of [Batch.Size], bound a group. A batch beyond them
	// comes alone. Defaults [DefaultGroupEvents] and [DefaultGroupBytes].
	MaxEvents int
	MaxBytes  int64
	// MaxWait is how long the first batch of a group may wait for more. Default
	// 0: the group is what waits while the listener handles the one before, so
	// that nothing is told later than it would be alone.
	MaxWait time.Duration
}

func (p *GroupPolicy) check(l Listener) error {
	if p == nil {
		return nil
	}
	var faults []error
	if p.MaxEvents < 0 || p.MaxBytes < 0 || p.MaxWait < 0 {
		faults = append(faults, errors.New("group: MaxEvents, MaxBytes and MaxWait must not be negative"))
	}
	if _, ok := l.(GroupListener); !ok {
		faults = append(faults, errors.New("group: the listener has no OnBatches; make it a GroupListener"))
	}
	return errors.Join(faults...)
}

func (p *GroupPolicy) withDefaults() *GroupPolicy {
	if p == nil {
		return nil
	}
	q := *p
	q.MaxEvents = orDefault(q.MaxEvents, DefaultGroupEvents)
	q.MaxBytes = orDefault(q.MaxBytes, DefaultGroupBytes)
	return &q
}

// A GroupListener is a [Listener] that takes several batches at once. With a
// [GroupPolicy] everything comes through OnBatches, without one through OnBatch.
type GroupListener interface {
	Listener
	// OnBatches is as OnBatch: nil says that all of them are handled, an error or a
	// panic that none is. There is at least one. It may keep the slice.
	OnBatches(ctx context.Context, batches []*Batch) error
}

// GroupFunc is a function that is a [GroupListener].
type GroupFunc func(ctx context.Context, batches []*Batch) error

// OnBatch calls f with the one batch.
func (f GroupFunc) OnBatch(ctx context.Context, b *Batch) error { return f(ctx, []*Batch{b}) }

// OnBatches calls f.
func (f GroupFunc) OnBatches(ctx context.Context, batches []*Batch) error { return f(ctx, batches) }

// gather returns the next tasks to hand over together, nil if there are no more.
func (l *lane) gather() []task {
	first, ok := l.first()
	if !ok {
		return nil
	}
	l.tasks = append(l.tasks[:0], first)
	p := l.relay.group
	if p == nil {
		return l.tasks
	}
	events, size := len(first.batch.Events), int64(first.batch.Size)
	var timer *time.Timer
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for events < p.MaxEvents && size < p.MaxBytes && len(l.tasks) < p.MaxEvents {
		var next task
		select {
		case next = <-l.queue:
		default:
			if p.MaxWait == 0 {
				return l.tasks
			}
			if timer == nil {
				timer = time.NewTimer(p.MaxWait)
			}
			select {
			case next = <-l.queue:
			case <-timer.C:
			case <-l.relay.s.feed.open.Done():
			case <-l.relay.s.ctx.Done():
			}
		}
		if next.batch == nil {
			return l.tasks // the dispatcher waits for it, or there is nothing more
		}
		events += len(next.batch.Events)
		size += int64(next.batch.Size)
		if events > p.MaxEvents || size > p.MaxBytes || next.batch.Kind != first.batch.Kind {
			l.carry = next
			return l.tasks
		}
		l.tasks = append(l.tasks, next)
	}
	return l.tasks
}

// first waits for a task.
func (l *lane) first() (task, bool) {
	if t := l.carry; t.batch != nil {
		l.carry = task{}
		return t, true
	}
	for {
		select {
		case t, open := <-l.queue:
			if !open {
				return t, false
			}
			if t.batch != nil {
				return t, true
			}
		case <-l.relay.s.ctx.Done():
			return task{}, false
		}
	}
}
