package jetstream_test

import (
	"maps"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A moment is a transaction of a region, or what a mirror shows of it.
type moment struct{ epoch, commit uint64 }

func momentOf(p listeners.Position) moment { return moment{p.Epoch, p.Commit} }

// statesOf returns what a listener that asked for the present state has built of
// its events, at each moment at which that was whole.
func statesOf(t *testing.T, who string, batches []listenertest.Batch) map[moment]map[string]string {
	t.Helper()
	states := make(map[moment]map[string]string)
	state := make(map[string]string)
	var last listeners.Position
	for _, b := range batches {
		if b.Kind == listeners.Reset {
			clear(state)
		}
		for _, e := range b.Events {
			if before := state[e.Key]; b.Kind == listeners.Changes && e.Op != listeners.Truncate && before != e.Before && (before != "" || e.Before != "null") {
				t.Errorf("%s at %s: %s, where there was %q", who, b.Position, e, before)
			}
			switch e.Op {
			case listeners.Truncate:
				clear(state)
			case listeners.Delete:
				delete(state, e.Key)
			default:
				state[e.Key] = e.After
			}
		}
		if b.Kind == listeners.Changes && b.Position.Compare(last) <= 0 {
			t.Errorf("%s heard a batch at %s after %s", who, b.Position, last)
		}
		if b.Kind == listeners.Changes || b.Kind == listeners.Live {
			last = b.Position
			states[momentOf(last)] = maps.Clone(state)
		}
	}
	return states
}

// A region in one process, mirrors of its stream in others, connections that
// break, and an owner that starts again, now with something and now empty.
// Whoever looks into a mirror, and whoever has listened from its beginning,
// finds what the region held at that position.
func TestAMirrorShowsAtEachPositionWhatItsOwnerHeldThere(t *testing.T) {
	seedtest.PlaySlow(t, 1, playOwners)
}

func playOwners(t *testing.T, seed uint64) {
	const generations, rounds = 3, 150
	server := natstest.Run(t)
	r := random(t, 90+seed)
	// By the owners, and by nobody in a stream that is empty yet.
	held := map[moment]map[place]ticket{{}: {}}
	told := map[moment]map[string]string{{}: {}}
	type glimpse struct {
		mirror int
		at     listeners.Position
		rows   map[place]ticket
	}
	var seen []glimpse
	var mirrors []*tickets
	var heard []*listenertest.Recorder
	wires := []*wire{{}, {}, {}} // the last one is an owner's
	join := func(w *wire) {
		m, src := mirror(t, connect(t, server, nats.SetCustomDialer(w)), nil)
		sinktest.Start(t, src)
		rec := new(listenertest.Recorder)
		if _, err := m.Subscribe("test", rec, &listeners.SubscribeOptions{Current: true}); err != nil {
			t.Fatal(err)
		}
		mirrors, heard = append(mirrors, m), append(heard, rec)
	}
	look := func() {
		i := r.IntN(len(mirrors))
		select {
		case <-mirrors[i].Ready():
			s := mirrors[i].Snapshot()
			seen = append(seen, glimpse{i, s.Position(), maps.Collect(s.All())})
		default:
		}
	}
	for generation := range generations {
		g, region := process(t)
		own := new(listenertest.Recorder)
		if _, err := region.Subscribe("own", own, &listeners.SubscribeOptions{Current: true}); err != nil {
			t.Fatal(err)
		}
		act := func() {
			change(t, g, region, r)
			held[momentOf(region.Position())] = rows(region)
		}
		held[momentOf(region.Position())] = rows(region)
		for range 20 * (generation % 2) {
			act()
		}
		stop := publish(t, connect(t, server, nats.SetCustomDialer(wires[2])), region, &jetstream.Options{MaxPending: 16})
		if generation == 0 {
			join(wires[0])
		}
		for i := range rounds {
			act()
			if generation == 0 && i == rounds/2 {
				join(wires[1])
			}
			if r.IntN(25) == 0 {
				wires[r.IntN(len(wires))].cut()
			}
			if i%50 == 49 { // so that not everything is behind
				equal(t, "mirror 0", mirrors[0], region)
			}
			look()
		}
		if _, err := region.Put(t.Context(), place{Car: 7}, randomTicket(r)); err != nil {
			t.Fatal(err)
		}
		held[momentOf(region.Position())] = rows(region)
		at := region.Position()
		for i, m := range mirrors {
			equal(t, "mirror "+strconv.Itoa(i), m, region)
			eventually(t, "its listener has heard all", func() bool { return lastPosition(heard[i]) == at })
		}
		eventually(t, "the region's own listener has heard all", func() bool { return lastPosition(own) == at })
		maps.Copy(told, statesOf(t, "the owner's listener", own.Batches()))
		stop()
	}
	if len(seen) < generations*rounds/4 {
		t.Errorf("%d looks into the mirrors: the test saw nothing", len(seen))
	}
	for _, s := range seen {
		if want, ok := held[momentOf(s.at)]; !ok || !cmp.Equal(want, s.rows) {
			t.Fatalf("mirror %d at %s, known %t (-owner +mirror):\n%s", s.mirror, s.at, ok, cmp.Diff(want, s.rows))
		}
	}
	for i, rec := range heard {
		states := statesOf(t, "the listener of mirror "+strconv.Itoa(i), rec.Batches())
		if len(states) < generations {
			t.Errorf("the listener of mirror %d knows %d states only", i, len(states))
		}
		for at, got := range states {
			if want, ok := told[at]; !ok || !maps.Equal(want, got) {
				t.Fatalf("mirror %d at %d/%d, known %t (-owner's listener +mirror's listener):\n%s", i, at.epoch, at.commit, ok, cmp.Diff(want, got))
			}
		}
	}
}
