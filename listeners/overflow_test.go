package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func with(o listeners.Overflow, limit int64) *listeners.SubscribeOptions {
	return &listeners.SubscribeOptions{Overflow: o, BacklogBytes: limit}
}

// stateAt is a join that tells one seat for each commit up to now.
func stateAt(now *uint64) listeners.Join {
	return func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
		p := at(*now)
		for _, b := range []*listeners.Batch{
			marker(listeners.Reset, *now), marker(listeners.Snapshot, *now, created(seats, int(*now))), marker(listeners.Live, *now),
		} {
			if err := emit(b); err != nil {
				return p, err
			}
		}
		return p, nil
	}
}

func TestWhoDoesNotBlockHoldsNoWriterBack(t *testing.T) {
	var now uint64
	for _, tc := range []struct {
		overflow listeners.Overflow
		join     listeners.Join
	}{{listeners.OverflowConflate, nil}, {listeners.OverflowReset, stateAt(&now)}, {listeners.OverflowDisconnect, nil}} {
		t.Run(tc.overflow.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(&listeners.FeedOptions{MaxBytes: 2})
				hang := make(chan struct{})
				defer close(hang)
				var rec listenertest.Recorder
				hung := subscribe(t, f, "hung", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { <-hang; return nil }), with(tc.overflow, 10), tc.join)
				subscribe(t, f, "good", &rec, nil, nil)
				for c := range uint64(1000) {
					if err := f.Reserve(t.Context()); err != nil {
						t.Fatal(err)
					}
					e := created(seats, int(c%3))
					if c >= 3 {
						e.Op = listeners.Update
					}
					f.Append(batch(c+1, e))
					synctest.Wait()
					if tc.overflow == listeners.OverflowConflate && hung.Lag().Bytes > 12 {
						t.Fatalf("Lag() = %+v after %d batches, with a limit of 10", hung.Lag(), c)
					}
				}
				if n := len(rec.Batches()); n != 1000 {
					t.Errorf("the other one heard %d batches", n)
				}
			})
		})
	}
}

func TestDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "slow", g, with(listeners.OverflowDisconnect, 3), nil)
		put(t, f, 1)
		g.pass <- struct{}{}
		for c := range uint64(6) {
			synctest.Wait()
			if ended(sub) != (c == 5) {
				t.Fatalf("ended %t with %d batches behind it", ended(sub), c)
			}
			b := batch(c+2, created(seats, 1))
			b.Tx.Time = time.Now()
			f.Append(b)
			time.Sleep(time.Second)
		}
		<-sub.Done()
		want := listeners.LaggedError{
			Subscription: "slow", Position: at(1), Limit: 3,
			Lag: listeners.Lag{Batches: 4, Bytes: 4, Age: 4 * time.Second},
		}
		got, ok := errors.AsType[*listeners.LaggedError](sub.Err())
		if !ok || *got != want {
			t.Fatalf("Err() = %v, want %v", sub.Err(), &want)
		}
		for _, part := range []string{`"slow"`, "4 batches of 4 bytes", "4s ago", "limit of 3", at(1).String()} {
			if !strings.Contains(got.Error(), part) {
				t.Errorf("Err() = %q, want %q in it", got, part)
			}
		}
		if sub.Closed() || sub.Stored() != at(1) || len(f.Subscriptions()) != 0 {
			t.Errorf("Closed() = %t, Stored() = %s", sub.Closed(), sub.Stored())
		}
		if err := sub.Wait(t.Context(), at(2)); !errors.As(err, &got) {
			t.Errorf("Wait = %v, want the LaggedError", err)
		}
	})
}

func TestResetBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		var now uint64
		sub := subscribe(t, f, "slow", g, with(listeners.OverflowReset, 3), stateAt(&now))
		write := func(commits ...uint64) {
			for _, c := range commits {
				now = c
				f.Append(batch(c, created(seats, int(c))))
				synctest.Wait()
			}
		}
		pass := func(n int) {
			for range n {
				g.pass <- struct{}{}
				synctest.Wait()
			}
		}
		synctest.Wait()
		pass(3)
		wantHeard(t, &g.Recorder, "reset 0:(), snapshot 0:(s0), live 0:()")
		write(1, 2, 3, 4)
		pass(4)
		write(5, 6, 7, 8, 9, 10)
		if got := sub.Lag().Batches; got != 6 {
			t.Errorf("the lag is %d batches, want 6: those dropped count", got)
		}
		wait := waiting(t.Context(), sub, at(10))
		pass(1)
		write(11)
		pass(2)
		wantWaiting(t, wait, "the state is told")
		pass(2)
		wantHeard(t, &g.Recorder, "reset 0:(), snapshot 0:(s0), live 0:(), 1:(s1), 2:(s2), 3:(s3), 4:(s4), 5:(s5), reset 10:(), snapshot 10:(s10), live 10:(), 11:(s11)")
		if err := <-wait; err != nil || sub.Stored() != at(11) || sub.Lag() != (listeners.Lag{}) {
			t.Errorf("Wait = %v, Stored() = %s, Lag() = %+v", err, sub.Stored(), sub.Lag())
		}
	})
}

func TestResetOfASourceThatTellsItsStateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "slow", g, with(listeners.OverflowReset, 2), func(context.Context, func(*listeners.Batch) error) (listeners.Position, error) {
			return listeners.Position{}, nil
		})
		put(t, f, 1, 2, 3, 4, 5)
		synctest.Wait()
		close(g.pass)
		<-sub.Done()
		if _, ok := errors.AsType[*listeners.LaggedError](sub.Err()); !ok {
			t.Errorf("Err() = %v, want a LaggedError rather than a gap", sub.Err())
		}
	})
}

func TestOptionsThatCannotWork(t *testing.T) {
	f := listeners.NewFeed(nil)
	for name, tc := range map[string]struct {
		l    listeners.Listener
		o    listeners.Overflow
		want string
	}{
		"durable and conflate":   {newStore(), listeners.OverflowConflate, "Durable"},
		"durable and disconnect": {newStore(), listeners.OverflowDisconnect, "Durable"},
		"reset from now on":      {new(listenertest.Recorder), listeners.OverflowReset, "Current"},
		"no such policy":         {new(listenertest.Recorder), 9, "Overflow(9)"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.Subscribe("mine", tc.l, with(tc.o, 0), nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), `"mine"`) {
				t.Errorf("Subscribe = %v, want an error that says %q", err, tc.want)
			}
		})
	}
}

// conflated holds the listener with one batch, appends the others beyond the
// limit, and returns what it then hears.
func conflated(t *testing.T, opts *listeners.SubscribeOptions, batches ...*listeners.Batch) string {
	t.Helper()
	var out []string
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "s", g, opts, nil)
		put(t, f, 1)
		synctest.Wait()
		size := int64(0)
		for _, b := range batches {
			f.Append(b)
			size += int64(b.Size)
		}
		f.Append(batch(99)) // the one on top, which finds the limit reached
		if sub.Lag().Batches != len(batches)+2 {
			t.Errorf("Lag() = %+v, want all that was appended", sub.Lag())
		}
		close(g.pass)
		synctest.Wait()
		if sub.Err() != nil || sub.Stored() != at(99) {
			t.Fatalf("Err() = %v, Stored() = %s", sub.Err(), sub.Stored())
		}
		for _, b := range g.Batches()[1:] {
			s := fmt.Sprintf("%s %d %t-%t", b.Kind, b.Position.Commit, b.First, b.Last)
			for _, e := range b.Events {
				s += fmt.Sprintf("; %s %s %s -> %s", e.Op, e.Key, e.Before, e.After)
			}
			out = append(out, s)
		}
	})
	return strings.Join(out, "\n")
}

func TestConflate(t *testing.T) {
	price := func(id, from, to int) listeners.Event {
		return listeners.Event{Op: listeners.Update, Schema: prices, Before: record(prices, id, from), After: record(prices, id, to)}
	}
	gone := func(id, was int) listeners.Event {
		return listeners.Event{Op: listeners.Delete, Schema: prices, Before: record(prices, id, was)}
	}
	fresh := func(id, value int) listeners.Event {
		return listeners.Event{Op: listeners.Create, Schema: prices, After: record(prices, id, value)}
	}
	keyless := listeners.NewSchema("shop", "public", "log", []listeners.Column{{Name: "line"}})
	for name, tc := range map[string]struct {
		batches []*listeners.Batch
		want    string
	}{
		"first before and last after, in the order of the last change": {
			[]*listeners.Batch{batch(2, price(1, 10, 11)), batch(3, price(2, 20, 21)), batch(4, price(1, 11, 12)), batch(5, price(2, 21, 22), price(1, 12, 13))},
			`changes 5 true-true; update 2 {"id":2,"value":20} -> {"id":2,"value":22}; update 1 {"id":1,"value":10} -> {"id":1,"value":13}`,
		},
		"created and deleted": {
			[]*listeners.Batch{batch(2, fresh(1, 10)), batch(3, price(1, 10, 11)), batch(4, gone(1, 11)), batch(5, fresh(2, 1))},
			`changes 5 true-true; create 2 null -> {"id":2,"value":1}`,
		},
		"nothing is left": {
			[]*listeners.Batch{batch(2, fresh(1, 10)), batch(3, price(1, 10, 11)), batch(4, gone(1, 11)), batch(5)},
			"",
		},
		"deleted and created": {
			[]*listeners.Batch{batch(2, gone(1, 10)), batch(3, fresh(1, 11)), batch(4, price(1, 11, 12)), batch(5)},
			`changes 5 true-true; update 1 {"id":1,"value":10} -> {"id":1,"value":12}`,
		},
		"truncate": {
			[]*listeners.Batch{batch(2, fresh(1, 10)), batch(3, price(2, 1, 2)), batch(4, listeners.Event{Op: listeners.Truncate, Schema: prices}), batch(5, fresh(1, 11))},
			`changes 5 true-true; truncate  null -> null; create 1 null -> {"id":1,"value":11}`,
		},
		"reset": {
			[]*listeners.Batch{batch(2, fresh(1, 10)), marker(listeners.Reset, 3), marker(listeners.Live, 3), batch(4, price(1, 1, 2)), batch(5, price(1, 2, 3)), batch(6)},
			"reset 3 true-true\nlive 3 true-true\n" + `changes 6 true-true; update 1 {"id":1,"value":1} -> {"id":1,"value":3}`,
		},
		"rows without a key": {
			[]*listeners.Batch{batch(2, created(keyless, 1)), batch(3, created(keyless, 1), price(1, 1, 2)), batch(4, price(1, 2, 3)), batch(5, price(1, 3, 4)), batch(6), batch(7)},
			`changes 7 true-true; create  null -> {"line":1}; create  null -> {"line":1}; update 1 {"id":1,"value":1} -> {"id":1,"value":4}`,
		},
		"a transaction that goes on": {
			[]*listeners.Batch{batch(2, price(1, 1, 2)), part(3, 1, true, false, price(1, 2, 3)), part(3, 2, false, false, price(1, 3, 4))},
			`changes 3 true-false; update 1 {"id":1,"value":1} -> {"id":1,"value":4}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := conflated(t, with(listeners.OverflowConflate, int64(len(tc.batches))), tc.batches...)
			got = strings.TrimSuffix(strings.TrimSuffix(got, "changes 99 true-true"), "\n")
			if got != tc.want {
				t.Errorf("heard\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

// A subscription that hangs and is closed keeps nothing of what was merged, or
// comes after it.
func TestClosedConflatedSubscriptionHoldsNothing(t *testing.T) {
	f := listeners.NewFeed(nil)
	called, hang := make(chan struct{}), make(chan struct{})
	defer close(hang)
	sub, err := f.Subscribe("s", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
		close(called)
		<-hang
		return nil
	}), with(listeners.OverflowConflate, 4), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Append(batch(1, created(seats, 1)))
	<-called
	first := appendWeak(f, 2)
	for c := range uint64(20) {
		f.Append(batch(c+3, created(seats, 1)))
	}
	if !collected(t, first) {
		t.Error("it holds a batch that was merged")
	}
	second := appendWeak(f, 50)
	sub.Close()
	third := appendWeak(f, 51)
	if !collected(t, second) || !collected(t, third) {
		t.Error("it holds batches that it will never handle")
	}
	runtime.KeepAlive(sub)
	runtime.KeepAlive(f)
}
