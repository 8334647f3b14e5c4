package grid

import (
	"context"
	"errors"
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// MirrorOptions set up a region of [Mirror]. Nil and zero mean the defaults.
type MirrorOptions[V any] struct {
	// FeedBytes, HistoryBytes and ValueBytes are as in [RegionOptions]. A mirror
	// whose feed is full makes its source wait in turn.
	FeedBytes    int64
	HistoryBytes int64
	ValueBytes   func(V) int
	// Collection is the one to follow of a source that has several, as
	// [listeners.Schema.Collection] returns it. Default: the only one.
	Collection string
}

// Mirror makes a read-only region that follows one collection of a source: a
// Postgres table, another region, a reader of a stream. It does not wait for
// the source's state; see [Region.Ready].
//
// K is taken from the key columns of the source: from its only one or, if K is
// a struct, from those that the fields name, which must be all. V is decoded as
// [listeners.Record.Scan] describes; a V that is not a struct takes the column
// "value", or the only one outside the key. What does not fit ends the mirror
// with an error; see [Region.Err].
//
// Listeners of a mirror that is not ready yet hear the source's state as Reset,
// Read events and Live. When a source sends its state again, because it lost
// its place, they hear only what differs, as one batch of creates, updates and
// deletes with [listeners.CauseSnapshot]. Rows that it reads again while it
// streams are creates and updates where they differ from what the mirror holds.
// Messages of a source are no rows, and are left out. A truncate is one Truncate event and
// empties the mirror.
//
// What was written at the source has [listeners.CauseMirror] here; an event that
// the source gave another cause, such as [listeners.CauseExpire], keeps it. The
// transaction's tag is kept, too, see [WithTag].
//
// The mirror is built anew at each start. So it subscribes as Ephemeral: no
// source keeps anything for it between two runs.
func Mirror[K comparable, V any](g *Grid, name string, src listeners.Source, opts *MirrorOptions[V]) (*Region[K, V], error) {
	if opts == nil {
		opts = new(MirrorOptions[V])
	}
	r, err := newRegion[K](g, name, &RegionOptions[V]{FeedBytes: opts.FeedBytes, HistoryBytes: opts.HistoryBytes, ValueBytes: opts.ValueBytes})
	if err != nil {
		return nil, err
	}
	r.show(0, listeners.Position{})
	want := &listeners.SubscribeOptions{Current: true, Ephemeral: true}
	if opts.Collection != "" {
		want.Collections = []string{opts.Collection}
	}
	sub, err := src.Subscribe("mirror "+g.name+"/"+name, newFollower(r), want)
	if err != nil {
		return nil, fmt.Errorf("grid: mirror %q: %w", name, err)
	}
	r.source = followed{sub}
	if err := g.add(r); err != nil {
		sub.Close()
		<-sub.Done() // soon: the follower waits for nothing but its context
		return nil, err
	}
	return r, nil
}

// Ready returns a channel that is closed when the region holds a complete
// state: at once for an open region, after the source's snapshot for a mirror.
func (r *Region[K, V]) Ready() <-chan struct{} { return r.ready }

// WaitReady returns nil when the region is ready, why a mirror stopped before
// that, or the cause of ctx's end.
func (r *Region[K, V]) WaitReady(ctx context.Context) error {
	if isClosed(r.ready) {
		return nil
	}
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("grid: wait for mirror %q: %w", r.name, context.Cause(ctx))
	case <-r.source.Done(): // only a mirror is ever not ready
	}
	if isClosed(r.ready) {
		return nil
	}
	err := r.source.Err()
	switch {
	case err == nil && isClosed(r.done):
		err = ErrClosed
	case err == nil:
		err = errors.New("its source ended before the snapshot was complete")
	}
	return fmt.Errorf("grid: mirror %q is not ready: %w", r.name, err)
}

// Done returns a channel that is closed when nothing changes the region any
// more: when it is closed, and for a mirror also when its source has ended or
// [Region.Err] has happened.
func (r *Region[K, V]) Done() <-chan struct{} {
	if r.source != nil {
		return r.source.Done()
	}
	return r.done
}

// Err returns why a mirror stopped to follow its source, be it what the mirror
// could not take or why the source itself has failed: nil while it follows,
// after Close, and when the source was closed. A mirror that stopped keeps what
// it holds, and its subscriptions go on without hearing more. Nothing is
// retried; close the region and make it again. For an open region Err is
// always nil.
func (r *Region[K, V]) Err() error {
	if r.source == nil {
		return nil
	}
	return r.source.Err()
}
