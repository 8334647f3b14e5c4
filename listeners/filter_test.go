package listeners_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestWholeBatchIsPassedUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var got []*listeners.Batch
		subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			got = append(got, b)
			return nil
		}), only("public.seats", "prices"), nil)
		want := []*listeners.Batch{
			batch(1, created(seats, 1), created(prices, 2)), marker(listeners.Reset, 2),
			marker(listeners.Snapshot, 2, created(seats, 1)), marker(listeners.Live, 2),
		}
		for _, b := range want {
			f.Append(b)
		}
		synctest.Wait()
		if len(got) != len(want) {
			t.Fatalf("%d batches arrived, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("batch %d is a copy: %+v", i, got[i])
			}
		}
	})
}

func TestFilteredBatchIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		var got *listeners.Batch
		subscribe(t, f, "s", listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
			got = b
			return nil
		}), only("public.seats"), nil)
		b := batch(1, created(trains, 1), created(seats, 2), created(trains, 3), created(seats, 4))
		events := append([]listeners.Event(nil), b.Events...)
		f.Append(b)
		synctest.Wait()
		if got == nil || got == b || len(got.Events) != 2 || got.Events[0].Key().String() != "2" || got.Events[1].Key().String() != "4" {
			t.Fatalf("arrived %+v, want a copy with the seats 2 and 4", got)
		}
		if got.Position != b.Position || got.Tx != b.Tx || got.Source != b.Source || !got.First || !got.Last {
			t.Errorf("the copy is %+v, want all but the events as in %+v", got, b)
		}
		if len(b.Events) != 4 || cmp.Diff(events[1].Position, b.Events[1].Position) != "" || b.Events[1].Schema != seats {
			t.Errorf("the batch itself changed: %+v", b)
		}
	})
}

// A transaction that comes in parts begins and ends for each filtered view.
func TestFilteredTransactionKeepsFirstAndLast(t *testing.T) {
	s, tr := func(id int) listeners.Event { return created(seats, id) }, func(id int) listeners.Event { return created(trains, id) }
	for name, tc := range map[string]struct {
		batches []*listeners.Batch
		want    string
	}{
		"all of interest": {
			[]*listeners.Batch{part(1, 1, true, false, s(1)), part(1, 2, false, false, s(2)), part(1, 3, false, true, s(3))},
			"1.1:(s1, 1.2:s2, 1.3:s3)",
		},
		"mixed": {
			[]*listeners.Batch{part(1, 1, true, false, tr(1), s(1)), part(1, 2, false, true, s(2), tr(2))},
			"1.1:(s1, 1.2:s2)",
		},
		"first of no interest": {
			[]*listeners.Batch{part(1, 1, true, false, tr(1)), part(1, 2, false, false, s(2)), part(1, 3, false, true, s(3))},
			"1.2:(s2, 1.3:s3)",
		},
		"middle of no interest": {
			[]*listeners.Batch{part(1, 1, true, false, s(1)), part(1, 2, false, false, tr(2)), part(1, 3, false, true, s(3))},
			"1.1:(s1, 1.3:s3)",
		},
		"last of no interest": {
			[]*listeners.Batch{part(1, 1, true, false, s(1)), part(1, 2, false, false, tr(2)), part(1, 3, false, true, tr(3))},
			"1.1:(s1, 1.3:)",
		},
		"only the last of interest": {
			[]*listeners.Batch{part(1, 1, true, false, tr(1)), part(1, 2, false, true, s(2))},
			"1:(s2)",
		},
		"nothing of interest": {
			[]*listeners.Batch{part(1, 1, true, false, tr(1)), part(1, 2, false, true, tr(2)), batch(2, tr(3)), batch(3)},
			"",
		},
		"one after the other": {
			[]*listeners.Batch{part(1, 1, true, false, s(1)), part(1, 2, false, true, tr(2)), batch(2, s(3), tr(3)), part(3, 1, true, false, s(4)), part(3, 2, false, true, s(5))},
			"1.1:(s1, 1.2:), 2:(s3), 3.1:(s4, 3.2:s5)",
		},
		"begun again": { // by a source that reset
			[]*listeners.Batch{part(1, 1, true, false, s(1)), marker(listeners.Reset, 2), part(3, 1, true, false, s(4)), part(3, 2, false, true, s(5))},
			"1.1:(s1, reset 2:(), 3.1:(s4, 3.2:s5)",
		},
		"snapshot": {
			[]*listeners.Batch{
				snapshotPart(1, true, false, tr(1)), snapshotPart(2, false, false, s(2)), snapshotPart(3, false, false, tr(3)), snapshotPart(4, false, true, tr(4)),
			},
			"snapshot 1.2:(s2, snapshot 1.4:)",
		},
		"snapshot without a row of interest": { // which has one batch nevertheless
			[]*listeners.Batch{snapshotPart(1, true, false, tr(1)), snapshotPart(2, false, true, tr(2))},
			"snapshot 1:()",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				var rec listenertest.Recorder
				sub := subscribe(t, f, "s", &rec, only("public.seats"), nil)
				for _, b := range tc.batches {
					f.Append(b)
				}
				wantHeard(t, &rec, tc.want)
				if last := tc.batches[len(tc.batches)-1].Position; sub.Stored() != last {
					t.Errorf("Stored() = %s, want %s: what is left out is handled", sub.Stored(), last)
				}
			})
		})
	}
}

func snapshotPart(index uint32, first, last bool, events ...listeners.Event) *listeners.Batch {
	b := part(1, index, first, last, events...)
	b.Kind = listeners.Snapshot
	return b
}

// Nobody could make whole what began before the subscription.
func TestAtomicForWhoSubscribesWithinATransaction(t *testing.T) {
	for name, opts := range map[string]*listeners.SubscribeOptions{"all": nil, "filtered": only("public.seats")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				f.Append(part(1, 1, true, false, created(seats, 1)))
				var rec, joined listenertest.Recorder
				sub := subscribe(t, f, "s", &rec, opts, nil)
				subscribe(t, f, "joined", &joined, opts, func(_ context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
					return at(1), emit(marker(listeners.Live, 1))
				})
				f.Append(part(1, 2, false, false, created(seats, 2)))
				f.Append(part(1, 3, false, true, created(seats, 3)))
				wantHeard(t, &rec, "")
				if p := sub.Stored(); p.Commit != 1 || p.Index != 3 {
					t.Errorf("Stored() = %s, want the end of the transaction", p)
				}
				f.Append(part(2, 1, true, false, created(seats, 4)))
				f.Append(part(2, 2, false, true, created(seats, 5)))
				wantHeard(t, &rec, "2.1:(s4, 2.2:s5)")
				wantHeard(t, &joined, "live 1:(), 2.1:(s4, 2.2:s5)")
			})
		})
	}
	t.Run("which the source gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := listeners.NewFeed(nil)
			f.Append(part(1, 1, true, false, created(seats, 1)))
			var rec listenertest.Recorder
			subscribe(t, f, "s", &rec, nil, nil)
			f.Append(marker(listeners.Reset, 2))
			f.Append(batch(3, created(seats, 3)))
			wantHeard(t, &rec, "reset 2:(), 3:(s3)")
		})
	})
}
