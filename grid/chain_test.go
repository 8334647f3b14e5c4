package grid_test

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

func TestMirrorsOfRegionsKeepTheirPositions(t *testing.T) {
	g := newGrid(t)
	r := open[int, int](t, g, "r", nil)
	for k := range 1500 {
		put(t, r, k+100, k)
	}
	near, err := grid.Mirror[int, int](g, "near", r, nil)
	if err != nil {
		t.Fatal(err)
	}
	far, err := grid.Mirror[int, int](g, "far", near, &grid.MirrorOptions[int]{FeedBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	joined := new(replica)
	subscribe(t, far, joined, current) // most likely before it is ready
	scribble(t, r, 3, 700)
	want := maps.Collect(r.All())
	for name, m := range map[string]*grid.Region[int, int]{"near": near, "far": far} {
		ready(t, m)
		wait(t, name, func() bool { return m.Position() == r.Position() || m.Err() != nil })
		if got := maps.Collect(m.All()); !maps.Equal(got, want) || m.Len() != len(want) || m.Err() != nil {
			t.Errorf("%s holds %d entries (%v), want those %d of the region", name, m.Len(), m.Err(), len(want))
		}
	}
	joined.check(t, "listener with Current", want, r.Position())
	if joined.resets != 1 {
		t.Errorf("the listener with Current heard %d resets, want 1", joined.resets)
	}
	late := new(replica)
	live(t, subscribe(t, far, late, current))
	late.check(t, "late listener", want, r.Position())
}

func TestCurrentAtAMirrorWaitsUntilItIsReady(t *testing.T) {
	src := newItems()
	src.state = []string{"1|one|a", "2|two|b"}
	hold := make(chan struct{})
	g := newGrid(t)
	m, err := grid.Mirror[int64, item](g, "m", heldSource{src, hold}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := new(counter)
	s := subscribe(t, m, rec, current)
	select {
	case <-s.Live():
		t.Error("the listener is live before the mirror is ready")
	case <-m.Ready():
		t.Error("the mirror is ready before its snapshot came")
	default:
	}
	close(hold)
	live(t, s)
	if rec.reads != 2 || rec.kinds != "reset snapshot live " {
		t.Errorf("heard %s with %d rows, want one snapshot with 2", rec.kinds, rec.reads)
	}
}

func TestClosingAMirrorThatIsNotReady(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	g := newGrid(t)
	m, err := grid.Mirror[int64, item](g, "m", heldSource{newItems(), hold}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := subscribe(t, m, new(counter), current)
	if err := m.Close(deadline(t)); err != nil {
		t.Errorf("Close() = %v, want nil", err)
	}
	if err := m.WaitReady(t.Context()); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("WaitReady() of a closed mirror = %v, want ErrClosed", err)
	}
	if s.Err() != nil || m.Err() != nil {
		t.Errorf("after Close: subscription's error %v, mirror's %v; want nil", s.Err(), m.Err())
	}
}

func TestAMirrorThatStopsBeforeItIsReadySaysSoToItsListeners(t *testing.T) {
	src := newTable("log", "line")
	src.state = []string{"x"}
	hold := make(chan struct{})
	g := newGrid(t)
	m, err := grid.Mirror[int64, item](g, "m", heldSource{src, hold}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := subscribe(t, m, new(counter), current)
	close(hold)
	<-s.Done()
	if !errors.Is(s.Err(), m.Err()) || m.Err() == nil {
		t.Errorf("the listener's subscription ended with %v, want the mirror's %v", s.Err(), m.Err())
	}
}

// A heldSource sends nothing before hold is closed.
type heldSource struct {
	*table
	hold chan struct{}
}

func (h heldSource) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	return h.table.Subscribe(name, listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
		select {
		case <-h.hold:
			return l.OnBatch(ctx, b)
		case <-ctx.Done():
			return ctx.Err()
		}
	}), opts)
}

type counter struct {
	kinds string
	reads int
}

func (c *counter) OnBatch(_ context.Context, b *listeners.Batch) error {
	c.kinds += b.Kind.String() + " "
	c.reads += len(b.Events)
	return nil
}
