package grid_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// Nobody may come to resume it.
func TestCloseDoesNotWaitForAPausedSubscription(t *testing.T) {
	for name, opts := range map[string]*listeners.SubscribeOptions{
		"changes":   nil,
		"workers":   {Workers: 2},
		"its state": {Current: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := grid.New("g", nil)
				r := open[int, int](t, g, "r", nil)
				paused, other := new(listenertest.Recorder), new(listenertest.Recorder)
				sub := subscribe(t, r, paused, opts)
				sub.Pause()
				subscribe(t, r, other, nil)
				for i := range 3 {
					put(t, r, i, i)
				}
				began := time.Now()
				if err := g.Close(deadline(t)); err != nil || time.Since(began) > time.Second {
					t.Errorf("Close() = %v after %s, want nil at once", err, time.Since(began))
				}
				select {
				case <-sub.Done():
				default:
					t.Fatal("the paused subscription goes on after Close")
				}
				if err := sub.Reason(); sub.Err() != nil || !errors.Is(err, listeners.ErrClosed) {
					t.Errorf("Reason() = %v, Err() = %v; want that the region was closed, and no error", err, sub.Err())
				}
				if n := len(other.Batches()); n != 3 {
					t.Errorf("who was not paused heard %d batches, want all 3", n)
				}
				for _, b := range paused.Batches() {
					if b.Kind == listeners.Changes {
						t.Errorf("the paused listener heard %v", b)
					}
				}
			})
		})
	}
}
