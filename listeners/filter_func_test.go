package listeners_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestFilter(t *testing.T) {
	small := func(id int) listeners.Event { return created(seats, id) }
	large := func(id int) listeners.Event { return created(seats, 100+id) }
	train := func(id int) listeners.Event { return created(trains, id) }
	for name, tc := range map[string]struct {
		collections []string
		batches     []*listeners.Batch
		want        string
	}{
		"all":                {nil, []*listeners.Batch{batch(1, small(1), train(2)), batch(2, small(3))}, "1:(s1 t2), 2:(s3)"},
		"some":               {nil, []*listeners.Batch{batch(1, large(1), small(2), large(3), small(4)), batch(2, small(5), large(6))}, "1:(s2 s4), 2:(s5)"},
		"none":               {nil, []*listeners.Batch{batch(1, large(1)), batch(2, small(2)), batch(3)}, "2:(s2)"},
		"within collections": {[]string{"public.seats"}, []*listeners.Batch{batch(1, small(1), train(2), large(3)), batch(2, train(3)), batch(3, large(4))}, "1:(s1)"},
		"first of several":   {nil, []*listeners.Batch{part(1, 1, true, false, large(1)), part(1, 2, false, false, small(2)), part(1, 3, false, true, large(3))}, "1.2:(s2, 1.3:)"},
		"none of several":    {nil, []*listeners.Batch{part(1, 1, true, false, large(1)), part(1, 2, false, true, large(2)), batch(2, small(3))}, "2:(s3)"},
		"the present state": {nil, []*listeners.Batch{
			marker(listeners.Reset, 1), snapshotPart(1, true, false, large(1), small(2)), snapshotPart(2, false, true, large(3)), marker(listeners.Live, 1), batch(2, large(1), small(2)),
		}, "reset 1:(), snapshot 1.1:(s2, snapshot 1.2:), live 1:(), 2:(s2)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				var rec listenertest.Recorder
				asked := make(map[*listeners.Event]int)
				sub := subscribe(t, f, "s", &rec, &listeners.SubscribeOptions{Collections: tc.collections, Filter: func(e *listeners.Event) bool {
					asked[e]++
					return len(e.Key().String()) < 3
				}}, nil)
				for _, b := range tc.batches {
					f.Append(b)
				}
				wantHeard(t, &rec, tc.want)
				if last := tc.batches[len(tc.batches)-1].Position; sub.Stored() != last {
					t.Errorf("Stored() = %s, want %s: what is left out is handled", sub.Stored(), last)
				}
				for e, n := range asked {
					if n != 1 {
						t.Errorf("the filter was asked %d times for %s", n, e.Key())
					}
				}
			})
		})
	}
}

func TestFilterThatKeepsAllPassesTheBatchItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var got *listeners.Batch
		subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			got = b
			return nil
		}), &listeners.SubscribeOptions{Filter: func(*listeners.Event) bool { return true }}, nil)
		b := batch(1, created(seats, 1), created(seats, 2))
		f.Append(b)
		if synctest.Wait(); got != b {
			t.Errorf("arrived %+v, want the batch itself", got)
		}
	})
}

func TestFilterThatPanicsEndsItsSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var rec, other listenertest.Recorder
		sub := subscribe(t, f, "s", &rec, &listeners.SubscribeOptions{Filter: func(*listeners.Event) bool { panic("no such column") }}, nil)
		subscribe(t, f, "other", &other, nil, nil)
		put(t, f, 1, 2)
		<-sub.Done()
		wantHeard(t, &rec, "")
		wantHeard(t, &other, "1:(s1), 2:(s2)")
		where, ok := errors.AsType[*listeners.ListenerError](sub.Err())
		if _, panicked := errors.AsType[*listeners.PanicError](sub.Err()); !ok || !panicked || where.Position != at(1) || sub.Stored() == at(1) {
			t.Errorf("Err() = %v, want a panic at 1", sub.Err())
		}
	})
}
