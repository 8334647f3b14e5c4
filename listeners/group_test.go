package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A clerk is a GroupListener that writes down each group it does not fail at.
type clerk struct {
	fails func(ctx context.Context, batches []*listeners.Batch) error
	gate  chan struct{} // nil, or one receive per group

	mu     sync.Mutex
	groups []string
	began  time.Time
}

func newClerk() *clerk { return &clerk{began: time.Now()} }

func (c *clerk) OnBatch(context.Context, *listeners.Batch) error {
	return errors.New("OnBatch was called")
}

func (c *clerk) OnBatches(ctx context.Context, batches []*listeners.Batch) error {
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if c.fails != nil {
		if err := c.fails(ctx, batches); err != nil {
			return err
		}
	}
	var s strings.Builder
	for i, b := range batches {
		if i > 0 {
			s.WriteByte(' ')
		}
		if b.Kind != listeners.Changes {
			s.WriteString(b.Kind.String() + ":")
		}
		fmt.Fprint(&s, b.Position.Commit)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.groups = append(c.groups, fmt.Sprintf("[%s]@%s", s.String(), time.Since(c.began)))
	return nil
}

func (c *clerk) heard() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.groups, " ")
}

func wantGroups(t testing.TB, c *clerk, want string) {
	t.Helper()
	synctest.Wait()
	if got := c.heard(); got != want {
		t.Errorf("heard %s\nwant  %s", got, want)
	}
}

func grouped(p listeners.GroupPolicy) *listeners.SubscribeOptions {
	return &listeners.SubscribeOptions{Group: &p}
}

func TestGroupIsWhatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		c := newClerk()
		c.gate = make(chan struct{})
		sub := subscribe(t, f, "s", c, grouped(listeners.GroupPolicy{}), nil)
		put(t, f, 1)
		synctest.Wait() // it is told at once
		put(t, f, 2, 3, 4)
		synctest.Wait()
		if got := sub.Lag(); got.Batches != 4 || got.Bytes != 4 || got.Age != max(0, time.Since(batch(1).Tx.Time)) {
			t.Errorf("Lag() = %+v, want 4 batches of 4 bytes", got)
		}
		if got := sub.Stored(); !got.IsZero() {
			t.Errorf("Stored() = %s before anything is handled", got)
		}
		c.gate <- struct{}{}
		wantGroups(t, c, "[1]@0s")
		if got := sub.Stored(); got != at(1) {
			t.Errorf("Stored() = %s, want %s", got, at(1))
		}
		c.gate <- struct{}{}
		wantGroups(t, c, "[1]@0s [2 3 4]@0s")
		if err := sub.Wait(t.Context(), at(4)); err != nil {
			t.Error(err)
		}
		if got := sub.Lag(); got != (listeners.Lag{}) {
			t.Errorf("Lag() = %+v, want none", got)
		}
	})
}

func TestGroupIsBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		policy listeners.GroupPolicy
		want   string
	}{
		"by events":    {listeners.GroupPolicy{MaxEvents: 4}, "[1]@0s [2 3]@0s [4]@0s [5]@0s [6]@0s"},
		"by bytes":     {listeners.GroupPolicy{MaxBytes: 20}, "[1]@0s [2 3]@0s [4 5]@0s [6]@0s"},
		"by one event": {listeners.GroupPolicy{MaxEvents: 1}, "[1]@0s [2]@0s [3]@0s [4]@0s [5]@0s [6]@0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				c := newClerk()
				c.gate = make(chan struct{})
				subscribe(t, f, "s", c, grouped(tc.policy), nil)
				for c, n := range []int{1, 2, 2, 3, 9, 1} {
					var events []listeners.Event
					for i := range n {
						events = append(events, created(seats, i))
					}
					b := batch(uint64(c+1), events...)
					b.Size = 10
					f.Append(b)
					synctest.Wait()
				}
				close(c.gate)
				wantGroups(t, c, tc.want)
			})
		})
	}
}

func TestGroupWaitsForMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		c := newClerk()
		subscribe(t, f, "s", c, grouped(listeners.GroupPolicy{MaxEvents: 3, MaxWait: time.Second}), stateAt(new(uint64)))
		wantGroups(t, c, "[reset:0]@0s [snapshot:0]@0s [live:0]@0s") // a marker does not wait
		put(t, f, 1)
		time.Sleep(900 * time.Millisecond)
		put(t, f, 2)
		time.Sleep(900 * time.Millisecond)
		put(t, f, 3, 4, 5, 6)
		time.Sleep(time.Second)
		wantGroups(t, c, "[reset:0]@0s [snapshot:0]@0s [live:0]@0s [1 2]@1s [3 4 5]@1.8s [6]@2.8s")
		put(t, f, 7)
		f.Append(marker(listeners.Reset, 8))
		wantGroups(t, c, "[reset:0]@0s [snapshot:0]@0s [live:0]@0s [1 2]@1s [3 4 5]@1.8s [6]@2.8s [7]@2.8s [reset:8]@2.8s")
		put(t, f, 9)
		synctest.Wait()
		f.Close()
		wantGroups(t, c, "[reset:0]@0s [snapshot:0]@0s [live:0]@0s [1 2]@1s [3 4 5]@1.8s [6]@2.8s [7]@2.8s [reset:8]@2.8s [9]@2.8s")
	})
}

// What waits for a group to become full must not wait for itself.
func TestGroupDoesNotWaitWhenNoMoreMayBeTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 2})
		c := newClerk()
		opts := grouped(listeners.GroupPolicy{MaxWait: time.Hour})
		opts.InFlightBytes = 3
		subscribe(t, f, "s", c, opts, nil)
		for n := range uint64(9) {
			put(t, f, n+1)
			synctest.Wait()
		}
		wantGroups(t, c, "[1 2 3]@0s [4 5 6]@0s")
		time.Sleep(time.Hour)
		wantGroups(t, c, "[1 2 3]@0s [4 5 6]@0s [7 8 9]@1h0m0s")
	})
}

func TestGroupThatFails(t *testing.T) {
	bad := func(ctx context.Context, batches []*listeners.Batch) error {
		for _, b := range batches {
			if b.Position.Commit == 3 {
				return fmt.Errorf("attempt %d at a group of %d: %w", listeners.Attempt(ctx), len(batches), errOut)
			}
		}
		return nil
	}
	type outcome struct {
		heard, parked, failed string
		stored                uint64
	}
	for name, tc := range map[string]struct {
		retry *listeners.RetryPolicy
		want  outcome
	}{
		"without a policy": {nil, outcome{"[1]@0s", "", "attempt 1 at a group of 3", 1}},
		"retried": {
			&listeners.RetryPolicy{Attempts: 2, Delay: time.Second, Jitter: -1},
			outcome{"[1]@0s [2]@1s", "", "attempt 4 at a group of 1", 2},
		},
		"parked": {
			&listeners.RetryPolicy{Attempts: 2, Delay: time.Second, Jitter: -1, Park: true},
			outcome{"[1]@0s [2]@1s [4]@2s", "1:3#4!(s3)", "", 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				c := newClerk()
				c.fails = bad
				c.gate = make(chan struct{})
				opts := grouped(listeners.GroupPolicy{})
				opts.Retry = tc.retry
				sub := subscribe(t, f, "s", c, opts, nil)
				put(t, f, 1)
				synctest.Wait()
				put(t, f, 2, 3, 4)
				synctest.Wait()
				close(c.gate)
				time.Sleep(time.Minute)
				wantGroups(t, c, tc.want.heard)
				wantParked(t, sub, tc.want.parked)
				if got := sub.Stored(); got != at(tc.want.stored) {
					t.Errorf("Stored() = %s, want %s", got, at(tc.want.stored))
				}
				err := sub.Err()
				if (err != nil) != (tc.want.failed != "") || (err != nil && !strings.Contains(err.Error(), tc.want.failed)) {
					t.Errorf("Err() = %v, want %q", err, tc.want.failed)
				}
				if tc.want.parked == "" {
					return
				}
				f.Append(batch(5, created(seats, 3)))
				put(t, f, 6)
				wantGroups(t, c, tc.want.heard+" [6]@1m0s")
				c.fails = nil
				if err := sub.RetryParked(t.Context(), 1); err != nil {
					t.Error(err)
				}
				wantGroups(t, c, tc.want.heard+" [6]@1m0s [3]@1m0s [5]@1m0s")
				if got := sub.Stored(); got != at(6) {
					t.Errorf("Stored() = %s, want %s", got, at(6))
				}
			})
		})
	}
}

func TestGroupOfADurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := &groupStore{store: newStore()}
		sub := subscribe(t, f, "s", s, grouped(listeners.GroupPolicy{}), nil)
		put(t, f, 1, 2)
		wantHeard(t, &s.Recorder, "1:(s1), 2:(s2)")
		if got := sub.Stored(); !got.IsZero() {
			t.Errorf("Stored() = %s before the flush", got)
		}
		s.stalled <- struct{}{}
		synctest.Wait()
		if got := sub.Stored(); got != at(2) {
			t.Errorf("Stored() = %s, want %s", got, at(2))
		}
		put(t, f, 3)
		synctest.Wait()
		f.Close()
		<-sub.Done()
		if got := sub.Stored(); got != at(3) || s.flushed() != 2 {
			t.Errorf("Stored() = %s after %d flushes, want %s after 2", got, s.flushed(), at(3))
		}
	})
}

type groupStore struct{ *store }

func (s *groupStore) OnBatches(ctx context.Context, batches []*listeners.Batch) error {
	for _, b := range batches {
		if err := s.OnBatch(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// A flush never runs beside OnBatches.
func TestFlushWaitsForTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		s := &groupStore{store: newStore()}
		goOn := make(chan struct{})
		s.Err = func(*listeners.Batch) error { <-goOn; return nil }
		sub := subscribe(t, f, "s", s, grouped(listeners.GroupPolicy{}), nil)
		put(t, f, 1)
		synctest.Wait()
		s.stalled <- struct{}{}
		synctest.Wait()
		if s.flushed() != 0 {
			t.Error("Flush was called during OnBatches")
		}
		close(goOn)
		synctest.Wait()
		if got := sub.Stored(); got != at(1) || s.flushed() != 1 {
			t.Errorf("Stored() = %s after %d flushes, want %s after 1", got, s.flushed(), at(1))
		}
	})
}

func TestPausedGroupEnds(t *testing.T) {
	for name, end := range map[string]func(*listeners.Feed, *listeners.Subscription){
		"by Close":      func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() },
		"with its feed": func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				c := newClerk()
				sub := subscribe(t, f, "s", c, grouped(listeners.GroupPolicy{MaxWait: time.Second}), nil)
				put(t, f, 1)
				synctest.Wait()
				sub.Pause()
				put(t, f, 2)
				time.Sleep(time.Minute)
				wantGroups(t, c, "")
				end(f, sub)
				<-sub.Done()
				wantGroups(t, c, "")
				if err := sub.Err(); err != nil || !sub.Stored().IsZero() {
					t.Errorf("Err() = %v, Stored() = %s", err, sub.Stored())
				}
			})
		})
	}
}

func TestSubscribeReportsAllFaultsOfGroupAndWorkers(t *testing.T) {
	f := listeners.NewFeed(nil)
	_, err := f.Subscribe("s", newStore(), &listeners.SubscribeOptions{
		Group: &listeners.GroupPolicy{MaxEvents: -1}, Workers: 2, InFlightBytes: -1,
	}, nil)
	if err == nil {
		t.Fatal("Subscribe returned no error")
	}
	for _, want := range []string{"MaxEvents", "OnBatches", "Durable", "InFlightBytes"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
