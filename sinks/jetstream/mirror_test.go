package jetstream_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/seedtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// ticket has a column of every kind.
type ticket struct {
	Train string
	Price int
	Paid  bool
	Rate  float64
	At    time.Time
	Code  []byte
	Note  *string
	Via   []string
	Owner struct{ Name string }
}

type place struct {
	Car  int
	Seat string
}

func randomTicket(r *rand.Rand) ticket {
	t := ticket{
		Train: "ICE \"" + strconv.Itoa(r.IntN(100)) + "\" ü\n", Price: r.IntN(1000) - 500, Paid: r.IntN(2) == 0,
		Rate: r.NormFloat64(), At: time.Unix(r.Int64N(1<<31), r.Int64N(1e9)).UTC(), Code: []byte{byte(r.IntN(256)), 0, '\\', 'x'},
	}
	if r.IntN(2) == 0 {
		t.Note = new("note " + strconv.Itoa(r.IntN(9)))
	}
	for range r.IntN(3) {
		t.Via = append(t.Via, "Köln")
	}
	t.Owner.Name = strconv.Itoa(r.IntN(5))
	return t
}

type tickets = grid.Region[place, ticket]

// process is what one process would have: a grid with one region.
func process(t testing.TB) (*grid.Grid, *tickets) {
	t.Helper()
	g := grid.New("trains", nil)
	t.Cleanup(func() { _ = g.Close(context.Background()) }) //nolint:usetesting // t's context has ended by then
	r, err := grid.Open[place, ticket](g, "tickets", nil)
	if err != nil {
		t.Fatal(err)
	}
	return g, r
}

// publish stores a region in its stream until the test ends or the result is
// called.
func publish(t testing.TB, nc *nats.Conn, r *tickets, opts *jetstream.Options) (stop func()) {
	t.Helper()
	f, err := jetstream.NewRegion(nc, "trains", "tickets", opts)
	if err != nil {
		t.Fatal(err)
	}
	return publishWith(t, f, r)
}

func publishWith(t testing.TB, f *sinks.Firehose, r *tickets) (stop func()) {
	t.Helper()
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	sub, err := r.Subscribe("firehose", f, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-sub.Live():
	case <-sub.Done():
		t.Fatalf("the firehose stopped: %v", sub.Err())
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			if err := sub.CloseWait(context.Background()); err != nil { //nolint:usetesting // also at the test's end
				t.Errorf("close the firehose's subscription: %v", err)
			}
			if err := sub.Err(); err != nil {
				t.Errorf("the firehose stopped: %v", err)
			}
			f.Close()
		})
	}
	t.Cleanup(stop)
	return stop
}

// regionStored waits until a firehose has stored what a region holds.
func regionStored(t testing.TB, nc *nats.Conn, r *tickets) {
	t.Helper()
	at := r.Snapshot().Position()
	eventually(t, "the firehose has stored "+at.String(), func() bool {
		for m, err := range jetstream.Read(t.Context(), nc, "GRID_TRAINS_TICKETS", nil) {
			if err == nil && m.Position.Compare(at) >= 0 {
				return true
			}
		}
		return false
	})
}

// mirror follows the stream of tickets with a connection of its own.
func mirror(t testing.TB, nc *nats.Conn, opts *sinks.SourceOptions) (*tickets, *sinks.Source) {
	t.Helper()
	return mirrorOf(t, nc, "GRID_TRAINS_TICKETS", opts)
}

func mirrorOf(t testing.TB, nc *nats.Conn, stream string, opts *sinks.SourceOptions) (*tickets, *sinks.Source) {
	t.Helper()
	s, err := jetstream.NewSource(nc, stream, opts)
	if err != nil {
		t.Fatal(err)
	}
	g := grid.New("here", nil)
	t.Cleanup(func() { _ = g.Close(context.Background()) }) //nolint:usetesting // t's context has ended by then
	m, err := grid.Mirror[place, ticket](g, "tickets", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m, s
}

func ready(t testing.TB, m *tickets) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func rows(r *tickets) map[place]ticket { return maps.Collect(r.All()) }

// equal waits until a mirror holds what a region holds.
func equal(t testing.TB, what string, m, r *tickets) {
	t.Helper()
	want := rows(r)
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		diff := cmp.Diff(want, rows(m))
		if diff == "" && m.Err() == nil {
			return
		}
		select {
		case <-m.Done():
			t.Fatalf("%s stopped: %v", what, m.Err())
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("%s does not hold what the region holds after a minute, Err() = %v (-region +mirror):\n%s", what, m.Err(), diff)
		}
	}
}

// change does something to a region at random.
func change(t testing.TB, g *grid.Grid, region *tickets, r *rand.Rand) {
	t.Helper()
	key := func() place { return place{Car: r.IntN(5) - 1, Seat: string(rune('A' + r.IntN(8)))} }
	var err error
	switch r.IntN(20) {
	case 0:
		_, err = region.Clear(t.Context())
	case 1, 2, 3, 4:
		_, _, err = region.Delete(t.Context(), key())
	case 5, 6:
		err = g.Do(t.Context(), func(tx *grid.Tx) error {
			in := grid.In(tx, region)
			for range 1 + r.IntN(20) {
				if err := in.Put(key(), randomTicket(r)); err != nil {
					return err
				}
			}
			return nil
		})
	default:
		_, err = region.Put(t.Context(), key(), randomTicket(r))
	}
	if err != nil {
		t.Fatalf("change: %v", err)
	}
}

func TestMirrorHoldsAndHearsWhatTheRegionOfAnotherProcessDoes(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	g, region := process(t)
	r := random(t, 60)
	for range 100 {
		change(t, g, region, r)
	}
	publish(t, connect(t, server), region, nil)
	for range 100 {
		change(t, g, region, r)
	}
	m, s := mirror(t, connect(t, server), nil)
	sinktest.Start(t, s)
	ready(t, m)
	if diff := cmp.Diff(rows(region), rows(m)); diff != "" {
		equal(t, "the mirror", m, region) // what came after it joined may be on its way
	}

	heard := new(listenertest.Recorder)
	if _, err := m.Subscribe("test", heard, nil); err != nil {
		t.Fatal(err)
	}
	own := new(listenertest.Recorder)
	regionStored(t, connect(t, server), region)
	equal(t, "the mirror", m, region)
	if _, err := region.Subscribe("test", own, nil); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		change(t, g, region, r)
	}
	equal(t, "the mirror", m, region)
	at := region.Snapshot().Position()
	eventually(t, "listeners of both have heard all", func() bool {
		return lastPosition(heard) == at && lastPosition(own) == at
	})
	// The same transactions, with the same values, positions and causes, but
	// that a write is one of the mirror there.
	want := sinktest.Told(own.Batches())
	for i, line := range want {
		if at := strings.LastIndexByte(line, ' '); at > 0 && strings.HasSuffix(line[:at], " write") {
			want[i] = strings.TrimSuffix(line[:at], "write") + listeners.CauseMirror.String() + line[at:]
		}
	}
	if diff := cmp.Diff(want, sinktest.Told(heard.Batches())); diff != "" {
		t.Errorf("batches (-region's listener +mirror's listener):\n%s", diff)
	}
}

func lastPosition(r *listenertest.Recorder) listeners.Position {
	b := r.Batches()
	if len(b) == 0 {
		return listeners.Position{}
	}
	return b[len(b)-1].Position
}

// Three generations of a writer, whose regions begin empty. The mirrors follow
// each, one of them from a stream that it finds with some history.
func TestMirrorsFollowARegionThatIsBuiltAnew(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	r := random(t, 61)
	var m, late *tickets
	for generation := range 4 {
		g, region := process(t)
		for range 50 * (generation % 3) { // the first and the last begin empty
			change(t, g, region, r)
		}
		stop := publish(t, connect(t, server), region, nil)
		if generation == 0 {
			var s *sinks.Source
			m, s = mirror(t, connect(t, server), nil)
			sinktest.Start(t, s)
			ready(t, m)
		}
		equal(t, "the mirror", m, region)
		if generation == 3 {
			equal(t, "the late mirror", late, region)
			break
		}
		for range 50 {
			change(t, g, region, r)
		}
		equal(t, "the mirror", m, region)
		if generation == 1 {
			var s *sinks.Source
			late, s = mirror(t, connect(t, server), nil)
			sinktest.Start(t, s)
			ready(t, late)
		}
		if late != nil {
			equal(t, "the late mirror", late, region)
		}
		stop()
	}
	if late.Len() != 0 || m.Err() != nil || late.Err() != nil {
		t.Errorf("the late mirror holds %d entries, want none; Err() = %v, %v", late.Len(), m.Err(), late.Err())
	}
}

// Two mirrors with wires that break, a server that restarts, and a third mirror
// that joins in the midst of it.
func TestMirrorsEqualTheRegionAfterRandomHistories(t *testing.T) {
	t.Parallel()
	few := 2
	if testing.Short() {
		few = 1
	}
	seedtest.PlaySlow(t, few, func(t *testing.T, seed uint64) { randomHistory(t, 70+seed) })
}

func randomHistory(t *testing.T, seed uint64) {
	dir := t.TempDir()
	s := natstest.RunWith(t, &natsserver.Options{Dir: dir})
	port := s.Port()
	g, region := process(t)
	publish(t, connect(t, s), region, &jetstream.Options{MaxPending: 64})
	wires := []*wire{{}, {}}
	var mirrors []*tickets
	var recorders []*listenertest.Recorder
	join := func(opts ...nats.Option) {
		m, src := mirror(t, connect(t, s, opts...), nil)
		sinktest.Start(t, src)
		rec := new(listenertest.Recorder)
		if _, err := m.Subscribe("test", rec, &listeners.SubscribeOptions{Current: true}); err != nil {
			t.Fatal(err)
		}
		mirrors, recorders = append(mirrors, m), append(recorders, rec)
	}
	for _, w := range wires {
		join(nats.SetCustomDialer(w))
	}
	r := random(t, seed)
	for i := range 1500 {
		change(t, g, region, r)
		switch {
		case i == 600:
			join()
		case i%300 == 149: // so that the faults meet readers in mid-flight
			equal(t, "mirror 0", mirrors[0], region)
		case i%300 == 299:
			s.Stop()
			next, err := natstest.Start(t.Context(), &natsserver.Options{Dir: dir, Port: port})
			if err != nil {
				t.Fatalf("restart: %v", err)
			}
			s = next
		case r.IntN(60) == 0:
			wires[r.IntN(len(wires))].cut()
		}
	}
	if _, err := region.Put(t.Context(), place{Car: 7}, ticket{}); err != nil {
		t.Fatal(err)
	}
	for i, m := range mirrors {
		equal(t, "mirror "+strconv.Itoa(i), m, region)
		at := region.Snapshot().Position()
		eventually(t, "its listener has heard all", func() bool { return lastPosition(recorders[i]) == at })
		replayed(t, recorders[i].Batches(), m)
	}
	s.Stop()
}

// replayed checks that the events of a listener add up to what a mirror holds,
// in order and none twice.
func replayed(t testing.TB, batches []listenertest.Batch, m *tickets) {
	t.Helper()
	state := make(map[string]string)
	var last listeners.Position
	for _, b := range batches {
		if b.Kind != listeners.Changes {
			if b.Kind == listeners.Reset {
				clear(state)
			}
			for _, e := range b.Events {
				state[e.Key] = e.After
			}
			continue
		}
		if b.Position.Compare(last) <= 0 {
			t.Errorf("batch at %s came after %s", b.Position, last)
		}
		last = b.Position
		for _, e := range b.Events {
			if e.Op != listeners.Truncate && state[e.Key] != map[bool]string{e.Before != "null": e.Before}[true] {
				t.Errorf("%s: the listener knew %q of the old value", e, state[e.Key])
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
	}
	want := new(listenertest.Recorder)
	sub, err := m.Subscribe("state", want, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-sub.Live():
	case <-t.Context().Done():
	}
	held := make(map[string]string)
	for _, e := range want.Events() {
		held[e.Key] = e.After
	}
	if diff := cmp.Diff(held, state); diff != "" {
		t.Errorf("the state by events (-mirror +events):\n%s", diff)
	}
}

// A mirror that a purge has overtaken says so, if the stream has no state to go
// on with.
func TestSourceSaysThatHistoryIsGone(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	g, region := process(t)
	stop := publish(t, connect(t, server), region, nil)
	r := random(t, 62)
	for range 20 {
		change(t, g, region, r)
	}
	regionStored(t, connect(t, server), region)
	stop()
	stream, err := natstest.JetStream(t, server).Stream(t.Context(), "GRID_TRAINS_TICKETS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	var gone *sinks.HistoryError

	m, s := mirror(t, connect(t, server), nil)
	end := sinktest.Start(t, s)
	if err := m.WaitReady(t.Context()); !errors.As(err, &gone) {
		t.Errorf("a mirror of a purged stream: WaitReady = %v, want a HistoryError", err)
	}
	if err := end(); !errors.As(err, &gone) {
		t.Errorf("Run with a mirror that failed = %v, want a HistoryError", err)
	}

	_, s = mirror(t, connect(t, server), &sinks.SourceOptions{Start: sinks.Start{Sequence: 3}})
	if err := s.Run(t.Context()); !errors.As(err, &gone) {
		t.Errorf("Run from a sequence that is gone = %v, want a HistoryError", err)
	}
}

// A mirror that followed a stream, whose history is then gone for good, keeps
// what it holds and says why it stopped.
func TestMirrorSaysWhyItsSourceHasFailed(t *testing.T) {
	t.Parallel()
	server := natstest.Run(t)
	g, region := process(t)
	stop := publish(t, connect(t, server), region, nil)
	r := random(t, 63)
	for range 20 {
		change(t, g, region, r)
	}
	if _, err := region.Put(t.Context(), place{Car: 9}, ticket{}); err != nil {
		t.Fatal(err)
	}
	m, s := mirror(t, connect(t, server), nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	ready(t, m)
	equal(t, "the mirror", m, region)
	held := rows(m)
	stop()
	js := natstest.JetStream(t, server)
	if err := js.DeleteStream(t.Context(), "GRID_TRAINS_TICKETS"); err != nil {
		t.Fatal(err)
	}
	// Another stream, which begins in the midst of something. The server may still
	// be at work on the files of the old one.
	eventually(t, "the stream is made anew", func() bool {
		_, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "GRID_TRAINS_TICKETS", Subjects: []string{"grid.trains.tickets.>"}, MaxMsgs: 1})
		return err == nil
	})
	for range 2 {
		if _, err := js.Publish(t.Context(), "grid.trains.tickets.other", nil); err != nil {
			t.Fatal(err)
		}
	}
	var gone *sinks.HistoryError
	select {
	case err := <-ended:
		if !errors.As(err, &gone) {
			t.Errorf("Run = %v, want a HistoryError", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run goes on")
	}
	<-m.Done()
	if err := m.Err(); !errors.As(err, &gone) {
		t.Errorf("the mirror's Err() = %v, want a HistoryError", err)
	}
	if diff := cmp.Diff(held, rows(m)); diff != "" {
		t.Errorf("what the mirror holds has changed (-before +after):\n%s", diff)
	}
}
