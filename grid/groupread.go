package grid

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rowcall/rowcall/listeners"
)

// A GroupSnapshot is the state of a group's regions between two transactions
// of their source. It never changes and needs no closing, as a [Snapshot].
type GroupSnapshot struct {
	group    *Group
	tables   []groupTable
	views    []any // of the tables
	position listeners.Position
}

// Snapshot returns the present state of all regions of the group, in a time
// that depends on their number alone. See [SnapshotOf].
func (g *Group) Snapshot() GroupSnapshot { return g.present() }

func (g *Group) present() GroupSnapshot {
	g.mu.Lock()
	s := GroupSnapshot{group: g, tables: slices.Clone(g.tables)}
	g.mu.Unlock()
	g.showing.RLock()
	defer g.showing.RUnlock()
	for _, t := range s.tables {
		s.views = append(s.views, t.present())
	}
	s.position = g.position
	return s
}

// Position returns the position of the last transaction of the source that is
// in the snapshot.
func (s GroupSnapshot) Position() listeners.Position { return s.position }

// SnapshotOf returns the state of one region within a snapshot of its group.
// For a region that is not in the group it reports false, with the present
// state.
func SnapshotOf[K comparable, V any](s GroupSnapshot, r *Region[K, V]) (Snapshot[K, V], bool) {
	for i, t := range s.tables {
		if m, ok := t.(*groupMember[K, V]); ok && m.f.r == r {
			return Snapshot[K, V]{r, s.views[i].(*view[K, V])}, true //nolint:errcheck // its member made it
		}
	}
	return r.Snapshot(), false
}

// Subscribe implements [listeners.Source]: the listener hears of each
// transaction of the source as one batch, with the events of all regions in
// the order of the source. They are the events that the regions' own listeners
// hear; their collections are the regions' names. With opts.Current it first
// hears the state of all regions at one point in time: Reset, the rows region
// by region, Live.
//
// The errors are [ErrClosed], and misuse: no listener, or Collections that name
// no region of the group.
func (g *Group) Subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	sub, err := g.subscribe(name, l, opts)
	if err != nil {
		return nil, fmt.Errorf("grid: subscribe %q to group %q: %w", name, g.name, err)
	}
	return sub, nil
}

func (g *Group) subscribe(name string, l listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	if l == nil {
		return nil, errors.New("the listener is nil")
	}
	if opts == nil {
		opts = new(listeners.SubscribeOptions)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, wanted := range opts.Collections {
		if !slices.ContainsFunc(g.tables, func(t groupTable) bool { return t.Name() == wanted }) {
			return nil, fmt.Errorf("it has no region %q", wanted)
		}
	}
	if g.closed {
		return nil, ErrClosed
	}
	var join listeners.Join
	if opts.Current {
		only := slices.Clone(opts.Collections)
		// No change is lost or told twice, for the reasons given at Region.join: a
		// transaction is shown, with its position, before it is appended.
		join = func(ctx context.Context, emit func(*listeners.Batch) error) (listeners.Position, error) {
			if err := g.WaitReady(ctx); err != nil {
				if errors.Is(err, ErrClosed) {
					err = listeners.ErrClosed
				}
				return listeners.Position{}, err
			}
			s := g.present()
			return s.position, g.tell(s, only, emit)
		}
	}
	return g.feed.Subscribe(name, l, opts, join)
}

// tell emits a snapshot of these regions, nil for all, as Reset, Snapshot and
// Live batches.
func (g *Group) tell(s GroupSnapshot, only []string, emit func(*listeners.Batch) error) error {
	var rows []int
	for i, t := range s.tables {
		if len(only) == 0 || slices.Contains(only, t.Name()) {
			rows = append(rows, i)
		}
	}
	last := len(rows) - 1
	for n, i := range rows {
		err := s.tables[i].tell(s.views[i], func(b *listeners.Batch) error {
			switch {
			case b.Kind == listeners.Reset && n > 0, b.Kind == listeners.Live && n < last:
				return nil
			case b.Kind == listeners.Snapshot:
				b.First, b.Last = b.First && n == 0, b.Last && n == last
			}
			b.Position = s.position
			return emit(b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
