package listeners_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/rowcall/rowcall/listeners"
)

func TestAfterCloseWaitNoCallbackRuns(t *testing.T) {
	f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 16})
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for c := uint64(1); f.Reserve(ctx) == nil; c++ {
			f.Append(batch(c))
		}
	})
	defer writer.Wait()
	defer cancel()
	for range 2000 {
		var over, running atomic.Bool
		called := make(chan struct{}, 1)
		sub, err := f.Subscribe("s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			running.Store(true)
			defer running.Store(false)
			if over.Load() {
				t.Error("a callback began after CloseWait")
			}
			select {
			case called <- struct{}{}:
			default:
			}
			runtime.Gosched()
			return nil
		}), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rand.IntN(2) == 0 {
			<-called
		}
		if rand.IntN(2) == 0 {
			go sub.Close()
		}
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		over.Store(true)
		if running.Load() {
			t.Fatal("a callback ran when CloseWait had returned")
		}
	}
}

// The bubble ends only when every goroutine has.
func TestSubscribeAndCloseWhileAppending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 8})
		var writer, others sync.WaitGroup
		writer.Go(func() {
			for c := uint64(1); f.Reserve(t.Context()) == nil; c++ {
				f.Append(batch(c, created(seats, int(c))))
			}
		})
		for range 4 {
			others.Go(func() {
				for range 200 {
					var last uint64
					enough := make(chan struct{}, 1)
					stop := 1 + rand.Uint64N(5)
					join := listeners.Join(nil)
					if rand.IntN(2) == 0 {
						join = func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
							return listeners.Position{}, emit(marker(listeners.Live, 0))
						}
					}
					var seen uint64
					sub, err := f.Subscribe("s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
						if c := b.Position.Commit; last != 0 && c != last+1 {
							t.Errorf("batch %d came after %d", c, last)
						}
						last = b.Position.Commit
						if seen++; seen == stop {
							enough <- struct{}{}
						}
						return nil
					}), nil, join)
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = sub.Lag(), sub.Stored()
					<-enough
					if rand.IntN(2) == 0 {
						sub.Close()
					}
					if err := sub.CloseWait(t.Context()); err != nil || sub.Err() != nil {
						t.Errorf("CloseWait = %v, Err() = %v", err, sub.Err())
					}
				}
			})
		}
		others.Wait()
		if n := len(f.Subscriptions()); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
		f.Close()
		writer.Wait()
	})
}

// Many writers and slow readers at a feed that is always full: whoever waits
// is woken.
func TestNoWakeUpIsLost(t *testing.T) {
	for _, size := range []int64{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			const writers, each = 4, 500
			f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: size})
			var handled atomic.Int64
			for range 3 {
				subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
					if handled.Add(1)%7 == 0 {
						runtime.Gosched()
					}
					return nil
				}), nil, nil)
			}
			var commit sync.Mutex
			var n uint64
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for range each {
						if err := f.Reserve(t.Context()); err != nil {
							t.Error(err)
							return
						}
						commit.Lock()
						n++
						f.Append(batch(n))
						commit.Unlock()
					}
				})
			}
			wg.Wait() // a deadlock here fails the bubble
			synctest.Wait()
			if got := handled.Load(); got != 3*writers*each {
				t.Errorf("%d batches were handled, want %d", got, 3*writers*each)
			}
		})
	}
}

// hammering is how long a test tries to hit a moment. A slow machine tries less
// often; what is waited for has a minute each time, not for all of them together.
const hammering = 3 * time.Second

// The writer appends at about the moment when the reader decides to sleep.
func TestNoWakeUpIsLostBetweenTwoLooks(t *testing.T) {
	f := listeners.NewFeed(nil)
	var handled atomic.Uint64
	subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		handled.Store(b.Position.Commit)
		return nil
	}), nil, nil)
	var delay atomic.Int64
	start := time.Now()
	for c := uint64(0); c < 20_000 && time.Since(start) < hammering; c++ {
		for range rand.IntN(100) {
			delay.Add(1)
		}
		f.Append(batch(c + 1))
		sent := time.Now()
		for spins := 0; handled.Load() != c+1; spins++ {
			if spins%1000 == 999 {
				runtime.Gosched()
				if time.Since(sent) > time.Minute {
					t.Fatalf("nobody was woken for batch %d", c+1)
				}
			}
		}
	}
}

// The reader frees the room at about the moment when the writer decides to
// wait for it.
func TestNoWriterIsForgotten(t *testing.T) {
	f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1})
	var delay atomic.Int64
	subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
		for range rand.IntN(100) {
			delay.Add(1)
		}
		return nil
	}), nil, nil)
	start := time.Now()
	for c := uint64(0); c < 30_000 && time.Since(start) < hammering; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for range 100 {
			if err := f.Reserve(ctx); err != nil {
				t.Fatalf("Reserve for batch %d: %v", c+1, err)
			}
			c++
			f.Append(batch(c))
		}
		cancel()
	}
}

// collected waits until nothing refers to what p points to.
func collected[T any](t *testing.T, p weak.Pointer[T]) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ; p.Value() != nil; runtime.Gosched() {
		if ctx.Err() != nil {
			return false
		}
		runtime.GC()
	}
	return true
}

// appendWeak appends a batch to which only the feed refers.
//
//go:noinline
func appendWeak(f *listeners.Feed, commit uint64) weak.Pointer[listeners.Batch] {
	b := batch(commit, created(seats, 1))
	f.Append(b)
	return weak.Make(b)
}

func TestHandledBatchIsGarbage(t *testing.T) {
	f := listeners.NewFeed(nil)
	done := make(chan struct{}, 2)
	for range 2 {
		subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			done <- struct{}{}
			return nil
		}), nil, nil)
	}
	p := appendWeak(f, 1)
	<-done
	<-done
	if !collected(t, p) {
		t.Error("the feed still holds a batch that everybody has handled")
	}
	if len(f.Subscriptions()) != 2 {
		t.Error("the subscriptions ended")
	}
}

func TestUnwantedBatchIsGarbage(t *testing.T) {
	f := listeners.NewFeed(nil)
	if p := appendWeak(f, 1); !collected(t, p) {
		t.Error("a feed without subscriptions holds a batch")
	}
	runtime.KeepAlive(f)
}

// A program often keeps its subscription until it ends itself.
func TestEndedSubscriptionHoldsNothing(t *testing.T) {
	for name, end := range map[string]func(*listeners.Subscription, chan error){
		"failed":         func(_ *listeners.Subscription, result chan error) { result <- context.Canceled },
		"closed":         func(s *listeners.Subscription, result chan error) { s.Close(); result <- nil },
		"closed, hung":   func(s *listeners.Subscription, _ chan error) { s.Close() },
		"closed at last": func(s *listeners.Subscription, result chan error) { result <- context.Canceled; <-s.Done(); s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			f := listeners.NewFeed(nil)
			called, result := make(chan struct{}), make(chan error, 1)
			defer close(result)
			sub, err := f.Subscribe("s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
				called <- struct{}{}
				return <-result
			}), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			f.Append(batch(1))
			<-called
			first := appendWeak(f, 2) // before the end
			end(sub, result)
			if name != "closed, hung" {
				<-sub.Done()
			}
			second := appendWeak(f, 3) // and after it
			if !collected(t, first) || !collected(t, second) {
				t.Error("the subscription holds batches that it will never handle")
			}
			runtime.KeepAlive(sub)
			runtime.KeepAlive(f)
		})
	}
}
