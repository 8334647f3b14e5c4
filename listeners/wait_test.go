package listeners_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// waiting calls Wait in the background.
func waiting(ctx context.Context, s *listeners.Subscription, p listeners.Position) <-chan error {
	result := make(chan error, 1)
	go func() { result <- s.Wait(ctx, p) }()
	return result
}

func wantWaiting(t testing.TB, result <-chan error, what string) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-result:
		t.Fatalf("Wait = %v before %s", err, what)
	default:
	}
}

func TestWaitIsABarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "s", g, only("public.seats"), nil)
		if err := sub.Wait(t.Context(), listeners.Position{}); err != nil {
			t.Errorf("Wait for the zero position = %v", err)
		}
		second, third := waiting(t.Context(), sub, at(2)), waiting(t.Context(), sub, at(3))
		put(t, f, 1, 2)
		f.Append(batch(3, created(trains, 1)))
		wantWaiting(t, second, "the first batch is handled")
		g.pass <- struct{}{}
		wantWaiting(t, second, "the second batch is handled")
		g.pass <- struct{}{}
		if err := <-second; err != nil {
			t.Errorf("Wait for 2 = %v", err)
		}
		if err := <-third; err != nil { // which the subscription does not want
			t.Errorf("Wait for 3 = %v", err)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	failed := errors.New("no paper")
	tired := errors.New("tired")
	for name, tc := range map[string]struct {
		end  func(*listeners.Feed, *listeners.Subscription, chan error, context.CancelCauseFunc)
		want error
	}{
		"with its context": {func(_ *listeners.Feed, _ *listeners.Subscription, _ chan error, cancel context.CancelCauseFunc) {
			cancel(tired)
		}, tired},
		"with the subscription, whose callback hangs": {func(_ *listeners.Feed, s *listeners.Subscription, _ chan error, _ context.CancelCauseFunc) { s.Close() }, listeners.ErrClosed},
		"with the feed": {func(f *listeners.Feed, _ *listeners.Subscription, result chan error, _ context.CancelCauseFunc) {
			f.Close()
			result <- nil
		}, listeners.ErrClosed},
		"when the listener fails": {func(_ *listeners.Feed, _ *listeners.Subscription, result chan error, _ context.CancelCauseFunc) {
			result <- failed
		}, failed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				result := make(chan error)
				sub := subscribe(t, f, "printer", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return <-result }), nil, nil)
				defer close(result)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				put(t, f, 1)
				got := waiting(ctx, sub, at(2))
				wantWaiting(t, got, "its end")
				tc.end(f, sub, result, cancel)
				err := <-got
				if !errors.Is(err, tc.want) || (!errors.Is(err, tired) && !strings.Contains(err.Error(), "printer")) {
					t.Errorf("Wait = %v, want %v of the subscription", err, tc.want)
				}
			})
		})
	}
}

func TestWaitOfAnEndedSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		sub := subscribe(t, f, "s", new(listenertest.Recorder), nil, nil)
		put(t, f, 1)
		synctest.Wait()
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := sub.Wait(t.Context(), at(1)); err != nil {
			t.Errorf("Wait for what was handled = %v", err)
		}
		if err := sub.Wait(t.Context(), at(2)); !errors.Is(err, listeners.ErrClosed) {
			t.Errorf("Wait for what was not = %v, want ErrClosed", err)
		}
	})
}

func TestWaitForADurableListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		sub := subscribe(t, f, "s", s, nil, nil)
		put(t, f, 1, 2)
		got := waiting(t.Context(), sub, at(2))
		time.Sleep(time.Minute)
		wantWaiting(t, got, "it is stored")
		s.store(at(2))
		began := time.Now()
		if err := <-got; err != nil || time.Since(began) > 50*time.Millisecond {
			t.Errorf("Wait = %v after %s", err, time.Since(began))
		}
		got = waiting(t.Context(), sub, at(3))
		put(t, f, 3)
		wantWaiting(t, got, "the feed is closed")
		f.Close() // which makes it flush
		if err := <-got; err != nil {
			t.Errorf("Wait = %v after the last flush", err)
		}
	})
}

// The position of a Reset says nothing yet of what follows it.
func TestWaitForASnapshot(t *testing.T) {
	snapshot := []*listeners.Batch{
		marker(listeners.Reset, 5), marker(listeners.Snapshot, 5, created(seats, 1)), marker(listeners.Live, 5),
	}
	for name, join := range map[string]listeners.Join{
		"through a join": func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			for _, b := range snapshot {
				if err := emit(b); err != nil {
					return listeners.Position{}, err
				}
			}
			return at(5), nil
		},
		"through the feed": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				put(t, f, 4)
				g := newGate()
				sub := subscribe(t, f, "s", g, nil, join)
				if join == nil {
					for _, b := range snapshot {
						f.Append(b)
					}
				}
				got := waiting(t.Context(), sub, at(5))
				for _, b := range snapshot {
					wantWaiting(t, got, b.Kind.String()+" is handled")
					g.pass <- struct{}{}
				}
				if err := <-got; err != nil {
					t.Errorf("Wait = %v", err)
				}
			})
		})
	}
}

func TestListenerCannotWaitForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		self := make(chan *listeners.Subscription, 1)
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
			return (<-self).Wait(ctx, b.Position)
		}), nil, nil)
		self <- sub
		put(t, f, 1)
		<-sub.Done()
		if err := sub.Err(); err == nil || !strings.Contains(err.Error(), "waits for itself") {
			t.Errorf("Err() = %v, want one that says that it waits for itself", err)
		}
	})
}

// Writers that wait for their own events, at a feed that is nearly full.
func TestReadYourEvents(t *testing.T) {
	f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 4})
	var seen atomic.Uint64
	sub := subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		seen.Store(b.Position.Commit)
		return nil
	}), nil, nil)
	var commit sync.Mutex
	var n uint64
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 1000 {
				if err := f.Reserve(t.Context()); err != nil {
					t.Error(err)
					return
				}
				commit.Lock()
				n++
				mine := n
				f.Append(batch(mine))
				commit.Unlock()
				if rand.IntN(4) == 0 {
					continue
				}
				if err := sub.Wait(t.Context(), at(mine)); err != nil || seen.Load() < mine {
					t.Errorf("Wait for %d = %v when the listener had seen %d", mine, err, seen.Load())
				}
			}
		})
	}
	writers.Wait()
}
