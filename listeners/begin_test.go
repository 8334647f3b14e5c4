package listeners_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// beginsAt returns options of a feed whose first batch comes behind a position.
func beginsAt(p listeners.Position, history int64) *listeners.FeedOptions {
	return &listeners.FeedOptions{
		HistoryBytes: history,
		Begin:        func(context.Context) (listeners.Position, error) { return p, nil },
		Resume: func(_ context.Context, from listeners.Position) (listeners.Position, error) {
			if from == p {
				return from, nil
			}
			return listeners.Position{}, &listeners.HistoryError{Asked: from, Oldest: p}
		},
	}
}

// Somebody who leaves an empty feed has begun all the same.
func TestNameThatLeavesAnEmptyFeedMissesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := listeners.Position{Epoch: 1}
		f, s := listeners.NewFeed(beginsAt(begin, 100)), newShelf()
		sub := subscribe(t, f, "s", new(listenertest.Recorder), durably(s), nil)
		synctest.Wait()
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if saved, err := sub.Saved(); saved != begin || err != nil {
			t.Errorf("Saved() = %s, %v; want %s, where it began", saved, err, begin)
		}
		put(t, f, 1, 2)
		var rec listenertest.Recorder
		subscribe(t, f, "s", &rec, durably(s), nil)
		put(t, f, 3)
		wantHeard(t, &rec, "1:(s1), 2:(s2), 3:(s3)")
	})
}

func TestNameThatLeavesAnEmptyFeedWithoutHistoryIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(beginsAt(listeners.Position{Epoch: 1}, 0)), newShelf()
		sub := subscribe(t, f, "s", new(listenertest.Recorder), durably(s), nil)
		synctest.Wait()
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		put(t, f, 1)
		again := subscribe(t, f, "s", new(listenertest.Recorder), durably(s), nil)
		<-again.Done()
		if _, gone := errors.AsType[*listeners.HistoryError](again.Err()); !gone {
			t.Errorf("Err() = %v, want a HistoryError", again.Err())
		}
	})
}

// A name that was subscribed before the first batch begins there, even if that
// has come when the feed says where it begins.
func TestBeginIsThatOfSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := beginsAt(listeners.Position{Epoch: 1}, 0)
		known := make(chan struct{})
		o.Begin = func(context.Context) (listeners.Position, error) {
			<-known
			return listeners.Position{Epoch: 1}, nil
		}
		f, s := listeners.NewFeed(o), newShelf()
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, durably(s), nil)
		put(t, f, 1)
		synctest.Wait()
		if got := sub.Stored(); !got.IsZero() {
			t.Errorf("Stored() = %s before it is known where the feed begins", got)
		}
		close(known)
		wantHeard(t, &rec, "1:(s1)")
	})
}

func TestErrorOfBeginEndsTheSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{Begin: func(context.Context) (listeners.Position, error) { return listeners.Position{}, errOut }})
		sub := subscribe(t, f, "s", new(listenertest.Recorder), durably(newShelf()), nil)
		<-sub.Done()
		if !errors.Is(sub.Err(), errOut) {
			t.Errorf("Err() = %v, want %v", sub.Err(), errOut)
		}
		other := subscribe(t, f, "other", new(listenertest.Recorder), nil, nil)
		synctest.Wait()
		if ended(other) {
			t.Error("a subscription that stores nothing has asked where the feed begins")
		}
	})
}

// What the trunk has taken before Subscribe is not for a name of a branch.
func TestNameOnABranchBeginsBehindWhatTheTrunkHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trunk := listeners.NewFeed(nil)
		var branch *listeners.Feed
		pass := make(chan struct{})
		up := subscribe(t, trunk, "up", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			<-pass
			branch.Append(b)
			return nil
		}), nil, nil)
		branch = listeners.NewFeed(&listeners.FeedOptions{Upstream: up})
		put(t, trunk, 1) // on its way into the branch
		s := newShelf()
		var rec, plain listenertest.Recorder
		sub := subscribe(t, branch, "s", &rec, durably(s), nil)
		subscribe(t, branch, "plain", &plain, nil, nil)
		put(t, trunk, 2)
		close(pass)
		wantHeard(t, &plain, "2:(s2)")
		wantHeard(t, &rec, "2:(s2)")
		if err := sub.Wait(t.Context(), at(2)); err != nil {
			t.Error(err)
		}
	})
}
