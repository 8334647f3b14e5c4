package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// newBranch returns a feed that gets each batch of the trunk with an even
// commit, once pass lets it through; nil lets all.
func newBranch(t *testing.T, trunk *listeners.Feed, size int64, pass <-chan struct{}) *listeners.Feed {
	t.Helper()
	var branch atomic.Pointer[listeners.Feed]
	s := subscribe(t, trunk, "upstream", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		if pass != nil {
			<-pass
		}
		if b.Position.Commit%2 == 0 {
			own := *b
			branch.Load().Append(&own)
		}
		return nil
	}), nil, nil)
	branch.Store(listeners.NewFeed(&listeners.FeedOptions{MaxBytes: size, Upstream: s}))
	return branch.Load()
}

func TestAFullBranchBlocksTheWritersOfItsTrunk(t *testing.T) {
	for name, free := range map[string]func(f *listeners.Feed, slow *gate, s *listeners.Subscription){
		"until its listener moves on": func(_ *listeners.Feed, slow *gate, _ *listeners.Subscription) { close(slow.pass) },
		"until that is closed":        func(_ *listeners.Feed, _ *gate, s *listeners.Subscription) { s.Close() },
		"until it is closed":          func(f *listeners.Feed, _ *gate, _ *listeners.Subscription) { f.Close() },
		"until it fails":              func(f *listeners.Feed, _ *gate, _ *listeners.Subscription) { f.Fail(at(1), errors.New("no more")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				trunk := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1000})
				other := newBranch(t, trunk, 1000, nil)
				branch := newBranch(t, trunk, 2, nil)
				var heard listenertest.Recorder
				subscribe(t, other, "other", &heard, nil, nil)
				slow := newGate()
				s := subscribe(t, branch, "slow", slow, nil, nil)
				put(t, trunk, 1, 2, 3)
				synctest.Wait()
				put(t, trunk, 4) // now the branch holds two
				synctest.Wait()
				reason := errors.New("out of patience")
				ctx, cancel := context.WithCancelCause(t.Context())
				reserved := make(chan error, 2)
				go func() { reserved <- trunk.Reserve(ctx) }()
				go func() { reserved <- trunk.Reserve(t.Context()) }()
				synctest.Wait()
				if len(reserved) > 0 {
					t.Fatalf("Reserve of the trunk returned %v while a branch is full", <-reserved)
				}
				cancel(reason)
				if err := <-reserved; !errors.Is(err, reason) {
					t.Errorf("Reserve = %v, want the cause of its context's end", err)
				}
				trunk.Append(batch(6, created(seats, 6))) // of a writer that had reserved before
				wantHeard(t, &heard, "2:(s2), 4:(s4), 6:(s6)")
				free(branch, slow, s)
				synctest.Wait()
				if len(reserved) != 1 {
					t.Fatal("Reserve waits for a branch that is free")
				}
				if err := <-reserved; err != nil {
					t.Errorf("Reserve = %v, want nil", err)
				}
			})
		})
	}
}

func TestAListenerOfABranchNeverWaitsForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trunk := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1})
		branch := newBranch(t, trunk, 1, nil)
		var n atomic.Int64
		for _, f := range []*listeners.Feed{branch, trunk} {
			subscribe(t, f, "writer", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
				if b.Position.Commit > 2 {
					return nil
				}
				for range 5 {
					if err := trunk.Reserve(ctx); err != nil {
						return err
					}
				}
				n.Add(1)
				return nil
			}), nil, nil)
		}
		trunk.Append(batch(2))
		trunk.Append(batch(4))
		synctest.Wait()
		if n.Load() != 2 {
			t.Errorf("%d of 2 listeners got room in the full feed that they hear", n.Load())
		}
	})
}

func TestWaitCountsWhatABranchWasNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trunk := listeners.NewFeed(nil)
		pass := make(chan struct{})
		branch := newBranch(t, trunk, 1000, pass)
		slow := newGate()
		s := subscribe(t, branch, "s", slow, nil, nil)
		put(t, trunk, 1, 2, 3)
		waited := make(chan error, 3)
		for c := range uint64(3) {
			go func() {
				err := s.Wait(t.Context(), at(c+1))
				waited <- fmt.Errorf("%d: %w", c+1, errors.Join(err, errAny))
			}()
		}
		step := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for len(waited) > 0 {
				got = append(got, strings.Split((<-waited).Error(), "\n")[0])
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("after %s Wait has returned for %q, want %q", what, got, want)
			}
		}
		step("nothing")
		pass <- struct{}{}
		step("1, which concerns nobody", "1: any")
		pass <- struct{}{}
		pass <- struct{}{}
		step("2 and 3, of which 2 is not handled")
		if got := s.Stored(); got != at(1) {
			t.Errorf("Stored() = %s while 2 is not handled, want %s", got, at(1))
		}
		close(slow.pass)
		synctest.Wait()
		if got := s.Stored(); got != at(3) {
			t.Errorf("Stored() = %s when all is handled, want %s", got, at(3))
		}
		if n := len(waited); n != 2 {
			t.Errorf("Wait has returned for %d, want 2", n)
		}
		s.Close()
		close(pass)
		put(t, trunk, 5)
		synctest.Wait()
		if got := s.Stored(); got != at(3) {
			t.Errorf("Stored() = %s after the end, want %s as before", got, at(3))
		}
	})
}

var errAny = errors.New("any")

func TestABranchBeginsBehindWhatTheTrunkHasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trunk := listeners.NewFeed(nil)
		pass := make(chan struct{})
		branch := newBranch(t, trunk, 1000, pass)
		put(t, trunk, 1, 2)
		var late listenertest.Recorder
		s := subscribe(t, branch, "late", &late, nil, nil)
		if got := s.Stored(); got != at(2) {
			t.Errorf("Stored() = %s at the beginning, want %s", got, at(2))
		}
		put(t, trunk, 3, 4)
		close(pass)
		wantHeard(t, &late, "4:(s4)")
	})
}

func TestFailSaysWhyAFeedEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := 0
		f := listeners.NewFeed(&listeners.FeedOptions{Idle: func() { idle++ }})
		one := subscribe(t, f, "one", new(listenertest.Recorder), nil, nil)
		two := subscribe(t, f, "two", new(listenertest.Recorder), nil, nil)
		early := subscribe(t, f, "early", new(listenertest.Recorder), nil, nil)
		put(t, f, 1)
		early.Close()
		synctest.Wait()
		if idle != 0 {
			t.Errorf("Idle was called %d times with listeners left", idle)
		}
		failure := errors.New("no more")
		f.Fail(at(7), failure)
		f.Fail(at(8), errors.New("too late"))
		f.Close()
		<-one.Done()
		<-two.Done()
		for _, s := range []*listeners.Subscription{one, two} {
			where, _ := errors.AsType[*listeners.ListenerError](s.Err())
			if where == nil || where.Subscription != s.Name() || where.Position != at(7) || !errors.Is(s.Err(), failure) {
				t.Errorf("Err() of %q = %v, want %q at %s", s.Name(), s.Err(), failure, at(7))
			}
		}
		if early.Err() != nil || idle != 1 {
			t.Errorf("Err() of one closed before = %v, Idle was called %d times; want nil, once", early.Err(), idle)
		}
		if err := f.Reserve(t.Context()); !errors.Is(err, listeners.ErrClosed) {
			t.Errorf("Reserve after Fail = %v, want ErrClosed", err)
		}
	})
}
