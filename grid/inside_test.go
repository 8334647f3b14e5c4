package grid_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

func TestAListenerMayPutDeleteSubscribeAndCloseFromInside(t *testing.T) {
	for name, workers := range map[string]int{"one goroutine": 0, "three workers": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := open[string](t, newGrid(t), "r", &grid.RegionOptions[int]{FeedBytes: 1})
				inner := newTwin()
				var sub *listeners.Subscription
				subscribed, calls := make(chan struct{}), 0
				act := func(ctx context.Context, c listeners.Change[int]) error {
					<-subscribed
					if c.Key == "b" {
						return nil // another worker may hear of it before Close
					}
					calls++
					if _, err := r.Put(ctx, "b", 2); err != nil {
						return err
					}
					if _, existed, err := r.Delete(ctx, "a"); !existed || err != nil {
						t.Errorf("Delete(a) = %t, %v; want true, nil", existed, err)
					}
					s, err := r.Subscribe("inner", inner, current)
					if err != nil {
						return err
					}
					<-s.Live()
					return sub.CloseWait(ctx)
				}
				sub = subscribe(t, r, listeners.Handlers[int]{OnCreate: act}, &listeners.SubscribeOptions{Workers: workers})
				close(subscribed)
				put(t, r, "a", 1)
				<-sub.Done()
				put(t, r, "c", 3)
				synctest.Wait()
				inner.check(t, r, "write create c 0 3")
				if calls != 1 || sub.Err() != nil {
					t.Errorf("%d calls, Err() = %v; want one and nil", calls, sub.Err())
				}
			})
		})
	}
}

func TestAListenerThatHangsStopsNoWriterUnlessItBlocks(t *testing.T) {
	for name, opts := range map[string]*listeners.SubscribeOptions{
		"block":      nil,
		"conflate":   {Overflow: listeners.OverflowConflate, BacklogBytes: 1},
		"reset":      {Overflow: listeners.OverflowReset, BacklogBytes: 1, Current: true},
		"disconnect": {Overflow: listeners.OverflowDisconnect, BacklogBytes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := open[string](t, newGrid(t), "r", &grid.RegionOptions[int]{FeedBytes: 1})
				sub := subscribe(t, r, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
					<-ctx.Done()
					return ctx.Err()
				}), opts)
				put(t, r, "a", 1)
				reason := errors.New("the request is over")
				var err error
				for range 20 {
					ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
					_, err = r.Put(ctx, "a", 2)
					cancel()
					if err != nil {
						break
					}
				}
				if blocks := opts == nil; errors.Is(err, reason) != blocks || (err != nil) != blocks {
					t.Errorf("Put() = %v; it should wait for its context: %t", err, blocks)
				}
				sub.Close()
				put(t, r, "a", 3) // who was closed stops nobody
			})
		})
	}
}
