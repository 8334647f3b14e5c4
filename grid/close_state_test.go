package grid_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/listeners"
)

// A slowReader rebuilds a state and stops before it takes the first row of each.
type slowReader struct {
	arrived chan struct{} // receives one value for each state
	goOn    chan struct{}

	mu    sync.Mutex
	state map[int]int
	live  int // states told to their end
	fails int // how often it fails before it takes anything
}

func newSlowReader() *slowReader {
	return &slowReader{arrived: make(chan struct{}, 16), goOn: make(chan struct{}), state: make(map[int]int)}
}

func (l *slowReader) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if b.Kind == listeners.Reset {
		l.arrived <- struct{}{}
		select {
		case <-l.goOn:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return errDrawn
	}
	switch b.Kind {
	case listeners.Reset:
		clear(l.state)
	case listeners.Live:
		l.live++
	case listeners.Snapshot, listeners.Changes:
	}
	for i := range b.Events {
		c, err := listeners.NewChange[int](&b.Events[i])
		if err != nil {
			return err
		}
		l.state[c.After] = c.After
	}
	return nil
}

// Close does not cut short a state that is being told.
func TestCloseTellsAStateToItsEnd(t *testing.T) {
	const rows = 5000
	retry := &listeners.RetryPolicy{Attempts: 10, Delay: time.Second}
	for name, tc := range map[string]struct {
		opts  listeners.SubscribeOptions
		query bool
		fails int
		again bool // the state is told a second time, since the backlog was too long
	}{
		"region":  {opts: listeners.SubscribeOptions{Current: true}},
		"query":   {opts: listeners.SubscribeOptions{Current: true}, query: true},
		"workers": {opts: listeners.SubscribeOptions{Current: true, Workers: 3}},
		"retries": {opts: listeners.SubscribeOptions{Current: true, Retry: retry}, fails: 3},
		"workers that retry": {
			opts: listeners.SubscribeOptions{Current: true, Workers: 3, Retry: retry}, fails: 3,
		},
		"reset": {opts: listeners.SubscribeOptions{Current: true, Overflow: listeners.OverflowReset, BacklogBytes: 1}, again: true},
		"conflating": {
			opts:  listeners.SubscribeOptions{Current: true, Overflow: listeners.OverflowConflate, BacklogBytes: 1},
			again: true,
		},
		"from a position that is gone": {
			opts: listeners.SubscribeOptions{Current: true, From: listeners.Position{Epoch: 1, Commit: 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := open[int, int](t, grid.New("g", nil), "r", nil)
				want := make(map[int]int)
				for i := range rows {
					want[i] = i
				}
				if _, err := r.PutAll(t.Context(), maps.All(want)); err != nil {
					t.Fatal(err)
				}
				l := newSlowReader()
				l.fails = tc.fails
				var source listeners.Source = r
				if tc.query {
					source = newWhere(t, r, func(_, v int) bool { return v%2 == 0 }, nil)
					maps.DeleteFunc(want, func(_, v int) bool { return v%2 != 0 })
				}
				opts := tc.opts
				sub := subscribe(t, source, l, &opts)
				<-l.arrived
				if !sub.Lag().Joining {
					t.Error("Lag().Joining = false while the state is told")
				}
				if tc.again {
					for i := range 2 {
						put(t, r, rows+i, rows+i)
						want[rows+i] = rows + i
					}
				}
				closed := make(chan error, 1)
				go func() { closed <- r.Close(deadline(t)) }()
				synctest.Wait() // Close waits, or has given the listener up
				close(l.goOn)
				if err := <-closed; err != nil {
					t.Errorf("Close() = %v, want nil", err)
				}
				l.mu.Lock()
				defer l.mu.Unlock()
				if !maps.Equal(l.state, want) || l.live == 0 || sub.Err() != nil {
					t.Errorf("the listener has %d entries after %d states, Err() = %v; want %d entries", len(l.state), l.live, sub.Err(), len(want))
				}
			})
		})
	}
}

// If Close may not wait for the end of a state, the subscription says why it
// ended.
func TestCloseThatGivesUpOnAStateSaysSo(t *testing.T) {
	r := open[int, int](t, grid.New("g", nil), "r", nil)
	put(t, r, 1, 1)
	l := newSlowReader()
	sub := subscribe(t, r, l, current)
	<-l.arrived
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close() = %v, want nil or that its time was up", err)
	}
	<-sub.Done()
	if err := sub.Reason(); !errors.Is(err, listeners.ErrClosed) || !strings.Contains(err.Error(), `region "r" of grid "g" was closed`) {
		t.Errorf("Reason() = %v, want that the region was closed", err)
	}
	if l.live != 0 {
		t.Errorf("the listener has heard %d states to their end, want none", l.live)
	}
}
