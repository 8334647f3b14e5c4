package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/rowcall/rowcall/listeners"
)

// A gapError says that a journal no longer holds what a destination needs.
type gapError struct {
	stream string
	name   string
	after  listeners.Position // what the destination has; zero for nothing
	err    error              // what the reader said, or nil
}

// Error implements error.
func (e *gapError) Error() string {
	what := "has lost its beginning, and " + e.name + " has nothing of it"
	if !e.after.IsZero() {
		what = fmt.Sprintf("has lost what follows %s, up to which %s has everything", e.after, e.name)
	}
	return fmt.Sprintf("the journal (stream %s) %s: it keeps too little (max_age, max_bytes, max_msgs); "+
		"to go on with what it holds, set on-gap: skip for this place, and then have the rows published again with \"rowcall backfill\"", e.stream, what)
}

// Unwrap returns the cause.
func (e *gapError) Unwrap() error { return e.err }

// A gapGuard stands before a listener that reads a firehose. When history is gone,
// the reader tells the present state instead. Its rows have the positions of
// their last changes, which are not in order: a sink that stores each position
// once would leave rows out. So that is an error here, and no listener gets the
// reset of it, after which it would wait for rows that never come: a reset is
// kept until what follows says which one it is.
type gapGuard struct {
	listener listeners.Listener
	stream   string
	name     string
	fresh    bool // nothing was heard yet, and nothing is stored
	reset    listeners.Position
	after    listeners.Position // of the last batch
	told     bool               // a reset came, and no row yet
	kept     *listeners.Batch   // a reset that was not handed over yet
	events   atomic.Int64       // that were handed over
	began    atomic.Pointer[listeners.Position]
}

// OnBatch implements [listeners.Listener].
func (g *gapGuard) OnBatch(ctx context.Context, b *listeners.Batch) error {
	keep := b.Kind == listeners.Reset && !g.fresh // the first is the one that a snapshot begins with, before its first row
	switch {
	case keep:
		g.reset, g.told = b.Position, true
	case g.told && b.Kind == listeners.Snapshot && len(b.Events) > 0:
		if b.Events[0].Position.Compare(g.reset) <= 0 {
			return &gapError{stream: g.stream, name: g.name, after: g.after}
		}
		g.told = false
	}
	if err := g.release(ctx); err != nil {
		return err
	}
	if b.Kind == listeners.Reset {
		g.began.Store(&b.Position)
	}
	g.fresh = g.fresh && b.Kind == listeners.Live // as an empty stream begins
	if !g.told {
		g.after = b.Position
	}
	g.events.Add(int64(len(b.Events)))
	if keep {
		g.kept = b
		return nil
	}
	return g.listener.OnBatch(ctx, b)
}

// release hands over the reset that was kept.
func (g *gapGuard) release(ctx context.Context) error {
	if g.kept == nil {
		return nil
	}
	if err := g.listener.OnBatch(ctx, g.kept); err != nil {
		return err
	}
	g.kept = nil
	return nil
}

// goesOn reports whether a reader can go on behind a position. It cannot behind
// a reset alone: what goes on there hears rows of a snapshot that never began,
// and where the stream has no message for the reset, there is nothing at its position.
func (g *gapGuard) goesOn(at listeners.Position) bool {
	began := g.began.Load()
	return at.Commit > 0 && (began == nil || at != *began) // a live marker in an empty stream has no commit
}

// durable returns the guard as what its listener is.
func (g *gapGuard) durable() listeners.Listener {
	if d, ok := g.listener.(listeners.Durable); ok {
		return &durableGuard{gapGuard: g, Durable: d}
	}
	return g
}

// A durableGuard is a gapGuard before a [listeners.Durable].
type durableGuard struct {
	*gapGuard
	listeners.Durable
}

// OnBatch implements [listeners.Listener].
func (g *durableGuard) OnBatch(ctx context.Context, b *listeners.Batch) error {
	return g.gapGuard.OnBatch(ctx, b)
}
