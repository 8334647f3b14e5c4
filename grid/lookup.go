package grid

import (
	"errors"
	"fmt"
	"slices"

	"github.com/rowcall/rowcall/listeners"
)

// ErrNoRegion is why [Lookup] found nothing: the grid has no region of that
// name, or not any more.
var ErrNoRegion = errors.New("no such region: make it with Open or Mirror first")

// Lookup returns the region of a grid that was made with this name. A region
// that is being closed is no longer found, though its name is taken until that
// is over. The errors are [ErrNoRegion], and that the region has other types.
func Lookup[K comparable, V any](g *Grid, name string) (*Region[K, V], error) {
	m := g.find(name)
	if r, ok := m.(*Region[K, V]); ok && !r.closing() {
		return r, nil
	}
	if m == nil || isEnding(m) {
		return nil, fmt.Errorf("grid %q: look up %q: %w", g.name, name, ErrNoRegion)
	}
	return nil, fmt.Errorf("grid %q: look up %q: it is a %T, not a %T", g.name, name, m, (*Region[K, V])(nil))
}

// Source returns the region or group of this name to subscribe to, for who does
// not know its types; nil if there is none.
func (g *Grid) Source(name string) listeners.Source {
	m := g.find(name)
	if m == nil || isEnding(m) {
		return nil
	}
	src, _ := m.(listeners.Source) // which all are
	return src
}

// Names returns the names of the grid's regions and groups, in the order in
// which they were made. A name that is being closed is among them.
func (g *Grid) Names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := make([]string, len(g.regions))
	for i, m := range g.regions {
		names[i] = m.Name()
	}
	return names
}

func (g *Grid) find(name string) member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.IndexFunc(g.regions, func(m member) bool { return m.Name() == name }); i >= 0 {
		return g.regions[i]
	}
	return nil
}

func isEnding(m member) bool {
	closing, ok := m.(interface{ closing() bool })
	return ok && closing.closing()
}

func (r *Region[K, V]) closing() bool { return isClosed(r.done) }

func (g *Group) closing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}
