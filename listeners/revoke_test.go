package listeners_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A listener that is told the state again has let go of what it had. If it ends
// before it has heard that to its end, it must not go on behind the position
// that was stored before, although the feed has that history.
func TestNameThatWasNotToldTheStateToItsEndIsToldItAnew(t *testing.T) {
	for name, crash := range map[string]bool{"an orderly end": false, "a crash": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 1 << 20}), newShelf()
				now := uint64(1)
				put(t, f, 1)
				opts := durably(s)
				opts.Overflow, opts.BacklogBytes = listeners.OverflowReset, 2
				g := newGate()
				sub := subscribe(t, f, "s", g, opts, stateAt(&now))
				for range 3 {
					g.pass <- struct{}{}
				}
				time.Sleep(time.Minute)
				wantSaved(t, s, 1)
				for now = 2; now < 6; now++ {
					put(t, f, now)
					synctest.Wait()
				}
				now = 5
				g.pass <- struct{}{} // the batch that it was at
				g.pass <- struct{}{} // the reset
				wantHeard(t, &g.Recorder, "reset 1:(), snapshot 1:(s1), live 1:(), 2:(s2), reset 5:()")
				if saved, err := sub.Saved(); !saved.IsZero() || err != nil {
					t.Errorf("Saved() = %s, %v while the state is told again; want nothing", saved, err)
				}
				if sub.Stored().Compare(at(1)) < 0 {
					t.Errorf("Stored() has gone back to %s", sub.Stored())
				}
				if crash {
					s.set(errOut)
				}
				sub.Close()
				<-sub.Done()
				s.set(nil)

				var rec listenertest.Recorder
				subscribe(t, f, "s", &rec, opts, stateAt(&now))
				time.Sleep(time.Minute)
				wantHeard(t, &rec, "reset 5:(), snapshot 5:(s5), live 5:()")
				wantSaved(t, s, append(s.saved()[:len(s.saved())-1:len(s.saved())-1], 5)...)
			})
		})
	}
}

// A position that is gone may be a good one again at the next run, if its
// source was restored to an earlier time and has grown past it since. Who was
// not told the state to its end must not go on from it.
func TestPositionThatIsGoneIsNotGoneOnFromLater(t *testing.T) {
	for name, tc := range map[string]struct{ replays, stored bool }{
		"resume, From": {}, "resume, stored": {stored: true}, "replay, From": {replays: true}, "replay, stored": {replays: true, stored: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, now := newShelf(), uint64(5)
				opts := durably(s)
				if opts.From = at(7); tc.stored {
					s.at["s"], opts.From = at(7), listeners.Position{}
				}
				g := newGate()
				sub := subscribe(t, fromFeed(tc.replays, true), "s", g, opts, stateAt(&now))
				g.pass <- struct{}{}
				wantHeard(t, &g.Recorder, "reset 5:()")
				s.set(errOut) // a crash
				sub.Close()
				<-sub.Done()
				s.set(nil)
				now = 9
				var rec listenertest.Recorder
				subscribe(t, fromFeed(tc.replays, false), "s", &rec, opts, stateAt(&now))
				wantHeard(t, &rec, "reset 9:(), snapshot 9:(s9), live 9:()")
				wantSaved(t, s, 0, 9)
			})
		})
	}
}

// fromFeed returns a feed that knows by Resume or Replay whether history is gone.
func fromFeed(replays, gone bool) *listeners.Feed {
	tell := func(_ context.Context, from listeners.Position) (listeners.Position, error) {
		if gone {
			return listeners.Position{}, &listeners.HistoryError{Asked: from}
		}
		return from, nil
	}
	if !replays {
		return listeners.NewFeed(&listeners.FeedOptions{Resume: tell})
	}
	return listeners.NewFeed(&listeners.FeedOptions{Replay: func(ctx context.Context, from listeners.Position, _ func(*listeners.Batch) error) (listeners.Position, error) {
		return tell(ctx, from)
	}})
}

// As long as the position cannot be taken back, the state is not told again.
func TestStateIsNotToldAgainBeforeThePositionIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		now := uint64(1)
		opts := durably(s)
		opts.SaveInterval = time.Hour
		opts.Overflow, opts.BacklogBytes = listeners.OverflowReset, 2
		g := newGate()
		sub := subscribe(t, f, "s", g, opts, stateAt(&now))
		for range 3 {
			g.pass <- struct{}{}
		}
		wantSaved(t, s, 1)
		s.set(errOut)
		for now = 2; now < 6; now++ {
			put(t, f, now)
			synctest.Wait()
		}
		now = 5
		g.pass <- struct{}{}
		synctest.Wait()
		select {
		case g.pass <- struct{}{}:
			t.Error("the listener was called although the old position is still stored")
		default:
		}
		if _, err := sub.Saved(); !errors.Is(err, errOut) {
			t.Errorf("Saved() fails with %v, want %v", err, errOut)
		}
		s.set(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		g.pass <- struct{}{}
		wantHeard(t, &g.Recorder, "reset 1:(), snapshot 1:(s1), live 1:(), 2:(s2), reset 5:()")
	})
}

// It is told at once, however long the interval is.
func TestPositionIsTakenBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(nil), newShelf()
		now := uint64(1)
		opts := durably(s)
		opts.SaveInterval = time.Hour
		opts.Overflow, opts.BacklogBytes = listeners.OverflowReset, 2
		g := newGate()
		subscribe(t, f, "s", g, opts, stateAt(&now))
		for range 3 {
			g.pass <- struct{}{}
		}
		began := time.Now()
		for now = 2; now < 6; now++ {
			put(t, f, now)
			synctest.Wait()
		}
		now = 5
		for range 4 {
			g.pass <- struct{}{}
		}
		synctest.Wait()
		if took := time.Since(began); took > 0 {
			t.Errorf("the state was told after %s, want at once", took)
		}
	})
}

// Without Current, who was not told the state to its end cannot go on.
func TestNameThatCannotBeToldTheStateAnewEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 1 << 20}), newShelf()
		now := uint64(1)
		put(t, f, 1)
		opts := durably(s)
		opts.Overflow, opts.BacklogBytes = listeners.OverflowReset, 2
		g := newGate()
		sub := subscribe(t, f, "s", g, opts, stateAt(&now))
		for range 3 {
			g.pass <- struct{}{}
		}
		time.Sleep(time.Minute)
		for now = 2; now < 6; now++ {
			put(t, f, now)
			synctest.Wait()
		}
		g.pass <- struct{}{}
		synctest.Wait()
		sub.Close()
		<-sub.Done()
		again := subscribe(t, f, "s", new(listenertest.Recorder), durably(s), nil)
		synctest.Wait()
		if _, gone := errors.AsType[*listeners.HistoryError](again.Err()); !gone {
			t.Errorf("Err() = %v, want a HistoryError rather than a silent gap", again.Err())
		}
	})
}

// Nobody who ends before the state was told that stands for a lost history may
// believe to have handled anything.
func TestStoredIsZeroUntilTheStateIsToldForALostHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		now := uint64(3)
		put(t, f, 1, 2, 3)
		opts := &listeners.SubscribeOptions{From: at(1)}
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return errOut }), opts, stateAt(&now))
		<-sub.Done()
		if p := sub.Stored(); !p.IsZero() {
			t.Errorf("Stored() = %s after an end with the reset, want the zero Position", p)
		}
	})
}
