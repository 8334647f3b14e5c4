package listeners_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestOrderedAndComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 7})
		recs := make([]listenertest.Recorder, 4)
		for i := range recs {
			pause := time.Duration(i) * time.Second
			recs[i].Err = func(*listeners.Batch) error { time.Sleep(pause); return nil }
			subscribe(t, f, "s", &recs[i], nil, nil)
		}
		var want []string
		for c := range uint64(100) {
			put(t, f, c+1)
			want = append(want, heardOne(c+1))
		}
		time.Sleep(time.Hour)
		for i := range recs {
			wantHeard(t, &recs[i], strings.Join(want, ", "))
		}
	})
}

// heardOne is what put leaves behind.
func heardOne(commit uint64) string {
	var r listenertest.Recorder
	_ = r.OnBatch(context.Background(), batch(commit, created(seats, int(commit))))
	return heard(&r)
}

func TestSubscriptionSeesWhatIsAppendedFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		put(t, f, 1)
		var early, late listenertest.Recorder
		subscribe(t, f, "early", &early, nil, nil)
		put(t, f, 2)
		subscribe(t, f, "late", &late, nil, nil)
		put(t, f, 3)
		wantHeard(t, &early, "2:(s2), 3:(s3)")
		wantHeard(t, &late, "3:(s3)")
	})
}

func TestSlowSubscriptionHarmsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		slow := newGate()
		var fast listenertest.Recorder
		subscribe(t, f, "slow", slow, nil, nil)
		subscribe(t, f, "fast", &fast, nil, nil)
		put(t, f, 1, 2, 3)
		wantHeard(t, &fast, "1:(s1), 2:(s2), 3:(s3)")
		wantHeard(t, &slow.Recorder, "")
		close(slow.pass)
		wantHeard(t, &slow.Recorder, "1:(s1), 2:(s2), 3:(s3)")
	})
}

// fill appends in the background and counts; it ends with ctx or the feed.
func fill(ctx context.Context, f *listeners.Feed) (*atomic.Int64, *atomic.Pointer[error]) {
	var n atomic.Int64
	var end atomic.Pointer[error]
	go func() {
		for {
			if err := f.Reserve(ctx); err != nil {
				end.Store(&err)
				return
			}
			f.Append(batch(uint64(n.Add(1))))
		}
	}()
	return &n, &end
}

func wantAppended(t *testing.T, n *atomic.Int64, want int64) {
	t.Helper()
	synctest.Wait()
	if got := n.Load(); got != want {
		t.Errorf("%d batches were appended, want %d", got, want)
	}
}

func TestFullFeedBlocksItsWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 8})
		slow := newGate()
		subscribe(t, f, "slow", slow, nil, nil)
		subscribe(t, f, "fast", new(listenertest.Recorder), nil, nil)
		n, end := fill(t.Context(), f)
		wantAppended(t, n, 8)
		slow.pass <- struct{}{}
		wantAppended(t, n, 8) // not for each batch: a quarter must be free
		slow.pass <- struct{}{}
		wantAppended(t, n, 10)
		f.Close()
		synctest.Wait()
		if err := end.Load(); err == nil || !errors.Is(*err, listeners.ErrClosed) {
			t.Errorf("Reserve on a closed feed returned %v, want ErrClosed", err)
		}
	})
}

func TestTinyFeedGoesOn(t *testing.T) {
	for _, size := range []int64{1, 2, 3, 4, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: size})
			slow := newGate()
			subscribe(t, f, "slow", slow, nil, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n, _ := fill(ctx, f)
			for range 20 {
				synctest.Wait()
				if got := n.Load() - int64(len(slow.Batches())); got > size {
					t.Fatalf("%d of %d bytes are in the feed", got, size)
				}
				slow.pass <- struct{}{}
			}
			synctest.Wait()
			if got := n.Load(); got < 20 {
				t.Errorf("a feed of %d bytes let %d batches in, want at least 20", size, got)
			}
		})
	}
}

func TestBatchLargerThanTheFeedIsLetThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 4})
		slow := newGate()
		subscribe(t, f, "slow", slow, nil, nil)
		large := batch(1)
		large.Size = 100
		if err := f.Reserve(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Append(large)
		var n atomic.Int64
		go func() {
			put(t, f, 2)
			n.Add(1)
		}()
		wantAppended(t, &n, 0)
		slow.pass <- struct{}{}
		wantAppended(t, &n, 1)
	})
}

func TestReserveEnds(t *testing.T) {
	reason := errors.New("the writer has no time")
	for name, tc := range map[string]struct {
		do   func(f *listeners.Feed, cancel context.CancelCauseFunc, sub *listeners.Subscription)
		want error
	}{
		"by its context":           {func(_ *listeners.Feed, cancel context.CancelCauseFunc, _ *listeners.Subscription) { cancel(reason) }, reason},
		"by the feed's close":      {func(f *listeners.Feed, _ context.CancelCauseFunc, _ *listeners.Subscription) { f.Close() }, listeners.ErrClosed},
		"when the slow one closes": {func(_ *listeners.Feed, _ context.CancelCauseFunc, sub *listeners.Subscription) { sub.Close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 2})
				hang := make(chan struct{})
				sub := subscribe(t, f, "hung", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
					<-hang // whatever its context says
					return nil
				}), nil, nil)
				defer close(hang)
				put(t, f, 1, 2)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				got := make(chan error, 2)
				for range 2 {
					go func() { got <- f.Reserve(ctx) }()
				}
				synctest.Wait()
				if len(got) > 0 {
					t.Fatalf("Reserve of a full feed returned %v", <-got)
				}
				tc.do(f, cancel, sub)
				synctest.Wait()
				if len(got) != 2 {
					t.Fatalf("%d of 2 writers go on", len(got))
				}
				for range 2 {
					if err := <-got; !errors.Is(err, tc.want) {
						t.Errorf("Reserve = %v, want %v", err, tc.want)
					}
				}
			})
		})
	}
}

func TestReserveWithAnEndedContext(t *testing.T) {
	f := listeners.NewFeed(nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the writer has no time")
	cancel(reason)
	if err := f.Reserve(ctx); !errors.Is(err, reason) {
		t.Errorf("Reserve of an empty feed = %v, want the cause of the context's end", err)
	}
}

func TestReserveEndsWhenTheSlowOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 2})
		fail := make(chan error)
		subscribe(t, f, "failing", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return <-fail }), nil, nil)
		n, _ := fill(t.Context(), f)
		wantAppended(t, n, 2)
		ok := newGate()
		subscribe(t, f, "ok", ok, nil, nil)
		fail <- errors.New("no")
		wantAppended(t, n, 4) // as much as the other one lets in
		f.Close()
	})
}

func TestListenerMayAppendToItsOwnFullFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 1})
		var rec listenertest.Recorder
		next := uint64(1)
		self := subscribe(t, f, "self", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
			if err := rec.OnBatch(ctx, b); err != nil {
				return err
			}
			for range 3 {
				if next == 7 {
					return nil
				}
				next++
				if err := f.Reserve(ctx); err != nil {
					return err
				}
				f.Append(batch(next))
			}
			return nil
		}), nil, nil)
		f.Append(batch(1))
		wantHeard(t, &rec, "1:(), 2:(), 3:(), 4:(), 5:(), 6:(), 7:()")
		if err := self.Err(); err != nil {
			t.Error(err)
		}
	})
}

func TestClosedFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "s", g, nil, nil)
		put(t, f, 1, 2)
		synctest.Wait()
		f.Close()
		f.Close()
		f.Append(batch(3))
		if _, err := f.Subscribe("late", g, nil, nil); !errors.Is(err, listeners.ErrClosed) {
			t.Errorf("Subscribe to a closed feed = %v, want ErrClosed", err)
		}
		if ended(sub) {
			t.Error("the subscription ended before its callback returned")
		}
		g.pass <- struct{}{}
		<-sub.Done()
		wantHeard(t, &g.Recorder, "1:(s1)") // the batch it was at, and no other
		if sub.Err() != nil || sub.Closed() || sub.Stored() != at(1) {
			t.Errorf("after the feed's close: Err %v, Closed %t, Stored %s; want nil, false, 1", sub.Err(), sub.Closed(), sub.Stored())
		}
		if got := f.Subscriptions(); len(got) != 0 {
			t.Errorf("%d subscriptions are left", len(got))
		}
	})
}

func TestSubscriptionsListsThoseThatRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		hang := make(chan struct{})
		a := subscribe(t, f, "a", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { <-hang; return nil }), nil, nil)
		b := subscribe(t, f, "b", new(listenertest.Recorder), &listeners.SubscribeOptions{Ephemeral: true}, nil)
		if got := f.Subscriptions(); len(got) != 2 || got[0] != a || got[1] != b {
			t.Errorf("Subscriptions() = %v, want a and b", got)
		}
		if a.Name() != "a" || a.Ephemeral() || !b.Ephemeral() {
			t.Errorf("a is called %q, ephemeral %t; b ephemeral %t", a.Name(), a.Ephemeral(), b.Ephemeral())
		}
		put(t, f, 1)
		synctest.Wait()
		a.Close()
		b.Close()
		synctest.Wait()
		// A source that stops waits for those listed: a's callback still runs.
		if got := f.Subscriptions(); len(got) != 1 || got[0] != a {
			t.Errorf("Subscriptions() = %v, want a alone", got)
		}
		close(hang)
		synctest.Wait()
		if got := f.Subscriptions(); len(got) != 0 {
			t.Errorf("Subscriptions() = %v, want none", got)
		}
	})
}
