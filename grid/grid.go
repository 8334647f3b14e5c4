package grid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options set up a [Grid]. Nil and zero mean the defaults.
type Options struct {
	// Logger hears of mirrors that stop and of changes that do not fit what a
	// mirror holds. Default: nothing is logged.
	Logger *slog.Logger
	// Keys are the codecs of types that are keys, or parts of keys or of index
	// values, and that this package does not know or would order otherwise. Each
	// goes for its type wherever that stands in a key of the grid. Default: none.
	Keys []KeyCodec
}

// A Grid is a set of regions that share a name: the Source of their events.
// All methods may be called from any goroutine.
type Grid struct {
	name string
	log  *slog.Logger
	keys keyCodecs

	mu        sync.Mutex
	regions   []member // in order of creation
	lastEpoch uint64
	closed    bool
	writers   atomic.Pointer[[]*writerDef]
}

// A member is a region without its types.
type member interface {
	Name() string
	Close(ctx context.Context) error
}

// New returns an empty grid. It starts nothing.
func New(name string, opts *Options) *Grid {
	g := &Grid{name: name, log: slog.New(slog.DiscardHandler)}
	if opts == nil {
		opts = new(Options)
	}
	if opts.Logger != nil {
		g.log = opts.Logger
	}
	g.keys = newKeyCodecs(opts.Keys)
	return g
}

// Name returns the name given to [New].
func (g *Grid) Name() string { return g.name }

// Close closes all regions as [Region.Close] does, in the order in which they
// were made, so that a mirror still hears the last changes of its source. It
// returns all their errors. No region can be made afterwards; a second call is
// fine.
func (g *Grid) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	regions := slices.Clone(g.regions)
	g.mu.Unlock()
	var errs []error
	for _, r := range regions {
		errs = append(errs, r.Close(ctx))
	}
	return errors.Join(errs...)
}

// add takes a region in. If it fails, the caller throws the region away.
func (g *Grid) add(m member) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.vacantLocked(m.Name()); err != nil {
		return err
	}
	g.regions = append(g.regions, m)
	return nil
}

// vacant reports why no region of this name can be made.
func (g *Grid) vacant(name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.vacantLocked(name)
}

func (g *Grid) vacantLocked(name string) error {
	taken := slices.ContainsFunc(g.regions, func(o member) bool { return o.Name() == name })
	switch {
	case g.closed:
		return fmt.Errorf("grid %q: %w", g.name, ErrClosed)
	case name == "":
		return fmt.Errorf("grid %q: a region needs a name", g.name)
	case taken:
		return fmt.Errorf("grid %q: region %q: %w", g.name, name, ErrTaken)
	}
	return nil
}

// remove frees the name of a region that was closed.
func (g *Grid) remove(m member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.regions = slices.DeleteFunc(g.regions, func(o member) bool { return o == m })
}

// epoch returns the time in nanoseconds, or a little more: it is greater than
// every epoch before, also where the clock went back.
func (g *Grid) epoch() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lastEpoch = max(uint64(time.Now().UnixNano()), g.lastEpoch+1)
	return g.lastEpoch
}
