package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// A replica rebuilds a region from its events and checks each against what the
// events before it said.
type replica struct {
	mu       sync.Mutex
	state    map[int]int
	at       listeners.Position
	faults   []string
	resets   int
	live     bool
	received int
	whole    bool // it is no part of a state that is told
}

func (r *replica) OnBatch(_ context.Context, b *listeners.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch b.Kind {
	case listeners.Reset:
		r.state, r.live = make(map[int]int), false
		r.resets++
	case listeners.Live:
		r.live = true
	case listeners.Changes, listeners.Snapshot:
	}
	if b.Position.Compare(r.at) < 0 || b.Kind == listeners.Changes && b.Position == r.at {
		r.faults = append(r.faults, fmt.Sprintf("%s at %s after %s", b.Kind, b.Position, r.at))
	}
	r.at, r.whole = b.Position, b.Kind == listeners.Changes || b.Kind == listeners.Live
	for i := range b.Events {
		c, err := listeners.NewChange[int](&b.Events[i])
		if err != nil {
			return err
		}
		r.apply(c)
	}
	return nil
}

func (r *replica) apply(c listeners.Change[int]) {
	r.received++
	if r.state == nil {
		r.state = make(map[int]int)
	}
	k, err := strconv.Atoi(c.Key)
	held, ok := r.state[k]
	absent := c.Op == listeners.Create || c.Op == listeners.Read
	if err != nil || ok == absent || !absent && held != c.Before {
		r.faults = append(r.faults, fmt.Sprintf("%s of %s from %d to %d at %s; held %d, %t", c.Op, c.Key, c.Before, c.After, c.Position, held, ok))
	}
	if c.Op == listeners.Delete {
		delete(r.state, k)
		return
	}
	r.state[k] = c.After
}

func (r *replica) check(t *testing.T, name string, want map[int]int, at listeners.Position) {
	t.Helper()
	wait(t, name+" to catch up", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.at == at && r.whole || len(r.faults) > 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults[:min(3, len(r.faults))] {
		t.Errorf("%s: %s", name, f)
	}
	if !maps.Equal(r.state, want) {
		t.Errorf("%s: state from events %v, want %v", name, r.state, want)
	}
}

// scribble writes many changes of few keys from several goroutines.
func scribble(t *testing.T, r *grid.Region[int, int], writers, each int) {
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				k := (w + i*7) % 20
				var err error
				if i%3 == 2 {
					_, _, err = r.Delete(t.Context(), k)
				} else {
					_, err = r.Put(t.Context(), k, w*each+i)
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestEventsOfConcurrentWritersRebuildTheState(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", &grid.RegionOptions[int]{FeedBytes: 4096})
	listening := []*replica{{}, {}}
	for _, l := range listening {
		subscribe(t, r, l, nil)
	}
	scribble(t, r, 4, 1000)
	want := maps.Collect(r.All())
	for i, l := range listening {
		l.check(t, fmt.Sprintf("replica %d", i), want, r.Position())
	}
	if len(want) != r.Len() {
		t.Errorf("Len() = %d, All() yields %d", r.Len(), len(want))
	}
}

func TestCurrentJoinsWithoutAGapOrATwin(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	var late []*replica
	var joiners sync.WaitGroup
	stop := make(chan struct{})
	joiners.Go(func() {
		for len(late) < 30 {
			select {
			case <-stop:
				return
			default:
			}
			l := new(replica)
			s, err := r.Subscribe("late", l, current)
			if err != nil {
				t.Errorf("Subscribe() = %v", err)
				return
			}
			late = append(late, l)
			select {
			case <-s.Live():
			case <-s.Done():
				t.Errorf("a joiner ended: %v", s.Err())
				return
			}
		}
	})
	scribble(t, r, 4, 1000)
	close(stop)
	joiners.Wait()
	want := maps.Collect(r.All())
	for i, l := range late {
		l.check(t, fmt.Sprintf("joiner %d", i), want, r.Position())
		if l.resets != 1 || !l.live {
			t.Errorf("joiner %d: %d resets, live %t; want 1, true", i, l.resets, l.live)
		}
	}
	t.Logf("%d joined", len(late))
}

func TestSnapshotComesInChunks(t *testing.T) {
	for name, tc := range map[string]struct {
		rows int
		want string
	}{
		"none":  {0, "reset snapshot[0 first last] live"},
		"one":   {1, "reset snapshot[1 first last] live"},
		"1000":  {1000, "reset snapshot[1000 first last] live"},
		"1001":  {1001, "reset snapshot[1000 first] snapshot[1 last] live"},
		"twice": {2000, "reset snapshot[1000 first] snapshot[1000 last] live"},
	} {
		t.Run(name, func(t *testing.T) {
			r := open[int, int](t, newGrid(t), "r", nil)
			for k := range tc.rows {
				put(t, r, k, k)
			}
			var got []string
			next := 0
			s := subscribe(t, r, listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
				words := []string{strconv.Itoa(len(b.Events))}
				if b.First {
					words = append(words, "first")
				}
				if b.Last {
					words = append(words, "last")
				}
				if b.Kind == listeners.Snapshot {
					got = append(got, fmt.Sprintf("%s%s", b.Kind, words))
				} else {
					got = append(got, b.Kind.String())
				}
				for _, e := range b.Events {
					if e.Key().String() != strconv.Itoa(next) || e.Position.Commit != uint64(next+1) || e.Op != listeners.Read || e.Cause != listeners.CauseSnapshot {
						t.Errorf("row %d is %s %s of %s at %s", next, e.Cause, e.Op, e.Key(), e.Position)
					}
					next++
				}
				if b.Position != r.Position() {
					t.Errorf("%s at %s, want the region's %s", b.Kind, b.Position, r.Position())
				}
				return nil
			}), current)
			live(t, s)
			if s := strings.Join(got, " "); s != tc.want || next != tc.rows {
				t.Errorf("heard %s with %d rows, want %s with %d", s, next, tc.want, tc.rows)
			}
		})
	}
}

func TestAListenerMayWriteIntoItsOwnRegion(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", &grid.RegionOptions[int]{FeedBytes: 1})
	done := make(chan struct{})
	subscribe(t, r, listeners.Handlers[int]{OnCreate: func(ctx context.Context, c listeners.Change[int]) error {
		if c.After == 200 {
			close(done)
			return nil
		}
		for range 3 { // two of these are updates, which no handler hears
			if _, err := r.Put(ctx, c.After+1, c.After+1); err != nil {
				return err
			}
		}
		return nil
	}}, nil)
	put(t, r, 0, 0)
	select {
	case <-done:
	case <-deadline(t).Done():
		t.Fatalf("the listener waits for itself; the region is at %s", r.Position())
	}
}

func TestASlowListenerBlocksWritersUntilTheirContextEnds(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", &grid.RegionOptions[int]{FeedBytes: 1})
	release := make(chan struct{})
	slow := subscribe(t, r, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { <-release; return nil }), nil)
	put(t, r, 1, 1)
	reason := errors.New("out of patience")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, reason)
	defer cancel()
	_, err := r.Put(ctx, 2, 2)
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), `put into region "r": wait for the slowest listener`) {
		t.Errorf("Put with a full feed = %v; want the cause %q and what it waited for", err, reason)
	}
	if _, ok := r.Get(2); ok {
		t.Error("Put failed, and the region holds the value")
	}
	if v, ok := r.Get(1); v != 1 || !ok {
		t.Errorf("Get beside a blocked writer = %d, %t; want 1", v, ok)
	}
	unblocked := make(chan error)
	go func() {
		_, err := r.Put(t.Context(), 3, 3)
		unblocked <- err
	}()
	wait(t, "the lag of one batch", func() bool { return slow.Lag().Batches == 1 })
	close(release)
	if err := <-unblocked; err != nil {
		t.Errorf("Put after the listener moved on = %v, want nil", err)
	}
}

func TestAPanicHarmsOnlyItsOwnSubscription(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	bad := subscribe(t, r, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { panic("boom") }), nil)
	good := new(replica)
	subscribe(t, r, good, nil)
	pos := put(t, r, 1, 1)
	<-bad.Done()
	var panicked *listeners.PanicError
	var where *listeners.ListenerError
	if !errors.As(bad.Err(), &panicked) || !errors.As(bad.Err(), &where) || where.Position != pos {
		t.Errorf("Err() = %v; want a panic at %s", bad.Err(), pos)
	}
	put(t, r, 2, 2)
	good.check(t, "the other", map[int]int{1: 1, 2: 2}, r.Position())
}

func TestReadsGoOnBesideWriters(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r.Get(3)
				n := 0
				for range r.All() {
					n++
				}
				if n > 20 || r.Len() > 20 {
					t.Errorf("All() yields %d, Len() = %d; want at most 20", n, r.Len())
				}
			}
		})
	}
	scribble(t, r, 2, 1000)
	close(stop)
	readers.Wait()
}

func TestFeedBytesCountWhatValuesHold(t *testing.T) {
	big := strings.Repeat("x", 1000)
	type doc struct {
		Title string
		Body  []byte
		Tags  map[string]int
	}
	for name, tc := range map[string]struct {
		opts *grid.RegionOptions[doc]
		v    doc
		want int64 // over that of an empty value
	}{
		"strings and bytes": {nil, doc{Title: big, Body: []byte(big)}, 2000},
		"maps by default":   {nil, doc{Tags: map[string]int{big: 1}}, 0},
		"own estimate":      {&grid.RegionOptions[doc]{ValueBytes: func(d doc) int { return 50 * len(d.Tags) }}, doc{Title: big, Tags: map[string]int{"a": 1}}, 50},
	} {
		t.Run(name, func(t *testing.T) {
			r := open[string, doc](t, newGrid(t), "docs", tc.opts)
			release := make(chan struct{})
			s := subscribe(t, r, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { <-release; return nil }), nil)
			defer close(release)
			put(t, r, "a", doc{})
			empty := s.Lag().Bytes
			put(t, r, "b", tc.v)
			if got := s.Lag().Bytes - 2*empty; got != tc.want || empty < 200 || empty > 600 {
				t.Errorf("the value adds %d bytes to the %d of an empty one, want %d to some 400", got, empty, tc.want)
			}
		})
	}
}
