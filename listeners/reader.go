package listeners

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
)

// wake is called by Append. The flag saves a channel operation for each batch
// that a busy subscription finds by itself.
func (s *Subscription) wake() {
	if s.waiting.Load() && s.waiting.CompareAndSwap(true, false) {
		select {
		case s.wakeup <- struct{}{}:
			s.feed.woken.Store(true)
		default:
		}
	}
}

func (s *Subscription) run(join Join) {
	s.failure = errGoexit
	defer s.end()
	err := s.loop(join)
	if errors.Is(err, errFeedEnded) {
		err = s.finish()
	}
	s.failure = err
}

// end is the last that its goroutine does, even if a callback ended that.
func (s *Subscription) end() {
	err := s.failure
	var its *ListenerError
	if errors.Is(err, ErrClosed) && !errors.As(err, &its) {
		err = nil
	}
	// Before the last position is stored: what workers handle until they end
	// is part of it. Who waits meanwhile gets the reason of the end.
	if err == nil {
		s.cancel(ErrClosed)
	}
	s.cancel(err)
	if s.relay != nil {
		s.relay.stop()
	}
	if l := s.lot(); l != nil {
		l.release() // what a callback that ended the goroutine was given
	}
	if saveErr := s.endSaving(); err == nil {
		err = saveErr
	}
	s.mu.Lock()
	s.err, s.reason = err, s.reasonOf(err)
	s.mu.Unlock()
	s.feed.remove(s)
	s.leave()
	close(s.done)
}

func (s *Subscription) loop(join Join) error {
	if s.durable != nil {
		s.stalled = s.durable.Stalled()
	}
	if s.relay != nil {
		s.relay.start()
	}
	if s.past != nil {
		var err error
		if join, err = s.takeUp(join); err != nil {
			return err
		}
	}
	if join != nil {
		if err := s.join(join); err != nil {
			return err
		}
	}
	for {
		b, err := s.next()
		if err != nil {
			return err
		}
		if b == nil {
			if err := s.finish(); err != nil {
				return err
			}
			return s.feed.failed(s)
		}
		if s.place != nil && b == s.place.lapse {
			if err := s.rejoin(); err != nil {
				return err
			}
			continue
		}
		if s.notForIt(b) {
			s.pass(b.Position, b.Last)
		} else if err := s.deliver(s.unheard(b)); err != nil {
			return err
		}
		// Only now a look at the next node: one held during the callback would
		// keep all that follows in memory, even after Close.
		if s.place != nil {
			s.advance()
			continue
		}
		if next := s.at.Load().next.Load(); next != nil {
			s.at.Store(next)
		}
		s.feed.freed()
	}
}

func (s *Subscription) join(join Join) error {
	ctx, cancel := s.whileOpen()
	defer cancel(nil)
	var failed error // after which nothing is emitted, whatever join makes of it
	skip, err := join(ctx, func(b *Batch) error {
		s.told++
		if err := s.hold(ctx); err != nil && failed == nil {
			return err
		}
		if failed == nil {
			failed = s.relieve()
		}
		if failed == nil {
			failed = s.deliver(b)
		}
		if failed != nil {
			cancel(failed)
		}
		return failed
	})
	switch {
	case failed != nil:
		return failed
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case s.feed.closed():
		return nil // next finds that, too
	case err != nil:
		return fmt.Errorf("subscription %q before its first change: %w", s.name, err)
	}
	s.joined(skip)
	s.mu.Lock()
	s.joining = false
	s.mu.Unlock()
	s.pass(skip, true)
	return nil
}

// whileOpen returns a context that ends with the subscription and the feed.
func (s *Subscription) whileOpen() (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	stop := context.AfterFunc(s.feed.open, func() { cancel(ErrClosed) })
	return ctx, func(cause error) {
		stop()
		cancel(cause)
	}
}

// next returns the next batch, or nil when the feed is closed.
func (s *Subscription) next() (*Batch, error) {
	for {
		s.holdOpen()
		if s.ctx.Err() != nil {
			return nil, context.Cause(s.ctx)
		}
		if s.feed.closed() {
			return nil, nil
		}
		if s.relay != nil {
			if err := s.relay.tend(); err != nil {
				return nil, err
			}
		}
		if err := s.relieve(); err != nil {
			return nil, err
		}
		if b := s.ready(); b != nil {
			return b, nil
		}
		// The flag first, then one more look: Append does it the other way
		// round, so that one of the two sees the other.
		s.waiting.Store(true)
		if b := s.ready(); b != nil {
			s.waiting.Store(false)
			return b, nil
		}
		var err error
		select {
		case <-s.wakeup:
		case <-s.feed.open.Done():
		case <-s.ctx.Done():
		case <-s.stalled:
			s.holdOpen()
			err = s.flush()
		}
		s.waiting.Store(false)
		if err != nil {
			return nil, err
		}
	}
}

// ready returns the batch at the subscription's place, nil if it is to come.
func (s *Subscription) ready() *Batch {
	if s.place != nil {
		return s.take()
	}
	at := s.at.Load()
	if at.next.Load() == nil {
		return nil
	}
	return at.batch
}

// relieve flushes if the durable listener has asked for it.
func (s *Subscription) relieve() error {
	select {
	case <-s.stalled:
		return s.flush()
	default:
		return nil
	}
}

// flush has the durable listener store what it took. It ends early when the
// feed is closed, since finish tries again, and not for ever.
func (s *Subscription) flush() error {
	if s.relay != nil {
		if err := s.relay.idle(); err != nil {
			return err
		}
	}
	ctx, cancel := s.whileOpen()
	defer cancel(nil)
	err := s.call(s.last(), func(context.Context) error { return s.durable.Flush(ctx) })
	var panicked *PanicError
	if s.ctx.Err() == nil && s.feed.closed() && !errors.As(err, &panicked) {
		return nil
	}
	return err
}

func (s *Subscription) notForIt(b *Batch) bool {
	if s.place != nil {
		return s.place.left
	}
	return s.leftOut(b)
}

// leftOut reports whether a batch of the feed is not for this subscription:
// join has told it, it is the rest of a transaction from before Subscribe, or it
// only says a position.
func (s *Subscription) leftOut(b *Batch) bool {
	if b.Kind == quiet {
		return true
	}
	rest := s.within && b.Kind == Changes && !b.First
	s.within = rest && !b.Last
	old := b.Position.Compare(s.skip) <= 0
	if old && b.Kind == Changes {
		s.open = !b.Last // its parts were told before
	}
	return rest || old
}

// pass takes note that everything up to a position is not to be delivered or
// contained in what was.
func (s *Subscription) pass(p Position, whole bool) {
	if s.relay != nil {
		s.relay.skip(p, whole)
		return
	}
	s.skipTo(p, whole)
}

func (s *Subscription) skipTo(p Position, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Compare(s.passed) > 0 {
		s.passed = p
		s.noteLocked(whole)
	}
	s.movedLocked()
}

// deliver hands the listener what it asked for of a batch.
func (s *Subscription) deliver(b *Batch) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if s.relay != nil {
		return s.relay.deliver(b)
	}
	var wanted *Batch
	err := s.call(b.Position, func(ctx context.Context) error {
		if wanted = s.filter(b); wanted == nil {
			return nil
		}
		return s.listener.OnBatch(ctx, wanted)
	})
	if err != nil {
		return err
	}
	s.handled(b.Kind, b.Position, wanted != nil, b.Last)
	return nil
}

// handled takes note of a batch that was handled, or not told since nothing in
// it was wanted. Last is [Batch].Last.
func (s *Subscription) handled(kind Kind, p Position, told, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed = p
	if told {
		s.delivered = p
	}
	switch {
	case !told:
	case kind == Reset:
		s.joining, s.replaying = true, false
	case kind == Live:
		s.joining = false
		if !s.live {
			s.live = true
			close(s.liveCh)
		}
	}
	s.noteLocked(last && kind != Reset)
	s.movedLocked()
}

// filter returns the part of b that the subscription asked for, nil if that is
// nothing. Parts of one transaction keep a first and a last even where the
// real ones hold nothing of interest.
func (s *Subscription) filter(b *Batch) *Batch {
	if s.overflow == OverflowConflate && b.Kind == Changes && b.First && b.Last && len(b.Events) == 0 {
		return nil // nothing is left of what was merged
	}
	if s.wanted == nil {
		return b
	}
	switch b.Kind {
	case Changes, Snapshot:
	case Reset:
		// The rows that follow are of these collections only.
		s.others = b.Collections != nil && !slices.ContainsFunc(b.Collections, s.wants)
		if s.others {
			return nil
		}
		return b
	default:
		s.others = false
		return b
	}
	if s.others && b.Kind == Snapshot {
		return nil
	}
	s.filtering = b.Tx
	events := b.eventsThat(s.wanted)
	if b.First && b.Last && len(events) == len(b.Events) && len(events) > 0 {
		return b
	}
	if b.First {
		s.open = false // the source has begun again
	}
	// A snapshot has at least one batch.
	ends := b.Last && (s.open || b.Kind == Snapshot)
	if len(events) == 0 && !ends {
		return nil
	}
	c := *b
	c.Events, c.First = events, !s.open
	s.open = !b.Last
	return &c
}

func (s *Subscription) wants(collection string) bool {
	if s.collections == nil {
		return true
	}
	_, ok := s.collections[collection]
	return ok
}

// call runs a callback, contains its panic, and names its error.
func (s *Subscription) call(at Position, f func(context.Context) error) (err error) {
	err = errGoexit // unless f returns or panics
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		if err == nil {
			return
		}
		err = s.blame(at, err)
		s.failure = err
	}()
	return f(s.ctx)
}

// blame names a callback's error, unless the subscription was closed meanwhile.
func (s *Subscription) blame(at Position, err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return &ListenerError{Subscription: s.name, Position: at, Err: err}
}

func (s *Subscription) last() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delivered
}

// finish is the end of a subscription whose feed was closed.
func (s *Subscription) finish() error {
	if s.relay != nil {
		s.relay.stop()
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
	}
	if s.durable == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, FlushTimeout)
	defer cancel()
	return s.call(s.last(), func(context.Context) error { return s.durable.Flush(ctx) })
}
