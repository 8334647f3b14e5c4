package listeners_test

import (
	"context"
	"errors"
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

// Storing the last position takes time. Who waits then gets the reason of the
// end, not that somebody has closed the subscription.
func TestWaitDuringTheLastSaveTellsWhyItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		l := newSick(2)
		sub := subscribe(t, f, "s", l, durably(slowly{s}), nil)
		put(t, f, 1, 2)
		synctest.Wait()
		if ended(sub) {
			t.Fatal("it has ended without waiting for the store")
		}
		if err := sub.Wait(t.Context(), at(2)); !errors.Is(err, errOut) || errors.Is(err, listeners.ErrClosed) {
			t.Errorf("Wait = %v, want the listener's error", err)
		}
	})
}

// slowly is a store that takes a second for each position.
type slowly struct{ *shelf }

func (s slowly) Open(ctx context.Context, name string) (listeners.PositionKeeper, listeners.Position, error) {
	k, at, err := s.shelf.Open(ctx, name)
	return slowKeeper{k}, at, err
}

type slowKeeper struct{ listeners.PositionKeeper }

func (k slowKeeper) Save(ctx context.Context, p listeners.Position) error {
	time.Sleep(time.Second)
	return k.PositionKeeper.Save(ctx, p)
}
