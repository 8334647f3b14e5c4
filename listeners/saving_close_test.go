package listeners_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

func TestWhatWorkersHandleWhileClosingIsSaved(t *testing.T) {
	for _, workers := range []int{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			f, s := listeners.NewFeed(nil), newShelf()
			l := listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
				time.Sleep(10 * time.Second) // ignores its context, and handles the batch
				return nil
			})
			o := durably(s)
			o.Workers = workers
			sub := subscribe(t, f, "s", l, o, nil)
			put(t, f, 1)
			time.Sleep(time.Second)
			if err := sub.CloseWait(t.Context()); err != nil {
				t.Fatal(err)
			}
			saved, _ := sub.Saved()
			if saved != sub.Handled() || saved != at(1) {
				t.Errorf("workers %d: saved %s, handled %s", workers, saved, sub.Handled())
			}
		})
	}
}
