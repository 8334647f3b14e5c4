package listeners_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A store is a Durable that stores when the test says so.
type store struct {
	listenertest.Recorder

	stalled chan struct{}
	onFlush func(context.Context) error

	mu      sync.Mutex
	taken   listeners.Position
	stored  listeners.Position
	flushes int
}

var _ listeners.Durable = (*store)(nil)

func newStore() *store { return &store{stalled: make(chan struct{}, 1)} }

func (s *store) OnBatch(ctx context.Context, b *listeners.Batch) error {
	s.mu.Lock()
	s.taken = b.Position
	s.mu.Unlock()
	return s.Recorder.OnBatch(ctx, b)
}

func (s *store) Stored() listeners.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored
}

func (s *store) Stalled() <-chan struct{} { return s.stalled }

func (s *store) Flush(ctx context.Context) error {
	s.mu.Lock()
	s.flushes++
	s.mu.Unlock()
	if s.onFlush != nil {
		if err := s.onFlush(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = s.taken
	return nil
}

func (s *store) flushed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushes
}

func (s *store) store(p listeners.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = p
}

func wantStored(t *testing.T, sub *listeners.Subscription, commit uint64) {
	t.Helper()
	synctest.Wait()
	if got := sub.Stored(); got != at(commit) && (commit != 0 || !got.IsZero()) {
		t.Errorf("Stored() = %s, want %s", got, at(commit))
	}
}

func TestStoredIsWhatTheListenerHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "s", g, only("public.seats"), nil)
		wantStored(t, sub, 0)
		f.Append(batch(1, created(trains, 1)))
		wantStored(t, sub, 1)
		put(t, f, 2)
		wantStored(t, sub, 1)
		g.pass <- struct{}{}
		wantStored(t, sub, 2)
	})
}

func TestStoredIsWhatADurableListenerStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		sub := subscribe(t, f, "s", s, only("public.seats"), nil)
		f.Append(batch(1, created(trains, 1)))
		wantStored(t, sub, 1) // nothing taken, nothing to store
		put(t, f, 2)
		wantStored(t, sub, 1)
		put(t, f, 3)
		s.store(at(2))
		wantStored(t, sub, 2)
		f.Append(batch(4, created(trains, 1)))
		wantStored(t, sub, 2)
		s.store(at(3))
		wantStored(t, sub, 4) // what was left out counts once all that was taken is stored
		f.Append(batch(5, created(trains, 1)))
		wantStored(t, sub, 5)
		put(t, f, 6)
		wantStored(t, sub, 5) // it does not go back to 3
		s.store(at(6))
		wantStored(t, sub, 6)
		sub.Close()
		<-sub.Done()
		wantStored(t, sub, 6)
	})
}

// A sink that has read its own tail knows of more than it was given.
func TestStoredIsNotAheadOfWhatWasHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		s.store(at(100))
		sub := subscribe(t, f, "s", s, nil, nil)
		put(t, f, 1)
		wantStored(t, sub, 1)
	})
}

func TestLateSubscriptionHoldsBackNothingFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		put(t, f, 1, 2)
		sub := subscribe(t, f, "late", newStore(), nil, nil)
		plain := subscribe(t, f, "plain", newGate(), nil, nil)
		wantStored(t, sub, 2)
		put(t, f, 3)
		wantStored(t, sub, 2) // 3 is taken, not stored
		wantStored(t, plain, 2)
	})
}

func TestStoredOfAJoinedDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		put(t, f, 1)
		s := newStore()
		sub := subscribe(t, f, "s", s, nil, func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			return at(5), errors.Join(emit(marker(listeners.Reset, 5)), emit(marker(listeners.Live, 5)))
		})
		put(t, f, 2, 3)
		wantStored(t, sub, 1) // the snapshot is taken, not stored
		s.store(at(5))
		wantStored(t, sub, 5)
	})
}

func TestStalledTriggersFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		sub := subscribe(t, f, "s", s, nil, nil)
		put(t, f, 1)
		wantStored(t, sub, 0)
		s.stalled <- struct{}{}
		wantStored(t, sub, 1)
		put(t, f, 2) // it goes on
		wantHeard(t, &s.Recorder, "1:(s1), 2:(s2)")
		if n := s.flushed(); n != 1 {
			t.Errorf("%d flushes, want 1", n)
		}
	})
}

func TestStalledTriggersFlushBetweenTwoBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		s.Err = func(b *listeners.Batch) error {
			s.stalled <- struct{}{}
			if n := s.flushed(); n != int(b.Position.Commit)-1 {
				t.Errorf("%d flushes before batch %d", n, b.Position.Commit)
			}
			return nil
		}
		sub := subscribe(t, f, "s", s, nil, nil)
		put(t, f, 1, 2, 3)
		wantStored(t, sub, 3)
	})
}

func TestStalledTriggersFlushDuringJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		subscribe(t, f, "s", s, nil, func(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			err := emit(marker(listeners.Reset, 1))
			s.stalled <- struct{}{}
			err = errors.Join(err, emit(marker(listeners.Live, 1)))
			if n := s.flushed(); n != 1 {
				t.Errorf("%d flushes during the join, want 1", n)
			}
			return at(1), err
		})
		wantHeard(t, &s.Recorder, "reset 1:(), live 1:()")
	})
}

func TestFlushErrorEndsTheSubscription(t *testing.T) {
	for name, tc := range map[string]struct {
		flush func(context.Context) error
		stall func(s *store) listeners.Join
	}{
		"error":           {func(context.Context) error { return io.ErrClosedPipe }, nil},
		"panic":           {func(context.Context) error { panic(io.ErrClosedPipe) }, nil},
		"during a join":   {func(context.Context) error { return io.ErrClosedPipe }, stallInJoin},
		"panic in a join": {func(context.Context) error { panic(io.ErrClosedPipe) }, stallInJoin},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				s := newStore()
				s.onFlush = tc.flush
				var join listeners.Join
				if tc.stall != nil {
					join = tc.stall(s)
				}
				sub := subscribe(t, f, "sink", s, nil, join)
				put(t, f, 1)
				synctest.Wait()
				if join == nil {
					s.stalled <- struct{}{}
				}
				<-sub.Done()
				var where *listeners.ListenerError
				err := sub.Err()
				if !errors.As(err, &where) || where.Subscription != "sink" || where.Position != at(1) {
					t.Fatalf("Err() = %v, want one that names the subscription and what was taken", err)
				}
				if p, ok := errors.AsType[*listeners.PanicError](err); ok {
					err = p.Value.(error) //nolint:forcetypeassert // see above
				}
				if !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("Err() = %v, want the flush's error", err)
				}
			})
		})
	}
}

func stallInJoin(s *store) listeners.Join {
	return func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
		err := emit(marker(listeners.Reset, 1))
		s.stalled <- struct{}{}
		return at(1), errors.Join(err, emit(marker(listeners.Live, 1)))
	}
}

func TestClosedFeedFlushes(t *testing.T) {
	for name, join := range map[string]listeners.Join{"plain": nil, "while it joins": hold} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				s := newStore()
				sub := subscribe(t, f, "s", s, nil, join)
				put(t, f, 1)
				wantStored(t, sub, 0)
				f.Close()
				<-sub.Done()
				wantStored(t, sub, 1)
				if n := s.flushed(); n != 1 || sub.Err() != nil {
					t.Errorf("%d flushes, Err() = %v; want 1 and nil", n, sub.Err())
				}
			})
		})
	}
}

func untilEnd(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestClosedFeedFlushesNotForEver(t *testing.T) {
	for name, stalled := range map[string]bool{"idle": false, "during another flush": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				s := newStore()
				s.onFlush = untilEnd
				sub := subscribe(t, f, "s", s, nil, nil)
				put(t, f, 1)
				if stalled {
					s.stalled <- struct{}{}
				}
				synctest.Wait()
				time.Sleep(time.Hour)
				start := time.Now()
				f.Close()
				<-sub.Done()
				if got := time.Since(start); got != listeners.FlushTimeout {
					t.Errorf("the flush took %s, want %s", got, listeners.FlushTimeout)
				}
				if err := sub.Err(); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Err() = %v, want the end of the time", err)
				}
				wantStored(t, sub, 0)
			})
		})
	}
}

func TestPanicOfAFlushThatACloseCutsShortIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		s.onFlush = func(ctx context.Context) error { panic(untilEnd(ctx)) }
		sub := subscribe(t, f, "s", s, nil, nil)
		s.stalled <- struct{}{}
		synctest.Wait()
		f.Close()
		<-sub.Done()
		var panicked *listeners.PanicError
		if err := sub.Err(); !errors.As(err, &panicked) || s.flushed() != 1 {
			t.Errorf("Err() = %v after %d flushes, want the panic after 1", err, s.flushed())
		}
	})
}

func TestCloseCutsFlushShort(t *testing.T) {
	for name, closeFeed := range map[string]bool{"when stalled": false, "when the feed closes": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				s := newStore()
				s.onFlush = untilEnd
				sub := subscribe(t, f, "s", s, nil, nil)
				put(t, f, 1)
				synctest.Wait()
				if closeFeed {
					f.Close()
				} else {
					s.stalled <- struct{}{}
				}
				synctest.Wait()
				if ended(sub) || s.flushed() != 1 {
					t.Fatalf("ended %t after %d flushes, want it to flush", ended(sub), s.flushed())
				}
				start := time.Now()
				if err := sub.CloseWait(t.Context()); err != nil || sub.Err() != nil || time.Since(start) != 0 {
					t.Errorf("CloseWait = %v after %s, Err() = %v; want nil at once", err, time.Since(start), sub.Err())
				}
				wantStored(t, sub, 0)
			})
		})
	}
}

// A listener may ask where its subscription is whenever it likes.
func TestDurableMayAskItsSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		a := asker{store: newStore()}
		a.sub = subscribe(t, f, "s", &a, nil, nil)
		put(t, f, 1)
		synctest.Wait()
		a.store.store(at(1))
		wantStored(t, a.sub, 1)
	})
}

type asker struct {
	*store
	sub *listeners.Subscription
}

func (a *asker) Stored() listeners.Position {
	_ = a.sub.Lag()
	_ = a.sub.Err()
	return a.store.Stored()
}
