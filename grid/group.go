package grid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// GroupOptions set up a [Group]. Nil and zero mean the defaults.
type GroupOptions struct {
	// FeedBytes bounds the batches of the group that its own subscriptions
	// have not handled, as in [RegionOptions]. Default
	// [listeners.DefaultFeedBytes].
	FeedBytes int64
}

// A Group is a set of mirrors that follow several collections of one source
// together: what one transaction of the source did to any of them becomes
// visible in all their regions at once, to [Grid.Do] and to [Group.Snapshot].
// Each region that it changed has it as one batch, and so has the group, which
// is a [listeners.Source] of its own.
//
// There is one exception. While a source that has lost its place for some of
// the collections alone tells these anew, their regions stay as they were, and
// the others go on: a transaction of that time which concerns both shows in
// part, until the collections are complete. Then the rest of all these
// transactions appears at once, as what differs.
//
// Make it with [NewGroup], add regions with [AddTable], then call
// [Group.Start]. All methods may be called from any goroutine.
type Group struct {
	grid *Grid
	name string
	log  *slog.Logger
	src  listeners.Source
	feed *listeners.Feed

	mu      sync.Mutex
	tables  []groupTable // in order of creation; fixed once started
	left    int          // how many of them were closed
	started bool
	closed  bool
	sub     *listeners.Subscription // nil before Start

	// showing is held for writing while a transaction appears in the regions,
	// which keeps nobody from reading a single one.
	showing  sync.RWMutex
	position listeners.Position // under showing

	ready  chan struct{} // closed when the regions hold a complete state
	ended  chan struct{} // closed when nothing changes the regions any more
	ending sync.Once
}

var (
	_ listeners.Source = (*Group)(nil)
	_ member           = (*Group)(nil)
)

// NewGroup makes a group that will follow a source. It starts nothing. The
// group's name is taken as that of a region is; the errors are [ErrClosed] and
// [ErrTaken].
func NewGroup(g *Grid, name string, src listeners.Source, opts *GroupOptions) (*Group, error) {
	if src == nil {
		return nil, fmt.Errorf("grid %q: group %q: the source is nil", g.name, name)
	}
	if opts == nil {
		opts = new(GroupOptions)
	}
	group := &Group{
		grid: g, name: name, src: src, log: g.log.With("grid", g.name, "group", name),
		feed:  listeners.NewFeed(&listeners.FeedOptions{MaxBytes: opts.FeedBytes}),
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := g.add(group); err != nil {
		return nil, err
	}
	return group, nil
}

// AddTable adds a region to a group that was not started yet. The region is
// like one of [Mirror], and may be subscribed to at once; it follows the
// collection as [listeners.Schema.Collection] writes it, such as
// "public.seats". The options' Collection means nothing here.
//
// The region's Done, Err, WaitReady and Lag are those of the group. Closing it
// takes it out of the group, which goes on with the others.
func AddTable[K comparable, V any](group *Group, region, collection string, opts *MirrorOptions[V]) (*Region[K, V], error) {
	if opts == nil {
		opts = new(MirrorOptions[V])
	}
	fail := func(err error) (*Region[K, V], error) {
		return nil, fmt.Errorf("grid: add %q to group %q: %w", region, group.name, err)
	}
	if collection == "" {
		return fail(errors.New("the collection is empty: name the table to follow, such as \"public.seats\""))
	}
	r, err := newRegion[K](group.grid, region, &RegionOptions[V]{FeedBytes: opts.FeedBytes, HistoryBytes: opts.HistoryBytes, ValueBytes: opts.ValueBytes})
	if err != nil {
		return nil, err
	}
	r.show(0, listeners.Position{})
	t := &groupMember[K, V]{f: newFollower(r), group: group, from: collection, gone: make(chan struct{})}
	r.source = t

	group.mu.Lock()
	defer group.mu.Unlock()
	switch {
	case group.closed:
		return fail(ErrClosed)
	case group.started:
		return fail(errors.New("the group was started: add its regions before Start"))
	case slices.ContainsFunc(group.tables, func(o groupTable) bool { return o.collection() == collection }):
		return fail(fmt.Errorf("it follows %s already", collection))
	}
	if err := group.grid.add(r); err != nil {
		return nil, err
	}
	group.tables = append(group.tables, t)
	return r, nil
}

// Start subscribes to the source, once for all regions. It may be called once.
// It does not wait for the source's state, see [Group.WaitReady]. As with
// [Mirror], the source keeps nothing for the group between two runs.
func (g *Group) Start() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("grid: start group %q: %w", g.name, err) }
	switch {
	case g.closed:
		return fail(ErrClosed)
	case g.started:
		return fail(errors.New("it was started before"))
	case len(g.tables) == 0:
		return fail(errors.New("it has no region: call AddTable first"))
	case g.left > 0:
		return fail(errors.New("one of its regions was closed"))
	}
	want := &listeners.SubscribeOptions{Current: true, Ephemeral: true}
	for _, t := range g.tables {
		want.Collections = append(want.Collections, t.collection())
	}
	sub, err := g.src.Subscribe("mirror "+g.grid.name+"/"+g.name, &groupFollower{group: g, tables: slices.Clone(g.tables)}, want)
	if err != nil {
		return fail(err)
	}
	g.started, g.sub = true, sub
	go func() { // ends with the subscription; whoever closes the group waits for ended
		<-sub.Done()
		g.end()
	}()
	return nil
}

// end tells those who wait that nothing changes the regions any more.
func (g *Group) end() {
	g.ending.Do(func() {
		g.mu.Lock()
		tables := slices.Clone(g.tables)
		g.mu.Unlock()
		for _, t := range tables {
			t.end()
		}
		close(g.ended)
	})
}

// Name returns the name given to [NewGroup].
func (g *Group) Name() string { return g.name }

// Position returns the position of the last transaction of the source that the
// regions show. That of a region may be older: it is that of the last one
// which changed this region.
func (g *Group) Position() listeners.Position {
	g.showing.RLock()
	defer g.showing.RUnlock()
	return g.position
}

// Ready returns a channel that is closed when all regions hold the source's
// state, all of the same moment.
func (g *Group) Ready() <-chan struct{} { return g.ready }

// WaitReady returns nil when the group is ready, why it ended before that, or
// the cause of ctx's end. A group that is not started yet is waited for.
func (g *Group) WaitReady(ctx context.Context) error {
	if isClosed(g.ready) {
		return nil
	}
	select {
	case <-g.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("grid: wait for group %q: %w", g.name, context.Cause(ctx))
	case <-g.ended:
	}
	if isClosed(g.ready) {
		return nil
	}
	err := g.Err()
	if err == nil {
		err = errors.New("its source ended before the snapshot was complete")
		g.mu.Lock()
		if g.closed {
			err = ErrClosed
		}
		g.mu.Unlock()
	}
	return fmt.Errorf("grid: group %q is not ready: %w", g.name, err)
}

// Done returns a channel that is closed when nothing changes the regions any
// more.
func (g *Group) Done() <-chan struct{} { return g.ended }

// Err returns why the group stopped to follow its source, as [Region.Err] does
// for a mirror. What one region cannot take stops all of them, since they
// would not belong together any more.
func (g *Group) Err() error {
	if sub := g.subscription(); sub != nil {
		return followed{sub}.Err()
	}
	return nil
}

// Lag returns how far the regions are behind their source: what it has sent
// and they do not show. It is zero before Start.
func (g *Group) Lag() listeners.Lag {
	if sub := g.subscription(); sub != nil {
		return sub.Lag()
	}
	return listeners.Lag{}
}

func (g *Group) subscription() *listeners.Subscription {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sub
}

// Close ends the group and its regions, as [Region.Close] does: first what
// comes from the source, then the subscriptions, as soon as they have handled
// it. Its name and those of its regions are free afterwards.
func (g *Group) Close(ctx context.Context) error {
	err := g.unfollow(ctx)
	g.mu.Lock()
	tables := slices.Clone(g.tables)
	g.mu.Unlock()
	for _, t := range tables {
		if closeErr := t.Close(ctx); err == nil {
			err = closeErr
		}
	}
	if feedErr := endSubscriptions(ctx, g.feed, fmt.Sprintf("group %q", g.name), g.grid.name); err == nil {
		err = feedErr
	}
	g.grid.remove(g)
	return err
}

// unfollow ends the subscription to the source.
func (g *Group) unfollow(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	sub := g.sub
	g.mu.Unlock()
	if sub == nil {
		g.end()
		return nil
	}
	if err := sub.CloseWait(ctx); err != nil {
		return fmt.Errorf("grid: close group %q: its mirroring is still busy: %w", g.name, err)
	}
	g.end()
	return nil
}

// leave is called once for each region that was closed.
func (g *Group) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left++
}

// unfollowAbandoned ends the subscription to the source if no region is left.
func (g *Group) unfollowAbandoned(ctx context.Context) error {
	g.mu.Lock()
	abandoned := g.left == len(g.tables)
	g.mu.Unlock()
	if !abandoned {
		return nil
	}
	return g.unfollow(ctx)
}
