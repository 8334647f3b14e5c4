package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

var errOut = errors.New("out of order")

// A moody listener records what it does not fail at, and when it was called for
// what.
type moody struct {
	listenertest.Recorder

	fails func(ctx context.Context, b *listeners.Batch) error
	calls []string
	began time.Time
}

func (m *moody) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if m.began.IsZero() {
		m.began = time.Now()
	}
	m.calls = append(m.calls, fmt.Sprintf("%d#%d@%s", b.Position.Commit, listeners.Attempt(ctx), time.Since(m.began)))
	if m.fails != nil {
		if err := m.fails(ctx, b); err != nil {
			return err
		}
	}
	return m.Recorder.OnBatch(ctx, b)
}

func (m *moody) called() string { return strings.Join(m.calls, " ") }

// failing fails at one commit until a number of attempts.
func failing(commit uint64, until int) func(context.Context, *listeners.Batch) error {
	return func(ctx context.Context, b *listeners.Batch) error {
		if b.Position.Commit == commit && listeners.Attempt(ctx) < until {
			return errOut
		}
		return nil
	}
}

func retry(p listeners.RetryPolicy) *listeners.SubscribeOptions {
	if p.Jitter == 0 {
		p.Jitter = -1
	}
	return &listeners.SubscribeOptions{Retry: &p}
}

func TestRetryWaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		m := &moody{fails: failing(2, 5)}
		sub := subscribe(t, f, "s", m, retry(listeners.RetryPolicy{Delay: time.Second, MaxDelay: 5 * time.Second, Multiplier: 3}), nil)
		put(t, f, 1, 2, 3)
		synctest.Wait()
		if got := sub.Stored(); got != at(1) {
			t.Errorf("Stored() = %s while 2 is retried, want %s", got, at(1))
		}
		time.Sleep(time.Minute)
		wantHeard(t, &m.Recorder, "1:(s1), 2:(s2), 3:(s3)")
		const want = "1#1@0s 2#1@0s 2#2@1s 2#3@4s 2#4@9s 2#5@14s 3#1@14s"
		if got := m.called(); got != want {
			t.Errorf("called %s\nwant   %s", got, want)
		}
	})
}

func TestRetryEndsTheSubscriptionAfterItsAttempts(t *testing.T) {
	for name, tc := range map[string]struct {
		policy listeners.RetryPolicy
		fails  func(context.Context, *listeners.Batch) error
		calls  int
	}{
		"default":            {listeners.RetryPolicy{}, failing(1, 1000), 5},
		"one attempt":        {listeners.RetryPolicy{Attempts: 1}, failing(1, 1000), 1},
		"not retryable":      {listeners.RetryPolicy{Retryable: func(err error) bool { return !errors.Is(err, errOut) }}, failing(1, 1000), 1},
		"panics":             {listeners.RetryPolicy{Attempts: 3}, func(context.Context, *listeners.Batch) error { panic(errOut) }, 3},
		"not retryable call": {listeners.RetryPolicy{Retryable: func(error) bool { panic("no") }}, failing(1, 1000), 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				m := &moody{fails: tc.fails}
				sub := subscribe(t, f, "s", m, retry(tc.policy), nil)
				put(t, f, 1, 2)
				<-sub.Done()
				failed, ok := errors.AsType[*listeners.ListenerError](sub.Err())
				if !ok || failed.Position != at(1) || failed.Subscription != "s" {
					t.Fatalf("Err() = %v, want a ListenerError at %s", sub.Err(), at(1))
				}
				if panicked, ok := errors.AsType[*listeners.PanicError](sub.Err()); ok {
					if !strings.Contains(string(panicked.Stack), "retry_test.go") {
						t.Errorf("the stack of the panic is %s", panicked.Stack)
					}
				} else if !errors.Is(failed, errOut) {
					t.Errorf("Err() = %v, want one that wraps %v", failed, errOut)
				}
				if len(m.calls) != tc.calls {
					t.Errorf("%d calls, want %d: %s", len(m.calls), tc.calls, m.called())
				}
			})
		})
	}
}

func TestRetryJitterOnlyShortens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		m := &moody{fails: failing(1, 101)}
		subscribe(t, f, "s", m, retry(listeners.RetryPolicy{Attempts: 101, Delay: time.Second, Multiplier: 1, Jitter: 0.5}), nil)
		put(t, f, 1)
		began := time.Now()
		for len(m.Batches()) == 0 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		// 100 delays of 0.5 to 1 s.
		if took := time.Since(began); took < 60*time.Second || took > 95*time.Second {
			t.Errorf("100 delays took %s, want about 75s", took)
		}
	})
}

func TestRetryDelayEndsWith(t *testing.T) {
	for name, tc := range map[string]struct {
		end   func(*listeners.Feed, *listeners.Subscription)
		fails bool
	}{
		"Close":               {func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() }, false},
		"the end of its feed": {func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() }, true},
		"both, while paused": {func(f *listeners.Feed, s *listeners.Subscription) {
			s.Pause()
			synctest.Wait()
			f.Close()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				m := &moody{fails: failing(1, 1000)}
				sub := subscribe(t, f, "s", m, retry(listeners.RetryPolicy{Delay: time.Hour, MaxDelay: time.Hour}), nil)
				put(t, f, 1)
				synctest.Wait()
				began := time.Now()
				tc.end(f, sub)
				<-sub.Done()
				if took := time.Since(began); took != 0 || len(m.calls) != 1 {
					t.Errorf("it took %s and the calls %s", took, m.called())
				}
				if err := sub.Err(); (err != nil) != tc.fails || (tc.fails && !errors.Is(err, errOut)) {
					t.Errorf("Err() = %v, want an error: %t", err, tc.fails)
				}
			})
		})
	}
}

func TestRetryGoesOnWhenResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		m := &moody{fails: failing(1, 3)}
		sub := subscribe(t, f, "s", m, retry(listeners.RetryPolicy{Delay: time.Minute, MaxDelay: time.Hour, Multiplier: 1}), nil)
		put(t, f, 1)
		synctest.Wait()
		for range 2 {
			sub.Pause()
			time.Sleep(time.Second)
			synctest.Wait()
			calls := m.called()
			time.Sleep(time.Hour)
			synctest.Wait()
			if m.called() != calls {
				t.Fatalf("called %s while paused", m.called())
			}
			sub.Resume()
			synctest.Wait()
		}
		if got, want := m.called(), "1#1@0s 1#2@1h0m1s 1#3@2h0m2s"; got != want {
			t.Errorf("called %s, want %s", got, want)
		}
	})
}

func TestRetryOfAGoexitIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		calls := 0
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			calls++
			runtime.Goexit()
			return nil
		}), retry(listeners.RetryPolicy{}), nil)
		put(t, f, 1)
		<-sub.Done()
		if failed, ok := errors.AsType[*listeners.ListenerError](sub.Err()); !ok || failed.Position != at(1) || calls != 1 {
			t.Errorf("Err() = %v after %d calls", sub.Err(), calls)
		}
	})
}

func TestSubscribeReportsAllFaultsOfRetry(t *testing.T) {
	f := listeners.NewFeed(nil)
	_, err := f.Subscribe("s", newStore(), &listeners.SubscribeOptions{
		Retry: &listeners.RetryPolicy{Attempts: -1, Multiplier: 0.5, Jitter: 2, Delay: time.Hour, MaxDelay: time.Minute, Park: true},
	}, nil)
	if err == nil {
		t.Fatal("Subscribe returned no error")
	}
	for _, want := range []string{"negative", "Multiplier of 0.5", "Jitter of 2", "1h0m0s", "Durable"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestRetryOfADurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := newStore()
		fails := 2
		s.Err = func(*listeners.Batch) error {
			if fails--; fails >= 0 {
				return errOut
			}
			return nil
		}
		sub := subscribe(t, f, "s", s, retry(listeners.RetryPolicy{}), nil)
		put(t, f, 1)
		time.Sleep(time.Minute)
		wantHeard(t, &s.Recorder, "1:(s1)")
		if got := sub.Stored(); !got.IsZero() {
			t.Errorf("Stored() = %s before the flush", got)
		}
		s.stalled <- struct{}{}
		synctest.Wait()
		if got := sub.Stored(); got != at(1) {
			t.Errorf("Stored() = %s, want %s", got, at(1))
		}
	})
}
