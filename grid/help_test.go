package grid_test

import (
	"context"
	"testing"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

type seat struct {
	Class string
	Price int
	Sold  bool `db:"is_sold"`
}

// deadline returns a context that fails a test which waits for ever.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newGrid(t *testing.T) *grid.Grid {
	t.Helper()
	g := grid.New("tickets", nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			t.Errorf("Close() = %v, want nil", err)
		}
	})
	return g
}

func open[K comparable, V any](t *testing.T, g *grid.Grid, name string, opts *grid.RegionOptions[V]) *grid.Region[K, V] {
	t.Helper()
	r, err := grid.Open[K](g, name, opts)
	if err != nil {
		t.Fatalf("Open(%q) = %v, want no error", name, err)
	}
	return r
}

func subscribe(t *testing.T, src listeners.Source, l listeners.Listener, opts *listeners.SubscribeOptions) *listeners.Subscription {
	t.Helper()
	s, err := src.Subscribe("test", l, opts)
	if err != nil {
		t.Fatalf("Subscribe() = %v, want no error", err)
	}
	return s
}

func put[K comparable, V any](t *testing.T, r *grid.Region[K, V], k K, v V) listeners.Position {
	t.Helper()
	pos, err := r.Put(deadline(t), k, v)
	if err != nil {
		t.Fatalf("Put(%v, %v) = %v, want no error", k, v, err)
	}
	return pos
}

// live waits until the listener has heard of the whole present state.
func live(t *testing.T, s *listeners.Subscription) {
	t.Helper()
	select {
	case <-s.Live():
	case <-s.Done():
		t.Fatalf("the subscription ended before it was live: %v", s.Err())
	case <-deadline(t).Done():
		t.Fatal("waited in vain for a subscription to be live")
	}
}

// wait returns when ok does; it is for state that nothing announces.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := deadline(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

var current = &listeners.SubscribeOptions{Current: true} //nolint:gochecknoglobals // read-only
