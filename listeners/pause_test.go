package listeners_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, nil, nil)
		put(t, f, 1)
		wantHeard(t, &rec, "1:(s1)")
		sub.Resume() // of what is not paused
		sub.Pause()
		sub.Pause()
		began := time.Now()
		for c := range uint64(3) {
			b := batch(c+2, created(seats, int(c+2)))
			b.Tx.Time = began
			f.Append(b)
		}
		time.Sleep(time.Minute)
		wantHeard(t, &rec, "1:(s1)")
		if lag, want := sub.Lag(), (listeners.Lag{Batches: 3, Bytes: 3, Age: time.Minute}); lag != want || !sub.Paused() {
			t.Errorf("Lag() = %+v, Paused() = %t; want %+v, true", lag, sub.Paused(), want)
		}
		sub.Resume()
		sub.Resume()
		wantHeard(t, &rec, "1:(s1), 2:(s2), 3:(s3), 4:(s4)")
		if sub.Paused() || sub.Lag() != (listeners.Lag{}) {
			t.Errorf("Paused() = %t, Lag() = %+v after Resume", sub.Paused(), sub.Lag())
		}
	})
}

func TestPauseWithinASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		var now uint64
		sub := subscribe(t, f, "s", g, nil, stateAt(&now))
		synctest.Wait()
		sub.Pause()
		close(g.pass)
		wantHeard(t, &g.Recorder, "reset 0:()") // which had begun
		sub.Resume()
		wantHeard(t, &g.Recorder, "reset 0:(), snapshot 0:(s0), live 0:()")
	})
}

func TestListenerMayPauseItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		self := make(chan *listeners.Subscription, 1)
		calls := 0
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			calls++
			s := <-self
			s.Pause()
			self <- s
			return nil
		}), nil, nil)
		self <- sub
		put(t, f, 1, 2, 3)
		for want := 1; want <= 3; want++ {
			synctest.Wait()
			if calls != want {
				t.Fatalf("%d calls, want %d", calls, want)
			}
			sub.Resume()
		}
	})
}

func TestPausedSubscriptionEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		join listeners.Join
		end  func(*listeners.Feed, *listeners.Subscription)
	}{
		"with its feed":                           {nil, func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() }},
		"by Close":                                {nil, func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() }},
		"with its feed, before it is joined":      {stateAt(new(uint64)), func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() }},
		"by Close, before it is joined":           {stateAt(new(uint64)), func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() }},
		"with its feed, and is resumed only then": {nil, func(f *listeners.Feed, s *listeners.Subscription) { f.Close(); s.Resume() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				s := newStore()
				begun := make(chan struct{})
				join := tc.join
				if join != nil {
					join = func(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
						<-begun
						return tc.join(ctx, emit)
					}
				}
				sub := subscribe(t, f, "s", s, nil, join)
				sub.Pause()
				close(begun)
				put(t, f, 1)
				wantHeard(t, &s.Recorder, "")
				s.stalled <- struct{}{}
				synctest.Wait()
				if s.flushed() != 0 {
					t.Error("a paused listener was asked to flush")
				}
				tc.end(f, sub)
				<-sub.Done()
				if err := sub.Err(); err != nil {
					t.Errorf("Err() = %v", err)
				}
				wantHeard(t, &s.Recorder, "")
				if closed := sub.Closed(); (s.flushed() > 0) == closed {
					t.Errorf("%d flushes at the end, closed %t", s.flushed(), closed)
				}
			})
		})
	}
}

func TestPausedSubscriptionHoldsItsWriterUnlessItsPolicySaysOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 4})
		sub := subscribe(t, f, "s", new(listenertest.Recorder), nil, nil)
		var rec listenertest.Recorder
		other := subscribe(t, f, "reset", &rec, with(listeners.OverflowReset, 2), stateAt(new(uint64)))
		synctest.Wait()
		sub.Pause()
		other.Pause()
		put(t, f, 1, 2, 3, 4)
		var n atomic.Int64
		go func() {
			put(t, f, 5)
			n.Add(1)
		}()
		wantAppended(t, &n, 0)
		if got := other.Lag(); other.Err() != nil || got.Batches != 4 {
			t.Errorf("Err() = %v, Lag() = %+v; want 4 batches, dropped or not", other.Err(), got)
		}
		sub.Resume()
		wantAppended(t, &n, 1)
	})
}
