package grid

import (
	"context"
	"fmt"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// An upstream is how a mirror follows its source: by a subscription of its own,
// or as a part of a group.
type upstream interface {
	CloseWait(ctx context.Context) error
	Done() <-chan struct{}
	Err() error
	Lag() listeners.Lag
}

var _ upstream = (*listeners.Subscription)(nil)

// A groupTable is a region of a [Group] without its types. The methods named
// Locked want the region locked; the others but Close belong to the group's
// subscription.
type groupTable interface {
	member
	collection() string
	order() uint64 // as txPart.order
	begin()
	row(e *listeners.Event) error
	change(e *listeners.Event) error
	settle() error
	forget()
	live(at listeners.Position) listeners.Position
	pending() bool
	reserve(ctx context.Context) error
	lock()
	unlock()
	prepareLocked() (closed bool, err error)
	showLocked(at listeners.Position)
	tellLocked(tx listeners.Tx, at listeners.Position, whole bool) (events []listeners.Event, size int)
	abortLocked()
	present() any // the region's view
	tell(view any, emit func(*listeners.Batch) error) error
	becomeReady()
	end()
	Done() <-chan struct{}
}

// A groupMember is a region of a group with what is going to happen to it.
type groupMember[K comparable, V any] struct {
	f     *follower[K, V]
	group *Group
	from  string // the collection

	leaving, ending sync.Once
	gone            chan struct{} // closed when nothing changes the region any more

	// scratch is the state that a snapshot builds, nil when there is none under
	// way. It is not based on what the region shows.
	scratch *draft[K, V]
	held    []*listeners.Event // of a transaction in parts, to be applied to scratch
	open    *draft[K, V]       // what is to be committed
	anew    bool               // open is a state that was told again, though nothing may differ
}

var (
	_ groupTable = (*groupMember[string, int])(nil)
	_ upstream   = (*groupMember[string, int])(nil)
)

func (m *groupMember[K, V]) Name() string                      { return m.f.r.name }
func (m *groupMember[K, V]) collection() string                { return m.from }
func (m *groupMember[K, V]) order() uint64                     { return m.f.r.order }
func (m *groupMember[K, V]) lock()                             { m.f.r.mu.Lock() }
func (m *groupMember[K, V]) unlock()                           { m.f.r.mu.Unlock() }
func (m *groupMember[K, V]) present() any                      { return m.f.r.view.Load() }
func (m *groupMember[K, V]) reserve(ctx context.Context) error { return m.f.r.feed.Reserve(ctx) }

// begin throws away what was under way: a new snapshot comes.
func (m *groupMember[K, V]) begin() {
	m.scratch, m.held, m.open, m.anew = newDraft(m.f.r), nil, nil, false
	m.scratch.cleared = true
}

// row takes a row of a snapshot, or one that is read again while changes come.
func (m *groupMember[K, V]) row(e *listeners.Event) error {
	switch {
	case m.scratch == nil && isClosed(m.f.r.ready):
		return m.change(e)
	case m.scratch == nil:
		return fmt.Errorf("the source sent a row of %s without a reset at %s", m.from, e.Position)
	case e.Op == listeners.Message:
		return nil
	}
	row, err := m.f.row(e)
	if err != nil {
		return fmt.Errorf("%s of %s at %s: %w", e.Op, m.from, e.Position, err)
	}
	m.scratch.set(row)
	return nil
}

// change takes an event of the transaction that is under way.
func (m *groupMember[K, V]) change(e *listeners.Event) error {
	if m.scratch != nil {
		m.held = append(m.held, e)
		return nil
	}
	if !isClosed(m.f.r.ready) {
		return fmt.Errorf("the source sent changes of %s at %s before its snapshot was complete", m.from, e.Position)
	}
	if m.open == nil {
		m.open = newDraft(m.f.r)
	}
	return m.apply(m.open, e)
}

func (m *groupMember[K, V]) apply(d *draft[K, V], e *listeners.Event) error {
	if err := m.f.change(d, e); err != nil {
		return fmt.Errorf("%s of %s %s at %s: %w", e.Op, m.from, e.Key(), e.Position, err)
	}
	return nil
}

// settle applies a transaction that is whole to the snapshot under way.
func (m *groupMember[K, V]) settle() error {
	for _, e := range m.held {
		if err := m.apply(m.scratch, e); err != nil {
			return err
		}
	}
	m.held = nil
	if m.scratch != nil {
		m.scratch.events, m.scratch.size = nil, 0 // listeners hear of the outcome
	}
	return nil
}

// forget throws away the parts of a transaction.
func (m *groupMember[K, V]) forget() { m.held, m.open, m.anew = nil, nil, false }

// live makes the snapshot under way what is to be committed. Its events are
// numbered after at; it returns the position of the last one.
func (m *groupMember[K, V]) live(at listeners.Position) listeners.Position {
	if m.scratch == nil {
		return at
	}
	m.open, m.scratch = m.scratch, nil
	if !isClosed(m.f.r.ready) {
		return at
	}
	var rows []*entry[K, V]
	for _, c := range m.open.sorted() {
		if c.entry != nil {
			rows = append(rows, c.entry)
		}
	}
	m.open = newDraft(m.f.r)
	m.open.become(rows, at)
	m.anew = true
	return m.open.position(at)
}

// pending reports whether there is something to commit.
func (m *groupMember[K, V]) pending() bool {
	return m.open != nil && (m.anew || len(m.open.overlay) > 0 || len(m.open.events) > 0 || m.open.cleared)
}

func (m *groupMember[K, V]) prepareLocked() (closed bool, err error) {
	if m.f.r.closed {
		m.open = nil
		return true, nil
	}
	return false, m.open.prepareLocked()
}

func (m *groupMember[K, V]) showLocked(at listeners.Position) { m.open.commitLocked(at) }

func (m *groupMember[K, V]) abortLocked() {
	if m.open != nil {
		m.open.abortLocked()
	}
}

// tellLocked hands what was committed to the region's feed, and returns its
// events. Whole says that the listeners have heard nothing before.
func (m *groupMember[K, V]) tellLocked(tx listeners.Tx, at listeners.Position, whole bool) (events []listeners.Event, size int) {
	d := m.open
	if m.anew || whole {
		m.f.r.told.Store(&at) // before the feed moves
	}
	m.open, m.anew = nil, false
	if whole {
		d.tellAll()
		return nil, 0
	}
	d.tell(tx, at)
	return d.events, d.size
}

func (m *groupMember[K, V]) tell(v any, emit func(*listeners.Batch) error) error {
	return m.f.r.tell(v.(*view[K, V]), emit) //nolint:errcheck // present returned it
}

func (m *groupMember[K, V]) becomeReady() { close(m.f.r.ready) }

// end tells those who wait that nothing changes the region any more.
func (m *groupMember[K, V]) end() { m.ending.Do(func() { close(m.gone) }) }

// Close implements member.
func (m *groupMember[K, V]) Close(ctx context.Context) error { return m.f.r.Close(ctx) }

// CloseWait implements upstream. The region was closed, so that the group
// commits nothing to it any more.
func (m *groupMember[K, V]) CloseWait(ctx context.Context) error {
	m.end()
	m.leaving.Do(m.group.leave)
	return m.group.unfollowAbandoned(ctx)
}

// Done implements upstream.
func (m *groupMember[K, V]) Done() <-chan struct{} { return m.gone }

// Err implements upstream.
func (m *groupMember[K, V]) Err() error {
	if isClosed(m.f.r.done) {
		return nil
	}
	return m.group.Err()
}

// Lag implements upstream.
func (m *groupMember[K, V]) Lag() listeners.Lag { return m.group.Lag() }
