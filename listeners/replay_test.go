package listeners_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// What the feed does not have comes from elsewhere, up to some place, and from
// there on from the feed.
func TestReplayTellsWhatTheFeedDoesNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asked []listeners.Position
		f := listeners.NewFeed(&listeners.FeedOptions{Replay: func(_ context.Context, from listeners.Position, emit func(*listeners.Batch) error) (listeners.Position, error) {
			mu.Lock()
			asked = append(asked, from)
			mu.Unlock()
			if from.Commit < 2 {
				return listeners.Position{}, &listeners.HistoryError{}
			}
			for commit := from.Commit + 1; commit <= 5; commit++ {
				if err := emit(batch(commit, created(seats, int(commit)))); err != nil {
					return listeners.Position{}, err
				}
			}
			return at(5), nil
		}})
		put(t, f, 4)
		var replayed, state, gone listenertest.Recorder
		sub := subscribe(t, f, "replayed", &replayed, from(at(2)), nil)
		current := subscribe(t, f, "state", &state, from(at(1)), tells(5))
		lost := subscribe(t, f, "gone", &gone, from(at(1)), nil)
		put(t, f, 5, 6)
		synctest.Wait()
		wantHeard(t, &replayed, "3:(s3), 4:(s4), 5:(s5), 6:(s6)")
		wantHeard(t, &state, "reset 5:(), snapshot 5:(), live 5:(), 6:(s6)")
		if got := sub.Stored(); got != at(6) {
			t.Errorf("Stored() = %s, want %s", got, at(6))
		}
		var history *listeners.HistoryError
		if err := lost.Err(); !errors.As(err, &history) || history.Subscription != "gone" || history.Asked != at(1) {
			t.Errorf("Err() = %v, want a HistoryError that names the subscription and %s", err, at(1))
		}
		for _, s := range []*listeners.Subscription{sub, current} {
			if err := s.CloseWait(t.Context()); err != nil || s.Err() != nil {
				t.Errorf("CloseWait = %v, Err() = %v", err, s.Err())
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(asked) != 3 {
			t.Errorf("it was asked for %v, want three positions", asked)
		}
	})
}

// Who leaves while it is told what it has missed goes on there the next time.
func TestReplayStoresHowFarItHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		positions := listeners.NewFilePositions(t.TempDir())
		replay := func(ctx context.Context, from listeners.Position, emit func(*listeners.Batch) error) (listeners.Position, error) {
			if from.Commit < 3 {
				if err := emit(batch(from.Commit+1, created(seats, int(from.Commit)+1))); err != nil {
					return listeners.Position{}, err
				}
				<-ctx.Done()
				return listeners.Position{}, context.Cause(ctx)
			}
			return from, nil
		}
		for commit := uint64(2); commit <= 3; commit++ {
			f := listeners.NewFeed(&listeners.FeedOptions{Replay: replay})
			var r listenertest.Recorder
			sub := subscribe(t, f, "name", &r, &listeners.SubscribeOptions{From: at(1), Positions: positions}, nil)
			synctest.Wait()
			if err := sub.CloseWait(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantHeard(t, &r, map[uint64]string{2: "2:(s2)", 3: "3:(s3)"}[commit])
		}
	})
}
