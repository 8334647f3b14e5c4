package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func parks(p listeners.RetryPolicy) *listeners.SubscribeOptions {
	p.Park = true
	if p.Attempts == 0 {
		p.Attempts = 1
	}
	return retry(p)
}

// parked writes what is parked: the ID, the commit, the attempts, what it is
// behind, "!" with an error, "stale", and the keys.
func parked(s *listeners.Subscription) string {
	var out []string
	for _, p := range s.Parked() {
		t := fmt.Sprintf("%d:%d#%d", p.ID, p.Batch.Position.Commit, p.Attempts)
		if p.Behind != 0 {
			t += fmt.Sprintf("<%d", p.Behind)
		}
		if p.Err != nil {
			t += "!"
		}
		if p.Stale {
			t += " stale"
		}
		var keys []string
		for i := range p.Batch.Events {
			keys = append(keys, p.Batch.Events[i].Schema.Collection()[7:8]+p.Batch.Events[i].Key().String())
		}
		out = append(out, t+"("+strings.Join(keys, " ")+")")
	}
	return strings.Join(out, ", ")
}

func wantParked(t testing.TB, s *listeners.Subscription, want string) {
	t.Helper()
	synctest.Wait()
	if got := parked(s); got != want {
		t.Errorf("parked %s\nwant   %s", got, want)
	}
}

func updated(s *listeners.Schema, from, to int) listeners.Event {
	e := created(s, to)
	e.Op = listeners.Update
	if from != to {
		e.OldKey = created(s, from).After
	}
	return e
}

// sick is a listener that fails for the commits that are set.
type sick struct {
	listenertest.Recorder

	commits map[uint64]bool
}

func newSick(commits ...uint64) *sick {
	s := &sick{commits: make(map[uint64]bool)}
	for _, c := range commits {
		s.commits[c] = true
	}
	s.Err = func(b *listeners.Batch) error {
		if s.commits[b.Position.Commit] && b.Kind == listeners.Changes {
			return errOut
		}
		return nil
	}
	return s
}

func TestParkedBatchIsListedAndTheSubscriptionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		l := newSick(2)
		sub := subscribe(t, f, "s", l, parks(listeners.RetryPolicy{Attempts: 3, Delay: time.Second}), nil)
		began := time.Now()
		put(t, f, 1, 2, 3)
		time.Sleep(time.Hour)
		wantHeard(t, &l.Recorder, "1:(s1), 3:(s3)")
		wantParked(t, sub, "1:2#3!(s2)")
		p := sub.Parked()[0]
		if !errors.Is(p.Err, errOut) || p.Since.Sub(began) != 3*time.Second {
			t.Errorf("Parked() = %v since %s, want %v since 3s", p.Err, p.Since.Sub(began), errOut)
		}
		if err := sub.Err(); err != nil {
			t.Errorf("Err() = %v", err)
		}
		lag := sub.Lag()
		if lag.Parked != 1 || lag.ParkedBytes != 1 || lag.ParkedAge <= 0 && !began.Before(p.Batch.Tx.Time) || lag.Batches != 0 || lag.Age != 0 {
			t.Errorf("Lag() = %+v, want one parked batch of 1 byte", lag)
		}
	})
}

// A parked batch is not handled until it is retried or discarded.
func TestStoredStaysBeforeTheFirstParkedBatch(t *testing.T) {
	for name, tc := range map[string]struct {
		releases bool
		settle   func(*testing.T, *sick, *listeners.Subscription) error
		before   uint64
	}{
		"retried": {false, func(t *testing.T, l *sick, sub *listeners.Subscription) error {
			l.commits = nil
			return sub.RetryParked(t.Context(), 1)
		}, 1},
		"discarded": {false, func(_ *testing.T, _ *sick, sub *listeners.Subscription) error { return sub.DiscardParked(1) }, 1},
		"released":  {true, func(*testing.T, *sick, *listeners.Subscription) error { return nil }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				l := newSick(2)
				sub := subscribe(t, f, "s", l, parks(listeners.RetryPolicy{ParkReleases: tc.releases}), nil)
				waited := make(chan error, 1)
				put(t, f, 1)
				synctest.Wait()
				go func() { waited <- sub.Wait(t.Context(), at(3)) }()
				synctest.Wait()
				put(t, f, 2, 3)
				synctest.Wait()
				if got := sub.Stored(); got != at(tc.before) {
					t.Errorf("Stored() = %s with a parked batch, want %s", got, at(tc.before))
				}
				if err := sub.Wait(t.Context(), at(1)); err != nil {
					t.Errorf("Wait for what comes before = %v", err)
				}
				err := <-waited
				held, ok := errors.AsType[*listeners.ParkedError](err)
				if ok == tc.releases || (ok && (held.ID != 1 || held.Position != at(2) || !errors.Is(err, errOut))) {
					t.Errorf("Wait = %v, released %t", err, tc.releases)
				}
				if err := tc.settle(t, l, sub); err != nil {
					t.Fatal(err)
				}
				if err := sub.Wait(t.Context(), at(3)); err != nil {
					t.Errorf("Wait afterwards = %v", err)
				}
				if got := sub.Stored(); got != at(3) {
					t.Errorf("Stored() = %s afterwards, want %s", got, at(3))
				}
			})
		})
	}
}

func TestKeysNeverSwapAroundAParkedBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		l := newSick(1, 9)
		sub := subscribe(t, f, "s", l, parks(listeners.RetryPolicy{}), nil)
		truncate := func(s *listeners.Schema) listeners.Event { return listeners.Event{Op: listeners.Truncate, Schema: s} }
		for _, b := range []*listeners.Batch{
			batch(1, created(seats, 1)),
			batch(2, created(seats, 2)),
			batch(3, created(seats, 3), created(seats, 1)), // behind 1
			batch(4, created(seats, 3)),                    // and this behind that
			batch(5, created(trains, 1)),
			batch(6, updated(seats, 4, 3)), // the new key
			batch(7, updated(seats, 3, 5)), // the old one
			batch(8, created(seats, 6)),
			batch(9, created(trains, 9)),
			batch(10, truncate(trains)), // all of trains
			batch(11, created(trains, 2)),
		} {
			f.Append(b)
		}
		wantHeard(t, &l.Recorder, "2:(s2), 5:(t1), 8:(s6)")
		wantParked(t, sub, "1:1#1!(s1), 2:3#0<1(s3 s1), 3:4#0<2(s3), 4:6#0<2(s3), 5:7#0<2(s5), 6:9#1!(t9), 7:10#0<6(t), 8:11#0<7(t2)")

		err := sub.RetryParked(t.Context(), 3)
		if behind, ok := errors.AsType[*listeners.ParkedBehindError](err); !ok || behind.Behind != 2 || behind.ID != 3 {
			t.Errorf("RetryParked(3) = %v, want one that says that it is behind 2", err)
		}
		if err := sub.RetryParked(t.Context(), 1); !errors.Is(err, errOut) {
			t.Errorf("RetryParked(1) = %v, want %v", err, errOut)
		}
		delete(l.commits, 1)
		l.commits[6] = true
		if err := sub.RetryParked(t.Context(), 1); err != nil {
			t.Errorf("RetryParked(1) = %v", err)
		}
		wantHeard(t, &l.Recorder, "2:(s2), 5:(t1), 8:(s6), 1:(s1), 3:(s3 s1), 4:(s3)")
		wantParked(t, sub, "4:6#1!(s3), 5:7#0<4(s5), 6:9#1!(t9), 7:10#0<6(t), 8:11#0<7(t2)")
		if err := sub.DiscardParked(4); err != nil {
			t.Errorf("DiscardParked(4) = %v", err)
		}
		if err := sub.DiscardParked(6); err != nil {
			t.Errorf("DiscardParked(6) = %v", err)
		}
		wantParked(t, sub, "")
		wantHeard(t, &l.Recorder, "2:(s2), 5:(t1), 8:(s6), 1:(s1), 3:(s3 s1), 4:(s3), 7:(s5), 10:(t), 11:(t2)")
		for call, err := range map[string]error{
			"RetryParked(4)": sub.RetryParked(t.Context(), 4), "DiscardParked(4)": sub.DiscardParked(4),
		} {
			if !errors.Is(err, listeners.ErrNotParked) {
				t.Errorf("%s = %v, want ErrNotParked", call, err)
			}
		}
		if got := sub.Stored(); got != at(11) {
			t.Errorf("Stored() = %s, want %s", got, at(11))
		}
	})
}

func TestParkUnorderedHandsOverTheRestOfTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		l := newSick(1, 2)
		sub := subscribe(t, f, "s", l, parks(listeners.RetryPolicy{ParkUnordered: true}), nil)
		for c := range uint64(4) {
			f.Append(batch(c+1, created(seats, 1)))
		}
		wantHeard(t, &l.Recorder, "3:(s1), 4:(s1)")
		wantParked(t, sub, "1:1#1!(s1), 2:2#1!(s1)")
		l.commits = nil
		if err := sub.RetryParked(t.Context(), 2); err != nil {
			t.Error(err)
		}
		wantHeard(t, &l.Recorder, "3:(s1), 4:(s1), 2:(s1)")
	})
}

func TestPartsOfATransactionStayTogetherWhenOneIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		l := newSick()
		l.Err = func(b *listeners.Batch) error {
			if b.Position.Index == 2 && l.commits == nil {
				return errOut
			}
			return nil
		}
		l.commits = nil
		sub := subscribe(t, f, "s", l, parks(listeners.RetryPolicy{}), nil)
		for _, b := range []*listeners.Batch{
			part(1, 1, true, false, created(seats, 1)), part(1, 2, false, false, created(seats, 2)),
			part(1, 3, false, false, created(seats, 3)), part(1, 4, false, true, created(seats, 4)),
			batch(2, created(seats, 5)), batch(3, created(seats, 4)),
		} {
			f.Append(b)
		}
		wantHeard(t, &l.Recorder, "1.1:(s1, 2:(s5)")
		wantParked(t, sub, "1:1#1!(s2), 2:1#0<1(s3), 3:1#0<1(s4), 4:3#0<3(s4)")
		if got, want := sub.Stored(), (listeners.Position{Epoch: 1, Commit: 1, Index: 1}); got != want {
			t.Errorf("Stored() = %s, want %s", got, want)
		}
		l.commits = map[uint64]bool{}
		if err := sub.RetryParked(t.Context(), 1); err != nil {
			t.Error(err)
		}
		wantHeard(t, &l.Recorder, "1.1:(s1, 2:(s5), 1.2:s2, 1.3:s3, 1.4:s4), 3:(s4)")
		wantParked(t, sub, "")
	})
}

func TestFullParkEndsTheSubscription(t *testing.T) {
	for name, tc := range map[string]struct {
		policy  listeners.RetryPolicy
		commits []uint64 // that fail
		at      uint64
		cause   bool
		parked  string
	}{
		"of batches":               {listeners.RetryPolicy{ParkMax: 2}, []uint64{1, 2, 3, 4}, 3, false, "1:1#1!(s1), 2:2#1!(s0)"},
		"of bytes":                 {listeners.RetryPolicy{ParkBytes: 15}, []uint64{1, 2, 3, 4}, 2, true, "1:1#1!(s1)"},
		"too small for the first":  {listeners.RetryPolicy{ParkBytes: 5}, []uint64{2}, 4, false, "1:2#1!(s0)"},
		"by what waits for others": {listeners.RetryPolicy{ParkMax: 1}, []uint64{1}, 3, false, "1:1#1!(s1)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				l := newSick(tc.commits...)
				sub := subscribe(t, f, "s", l, parks(tc.policy), nil)
				for c := range uint64(4) {
					b := batch(c+1, created(seats, int((c+1)%2)))
					b.Size = 10
					f.Append(b)
				}
				<-sub.Done()
				failed, ok := errors.AsType[*listeners.ListenerError](sub.Err())
				full, isFull := errors.AsType[*listeners.ParkFullError](sub.Err())
				if !ok || !isFull || failed.Position != at(tc.at) || (full.Err != nil) != tc.cause || errors.Is(full, errOut) != tc.cause {
					t.Fatalf("Err() = %v, want a full one at %d", sub.Err(), tc.at)
				}
				wantParked(t, sub, tc.parked)
				if full.Batches != len(sub.Parked()) || full.Bytes != int64(10*full.Batches) {
					t.Errorf("%+v with %s", full, parked(sub))
				}
				if err := sub.RetryParked(t.Context(), 1); !errors.Is(err, listeners.ErrNotParked) && !errors.As(err, &failed) {
					t.Errorf("RetryParked after the end = %v", err)
				}
			})
		})
	}
}

func TestResetMakesParkedBatchesStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		l := newSick(1, 2, 5)
		sub := subscribe(t, f, "s", l, parks(listeners.RetryPolicy{}), nil)
		f.Append(batch(1, created(seats, 1)))
		f.Append(batch(2, created(seats, 2), created(trains, 2), created(seats, 3)))
		f.Append(batch(3, created(seats, 3)))
		wantParked(t, sub, "1:1#1!(s1), 2:2#1!(s2 t2 s3), 3:3#0<2(s3)")
		reset := marker(listeners.Reset, 4)
		reset.Collections = []string{"public.seats"}
		for _, b := range []*listeners.Batch{
			reset, marker(listeners.Snapshot, 4, created(seats, 1)), marker(listeners.Live, 4), batch(5, created(seats, 1)), batch(6, created(trains, 2)),
		} {
			f.Append(b)
		}
		wantHeard(t, &l.Recorder, "reset 4:(), snapshot 4:(s1), live 4:()")
		wantParked(t, sub, "1:1#1! stale(s1), 2:2#1!(t2), 4:2#1! stale(s2 s3), 3:3#0 stale(s3), 5:5#1!(s1), 6:6#0<2(t2)")
		if got := sub.Stored(); got != at(1) {
			t.Errorf("Stored() = %s, want %s, since trains are still parked", got, at(1))
		}
		for _, id := range []uint64{1, 3, 4} {
			if err := sub.RetryParked(t.Context(), id); !errors.Is(err, listeners.ErrStale) {
				t.Errorf("RetryParked(%d) = %v, want ErrStale", id, err)
			}
		}
		l.commits = nil
		if err := sub.RetryParked(t.Context(), 2); err != nil {
			t.Error(err)
		}
		wantHeard(t, &l.Recorder, "reset 4:(), snapshot 4:(s1), live 4:(), 2:(t2), 6:(t2)")
		if got := sub.Stored(); got != at(4) {
			t.Errorf("Stored() = %s, want %s, since 5 is parked", got, at(4))
		}
		if err := errors.Join(sub.DiscardParked(1), sub.DiscardParked(4), sub.DiscardParked(3), sub.RetryParked(t.Context(), 5)); err != nil {
			t.Error(err)
		}
		wantParked(t, sub, "")
		if got := sub.Lag(); got != (listeners.Lag{}) {
			t.Errorf("Lag() = %+v, want none", got)
		}
	})
}

func TestOnlyChangesAreParked(t *testing.T) {
	for _, kind := range []listeners.Kind{listeners.Reset, listeners.Snapshot, listeners.Live} {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				m := &moody{fails: func(_ context.Context, b *listeners.Batch) error {
					if b.Kind == kind {
						return errOut
					}
					return nil
				}}
				sub := subscribe(t, f, "s", m, parks(listeners.RetryPolicy{Attempts: 3}), stateAt(new(uint64)))
				<-sub.Done()
				if !errors.Is(sub.Err(), errOut) || len(sub.Parked()) != 0 {
					t.Errorf("Err() = %v, parked %s", sub.Err(), parked(sub))
				}
				if n := len(m.calls) - len(m.Batches()); n != 3 {
					t.Errorf("%d attempts, want 3", n)
				}
			})
		})
	}
}

func TestRetryParkedWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		l := newSick(1)
		var sub *listeners.Subscription
		var own error
		fails := l.Err
		ready := make(chan struct{})
		l.Err = func(b *listeners.Batch) error {
			<-ready
			return fails(b)
		}
		sub = subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
			err := l.OnBatch(ctx, b)
			if b.Position.Commit == 2 {
				own = sub.RetryParked(ctx, 1)
			}
			return err
		}), parks(listeners.RetryPolicy{}), nil)
		close(ready)
		put(t, f, 1, 2)
		wantParked(t, sub, "1:1#1!(s1)")
		if own == nil || errors.Is(own, errOut) {
			t.Errorf("RetryParked by the listener = %v, want an error that says why not", own)
		}
		sub.Pause()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sub.RetryParked(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("RetryParked while paused = %v, want %v", err, context.DeadlineExceeded)
		}
		result := make(chan error, 1)
		go func() { result <- sub.RetryParked(t.Context(), 1) }()
		synctest.Wait()
		wantParked(t, sub, "1:1#1!(s1)")
		l.commits = nil
		sub.Resume()
		if err := <-result; err != nil {
			t.Errorf("RetryParked = %v after Resume", err)
		}
		wantHeard(t, &l.Recorder, "2:(s2), 1:(s1)") // once
	})
}

func TestRetryParkedEndsWithItsSubscription(t *testing.T) {
	for name, end := range map[string]func(*listeners.Feed, *listeners.Subscription){
		"by Close":      func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() },
		"with its feed": func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				sub := subscribe(t, f, "s", newSick(1), parks(listeners.RetryPolicy{}), nil)
				put(t, f, 1)
				synctest.Wait()
				sub.Pause()
				result := make(chan error, 1)
				go func() { result <- sub.RetryParked(t.Context(), 1) }()
				synctest.Wait()
				end(f, sub)
				if err := <-result; !errors.Is(err, listeners.ErrClosed) {
					t.Errorf("RetryParked = %v, want ErrClosed", err)
				}
				wantParked(t, sub, "1:1#1!(s1)")
				if err := sub.RetryParked(t.Context(), 1); !errors.Is(err, listeners.ErrClosed) {
					t.Errorf("RetryParked after the end = %v, want ErrClosed", err)
				}
				if err := sub.DiscardParked(1); err != nil {
					t.Errorf("DiscardParked after the end = %v", err)
				}
			})
		})
	}
}

func TestDiscardOfWhatIsBeingRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		goOn := make(chan error)
		sub := subscribe(t, f, "s", listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			if listeners.Attempt(ctx) == 2 {
				return <-goOn
			}
			return errOut
		}), parks(listeners.RetryPolicy{}), nil)
		put(t, f, 1)
		synctest.Wait()
		result := make(chan error, 1)
		go func() { result <- sub.RetryParked(t.Context(), 1) }()
		synctest.Wait()
		if err := sub.DiscardParked(1); err == nil || errors.Is(err, listeners.ErrNotParked) {
			t.Errorf("DiscardParked = %v while it is retried", err)
		}
		goOn <- errOut
		if err := <-result; !errors.Is(err, errOut) {
			t.Errorf("RetryParked = %v, want %v", err, errOut)
		}
		wantParked(t, sub, "1:1#2!(s1)")
		if err := sub.DiscardParked(1); err != nil {
			t.Errorf("DiscardParked = %v", err)
		}
	})
}

func TestNothingIsParkedWithoutAPolicy(t *testing.T) {
	f := listeners.NewFeed(nil)
	sub := subscribe(t, f, "s", new(listenertest.Recorder), nil, nil)
	if n := len(sub.Parked()); n != 0 {
		t.Errorf("%d parked", n)
	}
	for _, err := range []error{sub.RetryParked(t.Context(), 1), sub.DiscardParked(1)} {
		if !errors.Is(err, listeners.ErrNotParked) {
			t.Errorf("%v, want ErrNotParked", err)
		}
	}
}
