package grid_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestLookup(t *testing.T) {
	g := newGrid(t)
	seats := open[string, seat](t, g, "seats", nil)
	if _, err := grid.NewGroup(g, "trade", newShop(), nil); err != nil {
		t.Fatal(err)
	}
	if r, err := grid.Lookup[string, seat](g, "seats"); err != nil || r != seats {
		t.Errorf("Lookup(seats) = %p, %v; want %p", r, err, seats)
	}
	if _, err := grid.Lookup[string, seat](g, "trains"); !errors.Is(err, grid.ErrNoRegion) {
		t.Errorf("Lookup(trains) = %v, want ErrNoRegion", err)
	}
	for name, of := range map[string]func() error{
		"seats": func() error { _, err := grid.Lookup[int, seat](g, "seats"); return err },
		"trade": func() error { _, err := grid.Lookup[int, seat](g, "trade"); return err },
	} {
		if err := of(); err == nil || errors.Is(err, grid.ErrNoRegion) || !strings.Contains(err.Error(), "not a *grid.Region[int,") {
			t.Errorf("Lookup(%s) with other types = %v, want an error that names both types", name, err)
		}
	}
	if got, want := g.Names(), []string{"seats", "trade"}; !slices.Equal(got, want) {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	if got := g.Source("seats"); got != listeners.Source(seats) {
		t.Errorf("Source(seats) = %v, want the region", got)
	}
	if got := g.Source("trains"); got != nil {
		t.Errorf("Source(trains) = %v, want nil", got)
	}
	if err := seats.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := grid.Lookup[string, seat](g, "seats"); !errors.Is(err, grid.ErrNoRegion) {
		t.Errorf("Lookup() of a closed region = %v, want ErrNoRegion", err)
	}
	again := open[int, string](t, g, "seats", nil)
	if r, err := grid.Lookup[int, string](g, "seats"); err != nil || r != again {
		t.Errorf("Lookup() of a name that was free again = %p, %v; want %p", r, err, again)
	}
}

func TestARegionThatIsBeingClosedIsNotFound(t *testing.T) {
	g := newGrid(t)
	seats := open[string, seat](t, g, "seats", nil)
	release, busy := make(chan struct{}), make(chan struct{})
	subscribe(t, seats, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
		close(busy)
		<-release
		return nil
	}), nil)
	put(t, seats, "1A", seat{})
	<-busy
	closed := make(chan error, 1)
	go func() { closed <- seats.Close(deadline(t)) }()
	wait(t, "the close to begin", func() bool {
		_, err := grid.Lookup[string, seat](g, "seats")
		return errors.Is(err, grid.ErrNoRegion)
	})
	if g.Source("seats") != nil {
		t.Error("Source() finds a region that is being closed")
	}
	if _, err := grid.Open[string, seat](g, "seats", nil); !errors.Is(err, grid.ErrTaken) {
		t.Errorf("Open() during the close = %v, want ErrTaken", err)
	}
	close(release)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	open[string, seat](t, g, "seats", nil)
}

func TestWhoIsSubscribedHearsWhyARegionEnded(t *testing.T) {
	g := newGrid(t)
	seats := open[string, seat](t, g, "seats", nil)
	mirror, err := grid.Mirror[string, seat](g, "copy", seats, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := subscribe(t, mirror, new(listenertest.Recorder), nil)
	sub := subscribe(t, seats, new(listenertest.Recorder), nil)
	early := subscribe(t, seats, new(listenertest.Recorder), nil)
	if err := early.CloseWait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if sub.Reason() != nil {
		t.Errorf("Reason() = %v while it runs, want nil", sub.Reason())
	}
	if err := seats.Close(deadline(t)); err != nil {
		t.Fatal(err)
	}
	<-mirror.Done()
	if err := sub.Reason(); sub.Err() != nil || !errors.Is(err, listeners.ErrClosed) || !strings.Contains(err.Error(), `region "seats" of grid "tickets" was closed`) {
		t.Errorf("Reason() = %v, Err() = %v; want that the region was closed, and no error", err, sub.Err())
	}
	if err := early.Reason(); err != listeners.ErrClosed { //nolint:errorlint // without more
		t.Errorf("Reason() of a subscription that was closed before = %v, want ErrClosed alone", err)
	}
	if own.Reason() != nil {
		t.Errorf("Reason() of a mirror's subscription = %v, want nil: the mirror is still there", own.Reason())
	}
}

// Regions come and go under load, by many hands.
func TestRegionsComeAndGoUnderLoad(t *testing.T) {
	g := grid.New("g", nil)
	names := []string{"a", "b", "c"}
	var mu sync.Mutex
	type heard struct {
		sub   *listeners.Subscription
		r     *grid.Region[int, int]
		state *ledger
	}
	var all []heard
	ctx := deadline(t)
	var closed, joined atomic.Int64
	var hands sync.WaitGroup
	for seed := range uint64(8) {
		hands.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 7))
			for ctx.Err() == nil && (closed.Load() < 100 || joined.Load() < 100) {
				name := names[rnd.IntN(len(names))]
				r, err := grid.Lookup[int, int](g, name)
				if err != nil && !errors.Is(err, grid.ErrNoRegion) {
					t.Errorf("Lookup(%s) = %v", name, err)
					return
				}
				switch what := rnd.IntN(100); {
				case r == nil:
					if _, err := grid.Open[int, int](g, name, nil); err != nil && !errors.Is(err, grid.ErrTaken) {
						t.Errorf("Open(%s) = %v, want nil or ErrTaken", name, err)
					}
				case what < 3:
					if err := r.Close(deadline(t)); err != nil {
						t.Errorf("Close(%s) = %v, want nil", name, err)
					}
					closed.Add(1)
				case what < 6:
					l := new(ledger)
					sub, err := r.Subscribe(fmt.Sprint("s", seed), l, current)
					if err != nil && !errors.Is(err, grid.ErrClosed) {
						t.Errorf("Subscribe(%s) = %v, want nil or ErrClosed", name, err)
					}
					if err == nil {
						mu.Lock()
						all = append(all, heard{sub, r, l})
						mu.Unlock()
						joined.Add(1)
					}
				case what < 20:
					other, _ := grid.Lookup[int, int](g, names[rnd.IntN(len(names))])
					err := g.Do(ctx, func(tx *grid.Tx) error {
						if other != nil {
							if err := grid.In(tx, other).Put(rnd.IntN(9), rnd.Int()); err != nil {
								return err
							}
						}
						return grid.In(tx, r).Put(rnd.IntN(9), rnd.Int())
					})
					if err != nil && ctx.Err() == nil && !errors.Is(err, grid.ErrClosed) {
						t.Errorf("Do(%s) = %v, want nil or ErrClosed", name, err)
					}
				case what < 40:
					if _, _, err := r.Delete(ctx, rnd.IntN(9)); err != nil && ctx.Err() == nil && !errors.Is(err, grid.ErrClosed) {
						t.Errorf("Delete(%s) = %v, want nil or ErrClosed", name, err)
					}
				default:
					if _, err := r.Put(ctx, rnd.IntN(9), rnd.Int()); err != nil && ctx.Err() == nil && !errors.Is(err, grid.ErrClosed) {
						t.Errorf("Put(%s) = %v, want nil or ErrClosed", name, err)
					}
				}
			}
		})
	}
	hands.Wait()
	if err := g.Close(deadline(t)); err != nil {
		t.Fatalf("Close() = %v, want nil", err)
	}
	if n := g.Names(); len(n) != 0 {
		t.Errorf("Names() = %q after Close, want none", n)
	}
	if _, err := grid.Open[int, int](g, "a", nil); !errors.Is(err, grid.ErrClosed) {
		t.Errorf("Open() in a closed grid = %v, want ErrClosed", err)
	}
	epochs := map[uint64]*grid.Region[int, int]{}
	complete := 0
	for _, h := range all {
		select {
		case <-h.sub.Done():
		default:
			t.Fatalf("a subscription of %s runs after Close", h.r.Name())
		}
		if err := h.sub.Reason(); !errors.Is(err, listeners.ErrClosed) || h.sub.Err() != nil || !strings.Contains(err.Error(), "was closed") {
			t.Errorf("Reason() = %v, Err() = %v; want that the region was closed", err, h.sub.Err())
		}
		if other, twice := epochs[h.r.Position().Epoch]; twice && other != h.r {
			t.Errorf("two regions have the epoch %d", h.r.Position().Epoch)
		}
		epochs[h.r.Position().Epoch] = h.r
		if h.state.fault != "" {
			t.Errorf("%s: %s", h.r.Name(), h.state.fault)
		}
		if h.state.state == nil {
			continue // closed before it was told anything
		}
		complete++
		want := map[string]string{}
		for k, v := range h.r.All() {
			want[fmt.Sprintf("%s/%d", h.r.Name(), k)] = fmt.Sprintf(`{"key":%d,"value":%d}`, k, v)
		}
		if isLive(h.sub) && !maps.Equal(want, h.state.state) {
			t.Errorf("%s held %v in the end, a listener has heard %v", h.r.Name(), want, h.state.state)
		}
	}
	if len(epochs) < 5 || complete < 5 {
		t.Errorf("%d regions and %d listeners in all: the test tried nothing", len(epochs), complete)
	}
}

func isLive(s *listeners.Subscription) bool {
	select {
	case <-s.Live():
		return true
	default:
		return false
	}
}
