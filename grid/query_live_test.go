package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

// thirds returns the query for the values that 3 divides, by an index and by a
// function.
func thirds(t *testing.T, r *grid.Region[int, int], opts *grid.QueryOptions) []*grid.Query[int, int] {
	t.Helper()
	byRest, err := grid.NewIndex(r, "rest", func(_, v int) (int, bool) { return v % 3, true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	byValue, err := byRest.Query("thirds", 0, opts)
	if err != nil {
		t.Fatal(err)
	}
	byFunction, err := grid.NewQuery(r, "thirds", func(_, v int) bool { return v%3 == 0 }, opts)
	if err != nil {
		t.Fatal(err)
	}
	return []*grid.Query[int, int]{byValue, byFunction}
}

func newWhere(t *testing.T, r *grid.Region[int, int], where func(k, v int) bool, opts *grid.QueryOptions) *grid.Query[int, int] {
	t.Helper()
	q, err := grid.NewQuery(r, "where", where, opts)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func onlyThirds(r *grid.Region[int, int]) map[int]int {
	want := maps.Collect(r.All())
	maps.DeleteFunc(want, func(_, v int) bool { return v%3 != 0 })
	return want
}

func TestQueryJoinsWithoutAGapOrATwin(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	type joiner struct {
		replica
		sub *listeners.Subscription
	}
	var late []*joiner
	queries := thirds(t, r, nil)
	var joiners sync.WaitGroup
	stop := make(chan struct{})
	joiners.Go(func() {
		for i := 0; len(late) < 30; i++ {
			select {
			case <-stop:
				return
			default:
			}
			l := new(joiner)
			var err error
			if l.sub, err = queries[i%2].Subscribe("late", l, current); err != nil {
				t.Errorf("Subscribe() = %v", err)
				return
			}
			late = append(late, l)
			if i%5 == 0 {
				l.sub.Close() // so that the last one of a query ends now and then
				late = late[:len(late)-1]
				continue
			}
			select {
			case <-l.sub.Live():
			case <-l.sub.Done():
				t.Errorf("a joiner ended: %v", l.sub.Err())
				return
			}
		}
	})
	scribble(t, r, 4, 1000)
	close(stop)
	joiners.Wait()
	want := onlyThirds(r)
	for i, l := range late {
		if err := l.sub.Wait(deadline(t), r.Position()); err != nil {
			t.Fatalf("Wait(%s) of joiner %d = %v", r.Position(), i, err)
		}
		l.mu.Lock()
		if len(l.faults) > 0 || !maps.Equal(l.state, want) || l.resets != 1 || !l.live {
			t.Errorf("joiner %d: faults %.3q, state %v, %d resets, live %t; want none, %v, 1, true", i, l.faults, l.state, l.resets, l.live, want)
		}
		l.mu.Unlock()
	}
	t.Logf("%d joined", len(late))
}

// From now on begins behind what was written before, also where the queries'
// own goroutine has not come to that yet.
func TestQueryFromNowOnLeavesOutWhatWasBefore(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	q := thirds(t, r, nil)[0]
	subscribe(t, q, new(listenertest.Recorder), nil)
	for i := range 200 {
		put(t, r, 1, 3*i)
		rec := new(listenertest.Recorder)
		s := subscribe(t, q, rec, nil)
		at := put(t, r, 2, 3*i)
		if err := s.Wait(deadline(t), at); err != nil {
			t.Fatal(err)
		}
		if b := rec.Batches(); len(b) != 1 || b[0].Position != at {
			t.Fatalf("round %d: heard %q, want one batch at %s", i, lines(rec), at)
		}
		s.Close()
	}
}

func TestAHangingQueryListenerHoldsBackNoOtherQuery(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	queries := thirds(t, r, &grid.QueryOptions{FeedBytes: 1})
	release := make(chan struct{})
	hangs := func(context.Context, *listeners.Batch) error { <-release; return nil }
	hanging := subscribe(t, queries[0], listeners.ListenerFunc(hangs), nil)
	other := new(listenertest.Recorder)
	otherSub := subscribe(t, queries[1], other, nil)
	region := new(replica)
	subscribe(t, r, region, nil)

	at := put(t, r, 1, 3)
	wait(t, "the hanging listener to lag", func() bool { return hanging.Lag().Batches == 1 })
	reason := errors.New("out of patience")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, reason)
	defer cancel()
	_, err := r.Put(ctx, 2, 3)
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), `put into region "r": wait for the slowest listener`) {
		t.Errorf("Put with a full query = %v; want the cause %q and what it waited for", err, reason)
	}
	if err := otherSub.Wait(deadline(t), at); err != nil || len(other.Batches()) != 1 {
		t.Errorf("the other query: Wait() = %v, heard %q; want the one change", err, lines(other))
	}
	region.check(t, "the region's listener", map[int]int{1: 3}, at)

	written := make(chan error)
	go func() {
		_, err := r.Put(t.Context(), 3, 3)
		written <- err
	}()
	select {
	case err := <-written:
		t.Errorf("Put with a full query returned %v, before the listener went on", err)
	case <-time.After(10 * time.Millisecond):
	}
	close(release)
	if err := <-written; err != nil {
		t.Errorf("Put after the listener went on = %v, want nil", err)
	}
}

func TestAHangingQueryListenerThatDoesNotBlockStopsNobody(t *testing.T) {
	for _, opts := range []*listeners.SubscribeOptions{
		{Overflow: listeners.OverflowConflate, BacklogBytes: 8000},
		{Overflow: listeners.OverflowReset, Current: true, BacklogBytes: 2000},
		{Overflow: listeners.OverflowDisconnect, BacklogBytes: 2000},
	} {
		t.Run(opts.Overflow.String(), func(t *testing.T) {
			r := open[int, int](t, newGrid(t), "r", nil)
			q := thirds(t, r, &grid.QueryOptions{FeedBytes: 1})[0]
			release := make(chan struct{})
			got := replica{state: make(map[int]int)}
			s := subscribe(t, q, listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
				<-release
				return got.OnBatch(ctx, b)
			}), opts)
			for i := range 1000 {
				put(t, r, i%7, i)
			}
			close(release)
			if opts.Overflow == listeners.OverflowDisconnect {
				<-s.Done()
				if _, ok := errors.AsType[*listeners.LaggedError](s.Err()); !ok {
					t.Errorf("Err() = %v, want a LaggedError", s.Err())
				}
				return
			}
			if err := s.Wait(deadline(t), r.Position()); err != nil {
				t.Fatalf("Wait(%s) = %v", r.Position(), err)
			}
			got.mu.Lock()
			defer got.mu.Unlock()
			if want := onlyThirds(r); !maps.Equal(got.state, want) || len(got.faults) > 0 {
				t.Errorf("state %v with faults %.3q, want %v", got.state, got.faults, want)
			}
		})
	}
}

func TestQueryListenersMayWriteIntoTheirRegion(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", &grid.RegionOptions[int]{FeedBytes: 1})
	queries := thirds(t, r, &grid.QueryOptions{FeedBytes: 1})
	const until = 300
	var done sync.WaitGroup
	// Two that write into what the other hears, and one of the region.
	for i, src := range []listeners.Source{queries[0], queries[1], r} {
		done.Add(1)
		subscribe(t, src, listeners.Handlers[int]{OnUpdate: func(ctx context.Context, c listeners.Change[int]) error {
			if c.Key != fmt.Sprint(i) {
				return nil
			}
			if c.After == until {
				done.Done()
				return nil
			}
			_, err := r.Put(ctx, i, c.After+3)
			return err
		}}, nil)
	}
	for i := range 3 {
		put(t, r, i, 0)
		put(t, r, i, 3)
	}
	ended := make(chan struct{})
	go func() { done.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-deadline(t).Done():
		t.Fatalf("the listeners wait for each other; the region is at %s: %v", r.Position(), maps.Collect(r.All()))
	}
}

func TestQueriesStartAndStopFromInsideAListener(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	q := thirds(t, r, nil)[0]
	inner := new(listenertest.Recorder)
	heard := make(chan string, 10)
	var outer *listeners.Subscription
	set := make(chan struct{})
	outer = subscribe(t, q, listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
		<-set
		another, err := grid.NewQuery(r, "another", func(k, _ int) bool { return k == 2 }, nil)
		if err != nil {
			return err
		}
		sub, err := another.Subscribe("inner", inner, current)
		if err != nil {
			return err
		}
		at, err := r.Put(ctx, 2, 5)
		if err != nil {
			return err
		}
		if err := sub.Wait(ctx, at); err != nil {
			return err
		}
		if err := sub.CloseWait(ctx); err != nil {
			return err
		}
		outer.Close()
		err = outer.CloseWait(ctx)
		heard <- fmt.Sprint(b.Position.Commit, " ", err)
		return err
	}), nil)
	close(set)
	put(t, r, 1, 3)
	select {
	case <-outer.Done():
	case <-deadline(t).Done():
		t.Fatal("the listener waits for itself")
	}
	put(t, r, 4, 3) // heard by nobody
	select {
	case got := <-heard:
		if got != "1 <nil>" {
			t.Errorf("from inside: %s, want 1 and no error", got)
		}
	default:
		t.Fatalf("the listener ended: %v", outer.Err())
	}
	row := `2, changes, create 2 null->{"key":2,"value":5}`
	if got := lines(inner); !slices.Contains(got, row) && !slices.Contains(got, `2, snapshot, read 2 null->{"key":2,"value":5}`) || len(heard) > 0 {
		t.Errorf("the inner query heard %q and the outer one %d more; want %q", got, len(heard), row)
	}
}

func TestAQueryWhosePredicatePanicsHarmsOnlyItself(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	bad := newWhere(t, r, func(_, v int) bool {
		if v == 13 {
			panic("unlucky")
		}
		return true
	}, nil)
	good := new(listenertest.Recorder)
	goodSub := subscribe(t, newWhere(t, r, func(int, int) bool { return true }, nil), good, nil)
	two := []*listeners.Subscription{subscribe(t, bad, new(listenertest.Recorder), nil), subscribe(t, bad, new(listenertest.Recorder), nil)}
	put(t, r, 1, 12)
	at := put(t, r, 1, 13)
	for i, s := range two {
		select {
		case <-s.Done():
		case <-deadline(t).Done():
			t.Fatal("a subscription of a query that has failed goes on")
		}
		where, _ := errors.AsType[*listeners.ListenerError](s.Err())
		panicked, _ := errors.AsType[*listeners.PanicError](s.Err())
		if where == nil || where.Position != at || panicked == nil || panicked.Value != "unlucky" || !strings.Contains(s.Err().Error(), `query "where" of region "r"`) {
			t.Errorf("Err() of subscription %d = %v; want a panic at %s, and which query", i, s.Err(), at)
		}
	}
	if err := goodSub.Wait(deadline(t), put(t, r, 1, 14)); err != nil || len(good.Batches()) != 3 {
		t.Errorf("the other query: Wait() = %v, heard %q; want three changes", err, lines(good))
	}
	if _, err := bad.Subscribe("again", good, nil); err == nil || !strings.Contains(err.Error(), "unlucky") {
		t.Errorf("Subscribe() to a query that has failed = %v, want the panic", err)
	}
	put(t, r, 1, 13)
	fresh := newWhere(t, r, func(_, v int) bool {
		if v == 13 {
			panic("unlucky")
		}
		return true
	}, nil)
	s := subscribe(t, fresh, new(listenertest.Recorder), current)
	<-s.Done()
	if _, ok := errors.AsType[*listeners.PanicError](s.Err()); !ok {
		t.Errorf("Err() after a panic in the present state = %v, want a PanicError", s.Err())
	}
}

func TestAQueryListenerThatFailsHarmsOnlyItself(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	q := thirds(t, r, nil)[0]
	failure := errors.New("as planned")
	errs := subscribe(t, q, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return failure }), nil)
	panics := subscribe(t, q, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { panic("boom") }), nil)
	good := new(listenertest.Recorder)
	goodSub := subscribe(t, q, good, nil)
	put(t, r, 1, 3)
	<-errs.Done()
	<-panics.Done()
	if _, ok := errors.AsType[*listeners.PanicError](panics.Err()); !ok || !errors.Is(errs.Err(), failure) {
		t.Errorf("Err() = %v and %v; want the error and the panic", errs.Err(), panics.Err())
	}
	if err := goodSub.Wait(deadline(t), put(t, r, 1, 6)); err != nil || len(good.Batches()) != 2 {
		t.Errorf("the third listener: Wait() = %v, heard %q; want both changes", err, lines(good))
	}
}

func TestCloseTellsQueriesWhatWasWritten(t *testing.T) {
	g := grid.New("g", nil)
	r := open[int, int](t, g, "r", nil)
	var slow listenertest.Recorder
	slow.Err = func(*listeners.Batch) error { <-time.After(time.Millisecond); return nil }
	q := thirds(t, r, nil)[1]
	s := subscribe(t, q, &slow, nil)
	for i := range 50 {
		put(t, r, i, 3*i)
	}
	if err := g.Close(deadline(t)); err != nil || s.Err() != nil || len(slow.Batches()) != 50 {
		t.Errorf("Close() = %v, Err() = %v, heard %d batches; want nil, nil, 50", err, s.Err(), len(slow.Batches()))
	}
	select {
	case <-s.Done():
	default:
		t.Error("Close() has returned, and a subscription has not ended")
	}
	if _, err := q.Subscribe("late", &slow, nil); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Subscribe() after Close = %v, want ErrClosed", err)
	}
	if q.Len() != 50 {
		t.Errorf("Len() after Close = %d, want 50", q.Len())
	}
}

func TestCloseNamesTheQueryListenerThatIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // or else time may be up before Close gets to the query
		g := grid.New("g", nil)
		r := open[int, int](t, g, "r", nil)
		release := make(chan struct{})
		s, err := thirds(t, r, nil)[0].Subscribe("sleeper", listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { <-release; return nil }), nil)
		if err != nil {
			t.Fatal(err)
		}
		put(t, r, 1, 3)
		reason := errors.New("out of patience")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, reason)
		defer cancel()
		if err := r.Close(ctx); !errors.Is(err, reason) || !strings.Contains(err.Error(), `subscription "sleeper" is still busy`) {
			t.Errorf("Close() = %v; want %q and who is busy", err, reason)
		}
		close(release)
		<-s.Done()
	})
}

// A mirror's listeners may be there before it has a state, and its source may
// tell that again.
func TestQueryOfAMirror(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a", "2|two|b", "3|three|a"}
	hold := make(chan struct{})
	m := mirror[int64, item](t, heldSource{src, hold}, nil)
	byText, err := grid.NewIndex(m, "text", func(_ int64, i item) (string, bool) { return i.Text, true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := byText.Query("a", "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	early, joined := new(listenertest.Recorder), new(listenertest.Recorder)
	subs := []*listeners.Subscription{subscribe(t, q, early, nil), subscribe(t, q, joined, current)}
	close(hold)
	ready(t, m)
	live(t, subs[1])
	src.commit( // 1 leaves with another key, 2 enters, 3 changes its key within
		src.event(listeners.Update, "", "1|?|?", "11|one|b"),
		src.event(listeners.Update, "", "", "2|two|a"),
		src.event(listeners.Update, "", "3|?|?", "33|three|a"),
	)
	src.state = []string{"2|two|c", "33|THREE|a", "4|four|a"}
	src.at.Commit++
	for _, b := range src.snapshot() {
		src.feed.Append(b)
	}
	src.commit(src.event(listeners.Truncate, "", "", ""), src.event(listeners.Create, "", "", "5|five|a"))
	row := func(id int, name, text string) string {
		return fmt.Sprintf(`{"id":%d,"name":%q,"text":%q,"note":null}`, id, name, text)
	}
	want := []string{
		"100, reset",
		"100, snapshot, read 1 null->" + row(1, "one", "a") + ", read 3 null->" + row(3, "three", "a"),
		"100, live",
		"101, changes, delete 1 " + row(1, "one", "a") + "->null" +
			", create 2 " + row(2, "two", "b") + "->" + row(2, "two", "a") +
			", update 33 " + row(3, "three", "a") + "->" + row(33, "three", "a"),
		"102, changes, delete 2 " + row(2, "two", "a") + "->" + row(2, "two", "c") +
			", update 33 " + row(33, "three", "a") + "->" + row(33, "THREE", "a") +
			", create 4 null->" + row(4, "four", "a"),
		"103, changes, truncate  null->null, create 5 null->" + row(5, "five", "a"),
	}
	wait(t, "the mirror", func() bool { return m.Position().Commit == src.at.Commit })
	for i, rec := range []*listenertest.Recorder{early, joined} {
		if err := subs[i].Wait(deadline(t), m.Position()); err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, lines(rec)); diff != "" {
			t.Errorf("listener %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestQueryRefusesWhatCannotWork(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	q := thirds(t, r, nil)[0]
	rec := new(listenertest.Recorder)
	_, noFunction := grid.NewQuery(r, "q", nil, nil)
	_, noName := grid.NewQuery(r, "", func(int, int) bool { return true }, nil)
	_, noListener := q.Subscribe("s", nil, nil)
	_, otherCollection := q.Subscribe("s", rec, &listeners.SubscribeOptions{Collections: []string{"other"}})
	_, noState := q.Subscribe("s", rec, &listeners.SubscribeOptions{Overflow: listeners.OverflowReset})
	for want, err := range map[string]error{
		"the function is nil": noFunction, "a query needs a name": noName, "the listener is nil": noListener,
		`one collection "r"`: otherCollection, "set Current": noState,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := q.Subscribe("s", rec, &listeners.SubscribeOptions{Collections: []string{"r"}}); err != nil {
		t.Errorf("Subscribe() with the region's own collection = %v, want nil", err)
	}
}

func TestQueryReads(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	for i := range 10 {
		put(t, r, i, i)
	}
	for i, q := range thirds(t, r, nil) {
		var keys []int
		for k := range q.All() {
			keys = append(keys, k)
			if k == 6 {
				break
			}
		}
		v, ok := q.Get(9)
		_, outside := q.Get(8)
		_, absent := q.Get(12)
		if !slices.Equal(keys, []int{0, 3, 6}) || q.Len() != 4 || v != 9 || !ok || outside || absent || q.Name() != "thirds" {
			t.Errorf("query %d: keys %v up to 6, Len() = %d, Get(9) = %d, %t, Get(8) and Get(12) found: %t, %t", i, keys, q.Len(), v, ok, outside, absent)
		}
	}
}
