package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func workers(n int) *listeners.SubscribeOptions { return &listeners.SubscribeOptions{Workers: n} }

// A crew is a listener that is slow, so that its workers overlap; it writes down
// what began and ended.
type crew struct {
	takes time.Duration

	mu      sync.Mutex
	running int
	most    int
	log     []string
	began   time.Time
}

func (c *crew) OnBatch(_ context.Context, b *listeners.Batch) error {
	c.mu.Lock()
	c.running++
	c.most = max(c.most, c.running)
	c.mu.Unlock()
	time.Sleep(c.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	var keys []string
	for i := range b.Events {
		keys = append(keys, b.Events[i].Key().String())
	}
	c.log = append(c.log, fmt.Sprintf("%s %d %s %s", time.Since(c.began), b.Position.Commit, b.Kind, strings.Join(keys, " ")))
	return nil
}

func TestWorkersRunAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		c := &crew{takes: time.Second, began: time.Now()}
		sub := subscribe(t, f, "s", c, workers(4), nil)
		var events []listeners.Event
		for i := range 100 {
			events = append(events, created(seats, i))
		}
		f.Append(batch(1, events...))
		began := time.Now()
		if err := sub.Wait(t.Context(), at(1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second || c.most != 4 || len(c.log) != 4 {
			t.Errorf("it took %s with %d at the same time, in %d parts; want 1s, 4, 4", took, c.most, len(c.log))
		}
	})
}

func TestWhatConcernsSeveralKeysIsHandedOverAlone(t *testing.T) {
	keyless := listeners.NewSchema("shop", "public", "log", []listeners.Column{{Name: "text"}})
	for name, e := range map[string]listeners.Event{
		"truncate":        {Op: listeners.Truncate, Schema: seats},
		"message":         {Op: listeners.Message, Schema: keyless, After: record(keyless, "said")},
		"without a key":   {Op: listeners.Create, Schema: keyless, After: record(keyless, "said")},
		"another key":     updated(seats, 1, 2),
		"key that is nil": {Op: listeners.Create, Schema: seats, After: record(seats, nil, "A", 1, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				c := &crew{takes: time.Second, began: time.Now()}
				sub := subscribe(t, f, "s", c, workers(8), nil)
				var many []listeners.Event
				for i := range 20 {
					many = append(many, created(seats, i))
				}
				f.Append(batch(1, slices.Clone(many)...))
				f.Append(batch(2, created(seats, 1), e, created(seats, 9)))
				f.Append(batch(3, slices.Clone(many)...))
				if err := sub.Wait(t.Context(), at(3)); err != nil {
					t.Fatal(err)
				}
				i := slices.IndexFunc(c.log, func(s string) bool { return strings.HasPrefix(s, "2s 2 ") })
				if i < 0 || !strings.HasPrefix(c.log[i-1], "1s 1 ") || !strings.HasPrefix(c.log[i+1], "3s 3 ") || time.Since(c.began) != 3*time.Second {
					t.Errorf("the order was\n%s", strings.Join(c.log, "\n"))
				}
			})
		})
	}
}

func TestMarkersAreHandedOverAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		c := &crew{takes: time.Second, began: time.Now()}
		var many []listeners.Event
		for i := range 200 { // so that each worker has some
			many = append(many, created(seats, i))
			many[i].Op = listeners.Read
		}
		sub := subscribe(t, f, "s", c, workers(4), func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			for _, b := range []*listeners.Batch{marker(listeners.Reset, 0), marker(listeners.Snapshot, 0, many...), marker(listeners.Live, 0)} {
				if err := emit(b); err != nil {
					return at(0), err
				}
			}
			return at(0), nil
		})
		<-sub.Live()
		if len(c.log) != 6 || !strings.HasPrefix(c.log[0], "1s 0 reset") || !strings.HasPrefix(c.log[1], "2s 0 snapshot") || !strings.HasPrefix(c.log[5], "3s 0 live") {
			t.Errorf("the order was\n%s", strings.Join(c.log, "\n"))
		}
	})
}

// An early position is not passed by a later one.
func TestStoredOfWorkersIsUpToWhereEverythingIsHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		slow := make(chan struct{})
		var handled atomic.Int64
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			if b.Position.Commit == 2 {
				<-slow
			}
			handled.Add(1)
			return nil
		}), workers(16), nil)
		put(t, f, 1)
		synctest.Wait()
		put(t, f, 2, 3, 4, 5, 6, 7, 8)
		synctest.Wait()
		if handled.Load() < 2 {
			t.Error("no worker went on")
		}
		if got, lag := sub.Stored(), sub.Lag(); got != at(1) || lag.Batches != 7 || lag.Bytes != 7 {
			t.Errorf("Stored() = %s, Lag() = %+v; want %s, 7 batches", got, lag, at(1))
		}
		close(slow)
		synctest.Wait()
		if got, lag := sub.Stored(), sub.Lag(); got != at(8) || lag != (listeners.Lag{}) {
			t.Errorf("Stored() = %s, Lag() = %+v; want %s, none", got, lag, at(8))
		}
	})
}

func TestWorkersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 10})
		goOn := make(chan struct{})
		opts := workers(4)
		opts.InFlightBytes = 20
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			<-goOn
			return nil
		}), opts, nil)
		var n atomic.Int64
		go func() {
			for c := range uint64(100) {
				put(t, f, c+1)
				n.Add(1)
			}
		}()
		synctest.Wait()
		// A writer that waits goes on when a quarter of the feed is free.
		taken := n.Load()
		if taken < 27 || taken > 30 {
			t.Errorf("%d batches of 1 byte were taken, want 20 in flight and 10 in the feed, or nearly", taken)
		}
		if got := sub.Lag(); int64(got.Batches) != taken || got.Bytes != taken {
			t.Errorf("Lag() = %+v, want %d batches", got, taken)
		}
		close(goOn)
		synctest.Wait()
		if got := sub.Stored(); got != at(100) {
			t.Errorf("Stored() = %s, want %s", got, at(100))
		}
	})
}

func TestFailingWorkerEndsTheSubscription(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error":  func() error { return errOut },
		"panic":  func() error { panic(errOut) },
		"Goexit": func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				var others, cancelled atomic.Int64
				sub := subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
					if b.Position.Commit == 5 {
						synctest.Wait() // until the others hang
						return fail()
					}
					if b.Position.Commit == 1 {
						return nil
					}
					others.Add(1)
					<-ctx.Done()
					cancelled.Add(1)
					return context.Cause(ctx)
				}), workers(16), nil)
				put(t, f, 1)
				synctest.Wait()
				put(t, f, 5, 2, 9)
				<-sub.Done()
				failed, ok := errors.AsType[*listeners.ListenerError](sub.Err())
				if !ok || failed.Position != at(5) || (name != "Goexit" && name != "panic" && !errors.Is(failed, errOut)) {
					t.Errorf("Err() = %v, want a ListenerError at %s", sub.Err(), at(5))
				}
				if _, panicked := errors.AsType[*listeners.PanicError](sub.Err()); panicked != (name == "panic") {
					t.Errorf("Err() = %v", sub.Err())
				}
				if others.Load() != cancelled.Load() {
					t.Errorf("%d callbacks, %d were cancelled", others.Load(), cancelled.Load())
				}
				if got := sub.Stored(); got != at(1) {
					t.Errorf("Stored() = %s, want %s", got, at(1))
				}
			})
		})
	}
}

func TestCloseWaitWaitsForAllWorkers(t *testing.T) {
	for range 200 {
		f := listeners.NewFeed(nil)
		var over, running atomic.Int64
		called := make(chan struct{}, 100)
		sub, err := f.Subscribe("s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			running.Add(1)
			defer running.Add(-1)
			if over.Load() != 0 {
				t.Error("a callback began after CloseWait")
			}
			called <- struct{}{}
			runtime.Gosched()
			return nil
		}), workers(4), nil)
		if err != nil {
			t.Fatal(err)
		}
		for c := range uint64(50) {
			f.Append(batch(c+1, created(seats, int(c))))
		}
		<-called
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		over.Store(1)
		if n := running.Load(); n != 0 {
			t.Fatalf("%d callbacks ran when CloseWait had returned", n)
		}
	}
}

func TestWorkerMayUseItsFeedAndSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1})
		var rec listenertest.Recorder
		var commit sync.Mutex
		var sub *listeners.Subscription
		ready := make(chan struct{})
		sub = subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
			<-ready
			if b.Position.Commit < 10 {
				if err := f.Reserve(ctx); err != nil {
					return err
				}
				commit.Lock()
				f.Append(batch(b.Position.Commit+10, created(seats, 0)))
				commit.Unlock()
				if err := sub.Wait(ctx, at(b.Position.Commit+10)); err == nil {
					return errors.New("it waited for itself")
				}
			} else if err := sub.CloseWait(ctx); err != nil {
				return err
			}
			return rec.OnBatch(ctx, b)
		}), workers(2), nil)
		put(t, f, 1)
		close(ready)
		<-sub.Done()
		if got := heard(&rec); got != "1:(s1), 11:(s0)" || sub.Err() != nil {
			t.Errorf("heard %s, Err() = %v", got, sub.Err())
		}
	})
}

// A transaction in parts has a first and a last part for each worker.
func TestPartsOfATransactionHaveAFirstAndALastForEachWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var mu sync.Mutex
		perKey := map[string][]string{}
		var order []string
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			var keys []string
			for i := range b.Events {
				keys = append(keys, b.Events[i].Key().String())
				perKey[keys[i]] = append(perKey[keys[i]], fmt.Sprintf("%d.%d", b.Position.Commit, b.Position.Index))
			}
			order = append(order, fmt.Sprintf("%d %t-%t %s", b.Position.Index, b.First, b.Last, strings.Join(keys, " ")))
			return nil
		}), workers(4), nil)
		truncate := listeners.Event{Op: listeners.Truncate, Schema: trains}
		for _, b := range []*listeners.Batch{
			part(1, 1, true, false, created(seats, 1), created(seats, 2), created(seats, 3), created(seats, 4)),
			part(1, 2, false, false, created(seats, 1), truncate, created(seats, 2)),
			part(1, 3, false, false),
			part(1, 4, false, true, created(seats, 1)),
			batch(2, created(seats, 1)),
		} {
			f.Append(b)
		}
		if err := sub.Wait(t.Context(), at(2)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(perKey["1"], " "); got != "1.1 1.2 1.4 2.0" {
			t.Errorf("key 1 came with %s", got)
		}
		firsts, lasts := 0, 0
		for _, s := range order {
			if strings.Contains(s, "true-") {
				firsts++
			}
			if strings.Contains(s, "-true") {
				lasts++
			}
		}
		if firsts != lasts || firsts < 3 {
			t.Errorf("%d first and %d last parts in\n%s", firsts, lasts, strings.Join(order, "\n"))
		}
	})
}

func TestWorkersParkOnlyTheirPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var mu sync.Mutex
		heard := map[string][]uint64{}
		sick := true
		opts := parks(listeners.RetryPolicy{})
		opts.Workers = 4
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			for i := range b.Events {
				if b.Position.Commit == 2 && b.Events[i].Key().String() == "1" && sick {
					return errOut
				}
			}
			for i := range b.Events {
				k := b.Events[i].Key().String()
				heard[k] = append(heard[k], b.Position.Commit)
			}
			return nil
		}), opts, nil)
		var many []listeners.Event
		for i := range 40 {
			many = append(many, created(seats, i))
		}
		for c := range uint64(4) {
			f.Append(batch(c+1, slices.Clone(many)...))
			synctest.Wait()
		}
		ps := sub.Parked()
		if len(ps) != 3 || len(ps[0].Batch.Events) >= 40 || ps[0].Batch.Size > 1 || ps[1].Behind != 1 || ps[2].Behind != 1 {
			t.Fatalf("parked %s", parked(sub))
		}
		for i := range many {
			k := many[i].Key().String()
			stuck := slices.ContainsFunc(ps[0].Batch.Events, func(e listeners.Event) bool { return e.Key().String() == k })
			want := "[1 2 3 4]"
			if stuck {
				want = "[1]"
			}
			if got := fmt.Sprint(heard[k]); got != want {
				t.Errorf("key %s came with %s, want %s", k, got, want)
			}
		}
		if got := sub.Stored(); got != at(1) {
			t.Errorf("Stored() = %s, want %s", got, at(1))
		}
		// A barrier waits behind it, too.
		f.Append(batch(5, listeners.Event{Op: listeners.Truncate, Schema: seats}))
		synctest.Wait()
		if len(sub.Parked()) != 4 {
			t.Errorf("parked %s", parked(sub))
		}
		mu.Lock()
		sick = false
		mu.Unlock()
		if err := sub.RetryParked(t.Context(), 1); err != nil {
			t.Error(err)
		}
		wantParked(t, sub, "")
		if got := fmt.Sprint(heard["1"]); got != "[1 2 3 4]" || sub.Stored() != at(5) {
			t.Errorf("key 1 came with %s, Stored() = %s", got, sub.Stored())
		}
	})
}

// A worker that waits to try again holds up its own keys only.
func TestRetryOfAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var others atomic.Int64
		opts := retry(listeners.RetryPolicy{Delay: time.Hour, MaxDelay: time.Hour, Attempts: 2})
		opts.Workers = 64
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
			if b.Position.Commit == 1 && listeners.Attempt(ctx) == 1 {
				return errOut
			}
			others.Add(1)
			return nil
		}), opts, nil)
		put(t, f, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		synctest.Wait()
		if others.Load() < 4 || !sub.Stored().IsZero() {
			t.Errorf("%d batches were handled, Stored() = %s", others.Load(), sub.Stored())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if others.Load() != 9 || sub.Stored() != at(9) {
			t.Errorf("%d batches were handled, Stored() = %s", others.Load(), sub.Stored())
		}
	})
}

func TestGroupsOfWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		c := newClerk()
		opts := grouped(listeners.GroupPolicy{MaxWait: time.Second})
		opts.Workers = 3
		var mu sync.Mutex
		perKey := map[string][]uint64{}
		c.fails = func(_ context.Context, batches []*listeners.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			for _, b := range batches {
				for i := range b.Events {
					k := b.Events[i].Key().String()
					perKey[k] = append(perKey[k], b.Position.Commit)
				}
			}
			return nil
		}
		sub := subscribe(t, f, "s", c, opts, nil)
		for n := range uint64(50) {
			f.Append(batch(n+1, created(seats, int(n%5)), created(seats, int(n%5+5))))
		}
		began := time.Now()
		if err := sub.Wait(t.Context(), at(50)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second || len(c.groups) > 3 {
			t.Errorf("it took %s, heard %s", took, c.heard())
		}
		for k, commits := range perKey {
			if len(commits) != 10 || !slices.IsSorted(commits) {
				t.Errorf("key %s came with %d", k, commits)
			}
		}
	})
}

func TestWorkersHoldNothing(t *testing.T) {
	f := listeners.NewFeed(nil)
	opts := workers(3)
	opts.Group = &listeners.GroupPolicy{}
	opts.Retry = &listeners.RetryPolicy{Park: true}
	sub := subscribe(t, f, "s", listeners.GroupFunc(func(context.Context, []*listeners.Batch) error { return nil }), opts, nil)
	p := appendWeak(f, 1)
	if err := sub.Wait(t.Context(), at(1)); err != nil {
		t.Fatal(err)
	}
	if !collected(t, p) {
		t.Error("a batch that was handled is still in memory")
	}
	runtime.KeepAlive(sub)
}
