package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestIsolated(t *testing.T) {
	failed := errors.New("no paper")
	for name, tc := range map[string]struct {
		fail  func()
		check func(error) error
	}{
		"error": {
			func() {},
			func(err error) error {
				if !errors.Is(err, failed) {
					return errors.New("want the listener's error")
				}
				return nil
			},
		},
		"panic": {
			func() { panicInListener() },
			func(err error) error {
				var p *listeners.PanicError
				if !errors.As(err, &p) || p.Value != "out of paper" || !strings.Contains(string(p.Stack), "panicInListener") {
					return errors.New("want a PanicError with value and stack")
				}
				if strings.Contains(err.Error(), "goroutine") {
					return errors.New("the text holds the stack")
				}
				return nil
			},
		},
		"runtime panic": {
			func() { _ = []int(nil)[len(heardOne(1)):] },
			func(err error) error {
				if _, ok := errors.AsType[*listeners.PanicError](err); !ok {
					return errors.New("want a PanicError")
				}
				return nil
			},
		},
		"Goexit": {
			func() { runtime.Goexit() },
			func(err error) error {
				if !strings.Contains(err.Error(), "runtime.Goexit") {
					return errors.New("want Goexit named")
				}
				return nil
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 2})
				bad := listenertest.Recorder{Err: func(b *listeners.Batch) error {
					if b.Position.Commit == 2 {
						tc.fail()
						return failed
					}
					return nil
				}}
				var good listenertest.Recorder
				sub := subscribe(t, f, "printer", &bad, nil, nil)
				subscribe(t, f, "good", &good, nil, nil)
				put(t, f, 1, 2, 3, 4)
				wantHeard(t, &good, "1:(s1), 2:(s2), 3:(s3), 4:(s4)")
				wantHeard(t, &bad, "1:(s1)")

				<-sub.Done()
				var where *listeners.ListenerError
				err := sub.Err()
				if !errors.As(err, &where) || where.Subscription != "printer" || where.Position != at(2) {
					t.Fatalf("Err() = %v, want one that names the subscription and position 2", err)
				}
				if want := fmt.Sprintf(`subscription "printer" stopped at position %s: %v`, at(2), where.Err); err.Error() != want {
					t.Errorf("Err() = %q, want %q", err, want)
				}
				if wrong := tc.check(err); wrong != nil {
					t.Errorf("Err() = %v: %v", err, wrong)
				}
				if sub.Stored() != at(1) || sub.Closed() {
					t.Errorf("Stored() = %s, Closed() = %t; want 1, false: it keeps its place", sub.Stored(), sub.Closed())
				}
				sub.Close()
				if !sub.Closed() || sub.Err() == nil {
					t.Errorf("after Close: Closed() = %t, Err() = %v; want true and the error", sub.Closed(), sub.Err())
				}
			})
		})
	}
}

func panicInListener() { panic("out of paper") }

// An ErrClosed from elsewhere does not pass for a close of the subscription.
func TestErrClosedOfSomethingElseIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, other := listeners.NewFeed(nil), listeners.NewFeed(nil)
		other.Close()
		sub := subscribe(t, f, "copier", listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			return other.Reserve(ctx)
		}), nil, nil)
		put(t, f, 1)
		<-sub.Done()
		if err := sub.Err(); !errors.Is(err, listeners.ErrClosed) {
			t.Errorf("Err() = %v, want the listener's ErrClosed", err)
		}
		sub.Close()
		if err := sub.Err(); err != nil {
			t.Errorf("Err() = %v after Close, want nil", err)
		}
	})
}

func TestErrorAfterCloseIsNotTheListenersFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			<-ctx.Done()
			return io.ErrUnexpectedEOF
		}), nil, nil)
		put(t, f, 1)
		synctest.Wait()
		sub.Close()
		<-sub.Done()
		if err := sub.Err(); err != nil {
			t.Errorf("Err() = %v, want nil", err)
		}
	})
}

func TestCloseNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		hang := make(chan struct{})
		sub := subscribe(t, f, "hung", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { <-hang; return nil }), nil, nil)
		put(t, f, 1, 2)
		synctest.Wait()
		sub.Close()
		sub.Close()
		if ended(sub) {
			t.Error("it ended with its callback running")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := sub.CloseWait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("CloseWait = %v, want the context's end", err)
		}
		close(hang)
		if err := sub.CloseWait(t.Context()); err != nil || !ended(sub) {
			t.Errorf("a second CloseWait = %v, ended %t; want it to wait for the callback", err, ended(sub))
		}
		if err := sub.CloseWait(ctx); err != nil {
			t.Errorf("CloseWait of what has ended = %v, want nil whatever the context says", err)
		}
		if sub.Stored() != at(1) || sub.Err() != nil {
			t.Errorf("Stored() = %s, Err() = %v; want 1 and nil", sub.Stored(), sub.Err())
		}
	})
}

func TestListenerMayCloseItsOwnSubscription(t *testing.T) {
	for name, end := range map[string]func(context.Context, *listeners.Subscription) error{
		"Close":     func(_ context.Context, s *listeners.Subscription) error { s.Close(); return nil },
		"CloseWait": func(ctx context.Context, s *listeners.Subscription) error { return s.CloseWait(ctx) },
		"CloseWait with a context made of its own": func(ctx context.Context, s *listeners.Subscription) error {
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			return s.CloseWait(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				self := make(chan *listeners.Subscription, 1)
				calls := 0
				sub := subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
					calls++
					return end(ctx, <-self)
				}), nil, nil)
				self <- sub
				put(t, f, 1, 2, 3)
				<-sub.Done()
				if calls != 1 || sub.Err() != nil || sub.Stored() != at(1) {
					t.Errorf("%d calls, Err() = %v, Stored() = %s; want 1, nil, 1", calls, sub.Err(), sub.Stored())
				}
			})
		})
	}
}

// Two listeners that close each other wait for each other no longer than it
// takes the second to say so.
func TestListenersMayCloseEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var subs [2]*listeners.Subscription
		ready := make(chan struct{})
		for i := range subs {
			subs[i] = subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
				<-ready
				_ = subs[1-i].CloseWait(ctx)
				return nil
			}), nil, nil)
		}
		put(t, f, 1)
		synctest.Wait()
		close(ready)
		<-subs[0].Done()
		<-subs[1].Done()
	})
}

func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		put(t, f, 1)
		g := newGate()
		sub := subscribe(t, f, "s", g, nil, nil)
		if got := sub.Lag(); got != (listeners.Lag{}) {
			t.Errorf("Lag() = %+v at first, want none", got)
		}
		for c := range uint64(3) {
			b := batch(c + 2)
			b.Size, b.Tx.Time = 10, time.Now()
			f.Append(b)
			time.Sleep(time.Second)
		}
		if got, want := sub.Lag(), (listeners.Lag{Batches: 3, Bytes: 30, Age: 3 * time.Second}); got != want {
			t.Errorf("Lag() = %+v, want %+v", got, want)
		}
		g.pass <- struct{}{}
		synctest.Wait()
		if got, want := sub.Lag(), (listeners.Lag{Batches: 2, Bytes: 20, Age: 2 * time.Second}); got != want {
			t.Errorf("Lag() = %+v, want %+v", got, want)
		}
		sub.Close()
		<-sub.Done()
		f.Append(batch(9))
		if got, want := sub.Lag(), (listeners.Lag{Batches: 3, Bytes: 21}); got != want {
			t.Errorf("Lag() = %+v after the end, want %+v", got, want)
		}
	})
}

func TestLagOfABatchWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		sub := subscribe(t, f, "s", newGate(), nil, nil)
		f.Append(&listeners.Batch{Position: at(1), First: true, Last: true})
		if got, want := sub.Lag(), (listeners.Lag{Batches: 1}); got != want {
			t.Errorf("Lag() = %+v, want %+v", got, want)
		}
	})
}

func TestLiveIsClosedWhenTheListenerIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "s", g, only("public.seats"), nil)
		live := func() bool {
			synctest.Wait()
			select {
			case <-sub.Live():
				return true
			default:
				return false
			}
		}
		f.Append(marker(listeners.Snapshot, 1))
		f.Append(marker(listeners.Live, 1))
		f.Append(marker(listeners.Live, 2)) // after another reset
		if g.pass <- struct{}{}; live() {
			t.Error("live after the snapshot")
		}
		if g.pass <- struct{}{}; !live() {
			t.Error("not live after Live was handled")
		}
		if g.pass <- struct{}{}; !live() {
			t.Error("not live after a second Live")
		}
	})
}
