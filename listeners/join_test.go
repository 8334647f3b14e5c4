package listeners_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestJoinedWithoutAGapOrATwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		put(t, f, 1)
		reading := make(chan struct{})
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, nil, func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			if err := emit(marker(listeners.Reset, 3)); err != nil {
				return listeners.Position{}, err
			}
			<-reading
			if err := emit(marker(listeners.Snapshot, 3, created(seats, 1), created(seats, 2), created(seats, 3))); err != nil {
				return listeners.Position{}, err
			}
			return at(3), emit(marker(listeners.Live, 3))
		})
		put(t, f, 2, 3, 4) // 2 and 3 are in the snapshot
		wantHeard(t, &rec, "reset 3:()")
		if got := sub.Lag().Batches; got != 3 {
			t.Errorf("the lag is %d batches while it joins, want 3", got)
		}
		close(reading)
		put(t, f, 5)
		wantHeard(t, &rec, "reset 3:(), snapshot 3:(s1 s2 s3), live 3:(), 4:(s4), 5:(s5)")
		if lag := sub.Lag(); sub.Stored() != at(5) || lag.Batches != 0 {
			t.Errorf("Stored() = %s, Lag() = %+v; want 5, none", sub.Stored(), lag)
		}
	})
}

func TestJoinThatEmitsNothingSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, nil, func(context.Context, func(*listeners.Batch) error) (listeners.Position, error) {
			return at(2), nil
		})
		synctest.Wait()
		if sub.Stored() != at(2) {
			t.Errorf("Stored() = %s after the join, want 2: it has everything up to there", sub.Stored())
		}
		put(t, f, 1, 2)
		synctest.Wait()
		if lag := sub.Lag(); sub.Stored() != at(2) || lag.Batches != 0 {
			t.Errorf("Stored() = %s, Lag() = %+v; want 2, none", sub.Stored(), lag)
		}
		put(t, f, 3)
		wantHeard(t, &rec, "3:(s3)")
	})
}

// hold is a join that waits for its context's end after a Reset.
func hold(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
	if err := emit(marker(listeners.Reset, 1)); err != nil {
		return listeners.Position{}, err
	}
	<-ctx.Done()
	return listeners.Position{}, errors.New("the snapshot broke off")
}

func TestJoinEnds(t *testing.T) {
	for name, end := range map[string]func(*listeners.Feed, *listeners.Subscription){
		"with its feed":         func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() },
		"with its subscription": func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				var rec listenertest.Recorder
				sub := subscribe(t, f, "s", &rec, nil, hold)
				put(t, f, 1)
				wantHeard(t, &rec, "reset 1:()")
				end(f, sub)
				<-sub.Done()
				if err := sub.Err(); err != nil {
					t.Errorf("Err() = %v, want nil", err)
				}
				wantHeard(t, &rec, "reset 1:()")
			})
		})
	}
}

func TestJoinErrorEndsTheSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		broken := errors.New("the snapshot broke off")
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, nil, func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			return at(9), errors.Join(emit(marker(listeners.Reset, 1)), broken)
		})
		put(t, f, 1)
		<-sub.Done()
		if err := sub.Err(); !errors.Is(err, broken) || !strings.Contains(err.Error(), `subscription "s"`) {
			t.Errorf("Err() = %v, want the join's error with the subscription's name", err)
		}
		wantHeard(t, &rec, "reset 1:()")
	})
}

func TestJoinOfAClosedSourceIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sub := subscribe(t, listeners.NewFeed(nil), "s", new(listenertest.Recorder), nil, func(context.Context, func(*listeners.Batch) error) (listeners.Position, error) {
			return listeners.Position{}, listeners.ErrClosed
		})
		<-sub.Done()
		if err := sub.Err(); err != nil {
			t.Errorf("Err() = %v, want nil", err)
		}
	})
}

// A join that does not look at the error of emit harms nobody.
func TestNothingIsEmittedAfterTheListenerFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		failed := errors.New("no paper")
		calls := 0
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			calls++
			return failed
		}), nil, func(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			for range 3 {
				if err := emit(marker(listeners.Reset, 1)); !errors.Is(err, failed) {
					t.Errorf("emit = %v, want the listener's error", err)
				}
			}
			<-ctx.Done() // a join that tries again and again sees that it is over
			return at(1), nil
		})
		put(t, f, 1)
		<-sub.Done()
		var where *listeners.ListenerError
		if err := sub.Err(); !errors.As(err, &where) || where.Position != at(1) || calls != 1 {
			t.Errorf("Err() = %v after %d calls, want the listener's after 1", err, calls)
		}
	})
}

func TestEmitAfterCloseCallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var rec listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, nil, func(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			<-ctx.Done()
			if err := emit(marker(listeners.Reset, 1)); !errors.Is(err, listeners.ErrClosed) {
				t.Errorf("emit after Close = %v, want ErrClosed", err)
			}
			return at(1), nil
		})
		if err := sub.CloseWait(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantHeard(t, &rec, "")
		if sub.Err() != nil {
			t.Errorf("Err() = %v, want nil", sub.Err())
		}
	})
}
