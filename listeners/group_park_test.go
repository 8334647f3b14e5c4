package listeners_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
)

// Of a group, one batch waits behind what is parked, and another one before it
// does not: that one comes first all the same, when both are parked.
func TestGroupIsParkedInItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		sick := true
		c := newClerk()
		c.gate = make(chan struct{})
		c.fails = func(context.Context, []*listeners.Batch) error {
			if sick {
				return errOut
			}
			return nil
		}
		opts := grouped(listeners.GroupPolicy{MaxEvents: 10})
		opts.Retry = &listeners.RetryPolicy{Attempts: 1, Park: true}
		sub := subscribe(t, f, "s", c, opts, nil)
		put(t, f, 1)
		synctest.Wait()
		put(t, f, 2) // waits behind nothing
		truncate := created(seats, 0)
		truncate.Op, truncate.After = listeners.Truncate, listeners.Record{}
		f.Append(batch(3, truncate)) // waits behind both
		synctest.Wait()
		for range 2 { // 1, then 2: 3 is not handed over
			c.gate <- struct{}{}
			synctest.Wait()
		}
		var commits []uint64
		for _, p := range sub.Parked() {
			commits = append(commits, p.Batch.Position.Commit)
		}
		if want := []uint64{1, 2, 3}; !slices.Equal(commits, want) {
			t.Errorf("parked are the commits %d, want %d", commits, want)
		}
		if p := sub.Parked(); len(p) == 3 && (p[1].Behind != 0 || p[1].Err == nil || p[2].Behind != 1) {
			t.Errorf("the second waits behind %d with error %v, the third behind %d; want it behind nothing with an error, the third behind 1", p[1].Behind, p[1].Err, p[2].Behind)
		}
		sick = false
		close(c.gate)
	})
}
