package grid_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestRegionIsAMap(t *testing.T) {
	r := open[int, string](t, newGrid(t), "stops", nil)
	if v, ok := r.Get(1); v != "" || ok {
		t.Errorf("Get(1) of an empty region = %q, %t; want nothing", v, ok)
	}
	for k, v := range map[int]string{10: "ten", -1: "minus one", 2: "two"} {
		put(t, r, k, v)
	}
	put(t, r, 2, "TWO")
	if v, ok := r.Get(2); v != "TWO" || !ok {
		t.Errorf("Get(2) = %q, %t; want TWO", v, ok)
	}
	if r.Len() != 3 {
		t.Errorf("Len() = %d, want 3", r.Len())
	}
	var keys []int
	for k := range r.All() {
		keys = append(keys, k)
	}
	if want := []int{-1, 2, 10}; !slices.Equal(keys, want) {
		t.Errorf("All() yields the keys %v, want %v", keys, want)
	}
	pos, existed, err := r.Delete(t.Context(), 2)
	if !existed || err != nil || pos != r.Position() {
		t.Errorf("Delete(2) = %s, %t, %v; want %s, true, nil", pos, existed, err, r.Position())
	}
	pos, existed, err = r.Delete(t.Context(), 2)
	if existed || err != nil || !pos.IsZero() {
		t.Errorf("second Delete(2) = %s, %t, %v; want zero, false, nil", pos, existed, err)
	}
	if _, ok := r.Get(2); ok || r.Len() != 2 {
		t.Errorf("after Delete(2) it is there: %t, and Len() = %d; want false, 2", ok, r.Len())
	}
}

func TestAllIsASnapshotFromItsStart(t *testing.T) {
	r := open[int, int](t, newGrid(t), "r", nil)
	for k := range 10 {
		put(t, r, k, k)
	}
	got := make(map[int]int)
	for k, v := range r.All() {
		put(t, r, k+100, 0)
		put(t, r, 9, 99)
		got[k] = v
	}
	want := make(map[int]int)
	for k := range 10 {
		want[k] = k
	}
	if !maps.Equal(got, want) {
		t.Errorf("All() yielded %v while others wrote, want %v", got, want)
	}
}

func TestPositionsCountFromOneInAnEpochThatGrows(t *testing.T) {
	g := newGrid(t)
	r := open[string, int](t, g, "r", nil)
	first := put(t, r, "a", 1)
	second := put(t, r, "a", 1)
	if first.Commit != 1 || second.Commit != 2 || first.Index != 0 || first.Epoch != second.Epoch || first.Epoch == 0 {
		t.Errorf("positions of two puts: %s, %s; want commits 1 and 2 of one epoch", first, second)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := put(t, open[string, int](t, g, "r", nil), "a", 1)
	if again.Compare(second) <= 0 {
		t.Errorf("the region opened again is at %s, want more than %s", again, second)
	}
}

func TestEventsCarryOldAndNew(t *testing.T) {
	g := newGrid(t)
	r := open[string, seat](t, g, "seats", nil)
	rec := new(listenertest.Recorder)
	subscribe(t, r, rec, nil)
	var at []listeners.Position
	at = append(at, put(t, r, "1/A", seat{"first", 9, false}), put(t, r, "1/A", seat{"first", 8, true}))
	pos, _, err := r.Delete(t.Context(), "1/A")
	if err != nil {
		t.Fatal(err)
	}
	at = append(at, pos)
	if _, _, err := r.Delete(t.Context(), "absent"); err != nil {
		t.Fatal(err)
	}
	at = append(at, put(t, r, "2", seat{}))
	got, err := rec.WaitEvents(deadline(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	one := `{"key":"1/A","class":"first","price":9,"is_sold":false}`
	two := `{"key":"1/A","class":"first","price":8,"is_sold":true}`
	want := []listenertest.Event{
		{Op: listeners.Create, Collection: "seats", Key: "1%2FA", Before: "null", After: one, Position: at[0]},
		{Op: listeners.Update, Collection: "seats", Key: "1%2FA", Before: one, After: two, Position: at[1]},
		{Op: listeners.Delete, Collection: "seats", Key: "1%2FA", Before: two, After: "null", Position: at[2]},
		{Op: listeners.Create, Collection: "seats", Key: "2", Before: "null", After: `{"key":"2","class":"","price":0,"is_sold":false}`, Position: at[3]},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for i, b := range rec.Batches() {
		if b.Kind != listeners.Changes || !b.First || !b.Last || b.Position != at[i] || b.Tx.ID != at[i].Commit || b.Tx.Time.IsZero() {
			t.Errorf("batch %d = %+v; want a whole transaction %d at %s", i, b, at[i].Commit, at[i])
		}
	}
}

func TestHandlersGetTheValuesWithoutDecoding(t *testing.T) {
	type hidden struct{ secret *int } // no column at all
	r := open[string, hidden](t, newGrid(t), "r", nil)
	n := 7
	got := make(chan listeners.Change[hidden], 2)
	keep := func(_ context.Context, c listeners.Change[hidden]) error { got <- c; return nil }
	subscribe(t, r, listeners.Handlers[hidden]{OnCreate: keep, OnUpdate: keep}, nil)
	put(t, r, "k", hidden{&n})
	put(t, r, "k", hidden{nil})
	if c := <-got; c.After.secret != &n || c.HasBefore || c.Key != "k" {
		t.Errorf("create: %+v; want the value that was put", c)
	}
	if c := <-got; c.Before.secret != &n || !c.HasBefore || c.After.secret != nil {
		t.Errorf("update: %+v; want both values that were put", c)
	}
}

func TestOpenRefuses(t *testing.T) {
	g := newGrid(t)
	r := open[string, int](t, g, "taken", nil)
	if _, err := grid.Open[string, int](g, "taken", nil); !errors.Is(err, grid.ErrTaken) {
		t.Errorf("Open of a taken name = %v, want ErrTaken", err)
	}
	if _, err := grid.Mirror[string, int](g, "taken", r, nil); !errors.Is(err, grid.ErrTaken) {
		t.Errorf("Mirror of a taken name = %v, want ErrTaken", err)
	}
	if _, err := grid.Open[float64, int](g, "floats", nil); err == nil || !strings.Contains(err.Error(), "float64 cannot be a key") {
		t.Errorf("Open with float keys = %v, want an error that says so", err)
	}
	type twins struct {
		A int
		B int `db:"a"`
	}
	if _, err := grid.Open[string, twins](g, "twins", nil); err == nil || !strings.Contains(err.Error(), `both stand for column "a"`) {
		t.Errorf("Open with two fields of one column = %v, want an error that says so", err)
	}
	if _, err := grid.Open[string, int](g, "", nil); err == nil {
		t.Error("Open without a name = nil, want an error")
	}
	if _, err := r.Subscribe("s", nil, nil); err == nil {
		t.Error("Subscribe without a listener = nil, want an error")
	}
	if _, err := r.Subscribe("s", new(listenertest.Recorder), &listeners.SubscribeOptions{Collections: []string{"tkaen"}}); err == nil {
		t.Error("Subscribe to a collection that the region is not = nil, want an error")
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	open[string, int](t, g, "taken", nil) // free again
}

func TestClosed(t *testing.T) {
	g := grid.New("g", nil)
	r := open[string, int](t, g, "r", nil)
	rec := new(listenertest.Recorder)
	sub := subscribe(t, r, rec, nil)
	for range 500 {
		put(t, r, "a", 1)
	}
	for range 2 {
		if err := g.Close(deadline(t)); err != nil {
			t.Errorf("Close() = %v, want nil", err)
		}
	}
	if err := r.Close(deadline(t)); err != nil {
		t.Errorf("Close() of a region that is closed = %v, want nil", err)
	}
	if n := len(rec.Events()); n != 500 {
		t.Errorf("the listener heard of %d puts before Close returned, want all 500", n)
	}
	select {
	case <-sub.Done():
	default:
		t.Error("the subscription runs after Close, want it ended")
	}
	<-r.Done()
	if sub.Err() != nil || r.Err() != nil {
		t.Errorf("after Close sub.Err() = %v and r.Err() = %v, want nil", sub.Err(), r.Err())
	}
	if _, err := r.Put(t.Context(), "a", 2); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Put after Close = %v, want ErrClosed", err)
	}
	if _, _, err := r.Delete(t.Context(), "a"); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Delete after Close = %v, want ErrClosed", err)
	}
	if _, err := r.Subscribe("late", rec, nil); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Subscribe after Close = %v, want ErrClosed", err)
	}
	if _, err := grid.Open[string, int](g, "other", nil); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Open in a closed grid = %v, want ErrClosed", err)
	}
	if v, ok := r.Get("a"); v != 1 || !ok {
		t.Errorf("Get after Close = %d, %t; want what it held", v, ok)
	}
}

func TestCloseLetsADurableListenerFlush(t *testing.T) {
	g := newGrid(t)
	r := open[string, int](t, g, "r", nil)
	s := &store{stalled: make(chan struct{})}
	subscribe(t, r, s, nil)
	put(t, r, "a", 1)
	if err := r.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if s.taken != 1 || s.flushed != 1 {
		t.Errorf("when Close returned, %d batches were taken and %d flushed; want 1, 1", s.taken, s.flushed)
	}
}

// A store takes batches at once and stores them in Flush.
type store struct {
	taken, flushed int
	stalled        chan struct{}
}

func (s *store) OnBatch(context.Context, *listeners.Batch) error { s.taken++; return nil }
func (s *store) Stored() listeners.Position                      { return listeners.Position{} }
func (s *store) Stalled() <-chan struct{}                        { return s.stalled }
func (s *store) Flush(ctx context.Context) error {
	if ctx.Err() == nil {
		s.flushed = s.taken
	}
	return ctx.Err()
}

func TestCloseDoesNotWaitLongerThanItsContext(t *testing.T) {
	g := grid.New("g", nil)
	r := open[string, int](t, g, "r", nil)
	hangs, release := make(chan struct{}), make(chan struct{})
	sub := subscribe(t, r, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
		close(hangs)
		<-release
		return nil
	}), nil)
	put(t, r, "a", 1)
	<-hangs
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if err := g.Close(ctx); !errors.Is(err, reason) || !strings.Contains(err.Error(), `subscription "test" is still busy`) {
		t.Errorf("Close with a listener that hangs = %v; want an error that names it", err)
	}
	close(release)
	<-sub.Done()
	if err := r.Close(deadline(t)); err != nil {
		t.Errorf("second Close = %v, want nil", err)
	}
}
