package listeners_test

import (
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// A position without a batch is handled by all who have handled what was before,
// and told to nobody.
func TestPassedPositionIsReached(t *testing.T) {
	for name, opts := range map[string]listeners.SubscribeOptions{
		"plain":   {},
		"filter":  {Collections: []string{"public.seats"}},
		"workers": {Workers: 2},
		"reset":   {Overflow: listeners.OverflowReset},
		"names":   {Positions: listeners.NewFilePositions(t.TempDir())},
	} {
		t.Run(name, func(t *testing.T) {
			f := listeners.NewFeed(nil)
			var rec listenertest.Recorder
			var join listeners.Join
			if opts.Overflow == listeners.OverflowReset {
				join = stateAt(new(uint64))
			}
			sub := subscribe(t, f, "s", &rec, &opts, join)
			put(t, f, 1)
			f.Pass(at(5))
			if err := sub.Wait(t.Context(), at(5)); err != nil || sub.Handled() != at(5) {
				t.Errorf("Wait = %v, Handled() = %s; want nil and %s", err, sub.Handled(), at(5))
			}
			f.Pass(at(6))
			put(t, f, 7)
			if err := sub.Wait(t.Context(), at(7)); err != nil {
				t.Error(err)
			}
			changes := 0
			for _, b := range rec.Batches() {
				if b.Kind != listeners.Reset && b.Kind != listeners.Snapshot && b.Kind != listeners.Live {
					changes++
				}
			}
			if changes != 2 {
				t.Errorf("heard %s, want two batches of changes", heard(&rec))
			}
		})
	}
}

// What was merged keeps the last position.
func TestPassedPositionIsKeptByConflate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(nil)
		g := newGate()
		sub := subscribe(t, f, "s", g, &listeners.SubscribeOptions{Overflow: listeners.OverflowConflate, BacklogBytes: 4000}, nil)
		f.Append(batch(1, created(seats, 1)))
		synctest.Wait()
		for c := uint64(2); c < 200; c += 2 {
			f.Append(batch(c, updated(seats, 1, 1)))
			f.Pass(at(c + 1))
		}
		if lag := sub.Lag(); lag.Bytes > 4000+1000 {
			t.Errorf("Lag() = %+v with a backlog of 4000 bytes", lag)
		}
		close(g.pass)
		synctest.Wait()
		if got := sub.Handled(); got != at(199) {
			t.Errorf("Handled() = %s, want %s; heard %s", got, at(199), heard(&g.Recorder))
		}
	})
}

func TestHistoryBehindAPassedPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := listeners.NewFeed(&listeners.FeedOptions{HistoryBytes: 10_000})
		put(t, f, 1, 2)
		f.Pass(at(4))
		put(t, f, 6)
		var rec listenertest.Recorder
		subscribe(t, f, "s", &rec, &listeners.SubscribeOptions{From: at(4)}, nil)
		wantHeard(t, &rec, "6:(s6)")
	})
}
