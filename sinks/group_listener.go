package sinks

import (
	"context"

	"github.com/rowcall/rowcall/listeners"
)

// An owned listener is one whose context also ends, with the cause, when its
// partition has to be given up. From then on it is not called.
type owned struct {
	ctx context.Context //nolint:containedctx // the time for which the partition may be handled
	to  listeners.Listener
}

// ownedListener returns l as what it is: a Durable, a GroupListener, or neither.
func ownedListener(ctx context.Context, l listeners.Listener) listeners.Listener {
	o := owned{ctx: ctx, to: l}
	d, durable := l.(listeners.Durable)
	g, group := l.(listeners.GroupListener)
	switch {
	case durable && group:
		return ownedBoth{ownedDurable: ownedDurable{Durable: d, owned: o}, group: ownedGroup{owned: o, group: g}}
	case durable:
		return ownedDurable{Durable: d, owned: o}
	case group:
		return ownedGroup{owned: o, group: g}
	}
	return o
}

// call runs f with the listener's context.
func (o owned) call(ctx context.Context, f func(context.Context) error) error {
	if o.ctx.Err() != nil {
		return context.Cause(o.ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(o.ctx, func() { cancel(context.Cause(o.ctx)) })
	defer stop()
	return f(ctx)
}

// OnBatch implements [listeners.Listener].
func (o owned) OnBatch(ctx context.Context, b *listeners.Batch) error {
	return o.call(ctx, func(ctx context.Context) error { return o.to.OnBatch(ctx, b) })
}

type ownedDurable struct {
	listeners.Durable
	owned owned
}

func (o ownedDurable) OnBatch(ctx context.Context, b *listeners.Batch) error {
	return o.owned.OnBatch(ctx, b)
}

func (o ownedDurable) Flush(ctx context.Context) error {
	return o.owned.call(ctx, o.Durable.Flush)
}

type ownedGroup struct {
	owned
	group listeners.GroupListener
}

func (o ownedGroup) OnBatches(ctx context.Context, batches []*listeners.Batch) error {
	return o.call(ctx, func(ctx context.Context) error { return o.group.OnBatches(ctx, batches) })
}

type ownedBoth struct {
	ownedDurable
	group ownedGroup
}

func (o ownedBoth) OnBatches(ctx context.Context, batches []*listeners.Batch) error {
	return o.group.OnBatches(ctx, batches)
}
