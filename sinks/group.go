package sinks

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rowcall/rowcall/listeners"
)

// A Group is one member of a consumer group: processes that share the work of
// one firehose. Each of its partitions is read by one member at a time, in
// order, so a key's events are handled one after the other wherever they are
// handled. Make it with [NewGroup], then call [Group.Run].
//
// A partition's listener hears batches as it would in the process of the source,
// but of each transaction only the part that lies in the partition. What concerns a
// whole table (truncate, reset, live) is told in every partition, in its order
// relative to that partition's rows, and there it concerns only those: who
// empties a table at a truncate must do so for the partition alone.
//
// What was handled moves the partition's checkpoint, from which its next member
// goes on: at least once, nothing skipped. After a crash, what was handled since
// the last checkpoint is handled again.
type Group struct {
	broker GroupBroker
	name   string
	opts   GroupOptions
	begun  atomic.Bool

	mu    sync.Mutex
	owned []OwnedPartition
}

// An OwnedPartition is one that a member has at the moment.
type OwnedPartition struct {
	Partition GroupPartition
	// Subscription is the listener's: for its lag, to pause it, and for what it has
	// parked. The group closes it.
	Subscription *listeners.Subscription
}

// NewGroup returns a member of a group. It starts nothing and talks to nobody.
// The error names every option that is wrong.
func NewGroup(broker GroupBroker, name string, opts *GroupOptions) (*Group, error) {
	o := opts.withDefaults()
	if err := o.check(broker, name); err != nil {
		return nil, err
	}
	if o.Member == "" {
		o.Member, _ = os.Hostname()
	}
	o.Member = EscapeToken(cmp.Or(o.Member, "member")) + "_" + rand.Text()[:10]
	return &Group{broker: broker, name: name, opts: o}, nil
}

// Name returns the group's name.
func (g *Group) Name() string { return g.name }

// Member returns the name of this member.
func (g *Group) Member() string { return g.opts.Member }

// Run joins the group, handles the partitions that fall to this member, and
// leaves when ctx ends; then it returns nil. It waits for a broker that is away. It may
// be called once.
//
// Listener is called for each partition when this member gets it, on a goroutine
// of its own, and returns who is to hear of it; the same listener for several
// partitions is called by several goroutines. A listener's context ends only
// when it has to stop: its cause is a [GroupLostError] if the partition is
// another member's now; then what the listener does counts for nothing. When a
// partition is to be given up in order, as at the end of ctx, the batch in hand is finished
// first, for DrainTimeout.
//
// It ends with a [GroupListenerError] if a listener fails, a [GroupStuckError]
// if one does not return, a [GroupHistoryError], or what the broker says. When
// it returns, no listener runs, except for one that is stuck.
func (g *Group) Run(ctx context.Context, listener func(GroupPartition) listeners.Listener) error {
	if g.begun.Swap(true) {
		return fmt.Errorf("group %s: Run was called before; make a new Group", g.name)
	}
	err := g.broker.Join(ctx, &GroupMember{
		Group: g.name, Name: g.opts.Member, Start: g.opts.Start, Lease: g.opts.Lease,
		DrainTimeout: g.opts.DrainTimeout, Logger: g.opts.Logger,
		Own: func(held context.Context, c GroupClaim) error { return g.own(held, c, listener) },
	})
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// Owned returns the partitions that this member has, in order. It does not block, may be
// called from anywhere, and the slice is the caller's.
func (g *Group) Owned() []OwnedPartition {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(slices.Values(g.owned), func(a, b OwnedPartition) int {
		return cmp.Or(cmp.Compare(a.Partition.Collection, b.Partition.Collection), cmp.Compare(a.Partition.Number, b.Partition.Number))
	})
}

// note puts a partition on the list until the returned function is called.
func (g *Group) note(p GroupPartition, sub *listeners.Subscription) func() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.owned = append(g.owned, OwnedPartition{Partition: p, Subscription: sub})
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.owned = slices.DeleteFunc(g.owned, func(o OwnedPartition) bool { return o.Subscription == sub })
	}
}

// own handles one partition for as long as the member has it.
func (g *Group) own(held context.Context, c GroupClaim, listener func(GroupPartition) listeners.Listener) error {
	l, err := makeListener(listener, c.Partition())
	if err != nil {
		return fmt.Errorf("group %s, partition %s: %w", g.name, c.Partition(), err)
	}
	log := g.opts.Logger.With("group", g.name, "partition", c.Partition())
	from, lost := c.Checkpoint(), false
	log.InfoContext(held, "partition taken", "next", from.Next)
	for {
		s := newShare(g, c, from, lost)
		err := s.run(held, l)
		var gone *GroupHistoryError
		if errors.As(err, &gone) && g.opts.ResetOnLoss {
			log.WarnContext(held, "history is gone; a reset and what is left follow", "wanted", gone.Wanted, "oldest", gone.Oldest.Next)
			from, lost = gone.Oldest, true
			continue
		}
		log.InfoContext(held, "partition given up", "next", s.stored.Next, "reason", context.Cause(held))
		return err
	}
}

func makeListener(listener func(GroupPartition) listeners.Listener, p GroupPartition) (l listeners.Listener, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the maker of listeners panicked: %v", v)
		}
	}()
	if l = listener(p); l == nil {
		return nil, errors.New("there is no listener for it")
	}
	return l, nil
}
