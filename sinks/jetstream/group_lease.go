package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

// A groupClaim is a partition that a member has taken.
type groupClaim struct {
	in     *groupJoin
	number int
	key    string

	held    context.Context //nolint:containedctx // the time for which the lease lasts
	lose    context.CancelCauseFunc
	revoked chan struct{}
	revoke  func() // closes revoked
	err     error  // of Own; after run

	turn   chan struct{} // holds one while somebody writes
	expiry *time.Timer   // ends held; who has the turn resets it
	// Of who has the turn.
	revision uint64
	lease    groupLease
	written  time.Time
}

// newClaim begins to count the lease from before the write that took it.
func (j *groupJoin) newClaim(number int, revision uint64, lease groupLease, began time.Time) *groupClaim {
	c := &groupClaim{
		in: j, number: number, key: groupLeases + sinks.PartitionToken(number), revoked: make(chan struct{}),
		turn: make(chan struct{}, 1), revision: revision, lease: lease, written: began,
	}
	c.revoke = sync.OnceFunc(func() { close(c.revoked) })
	c.held, c.lose = context.WithCancelCause(context.WithoutCancel(j.ctx))
	c.expiry = time.AfterFunc(j.member.Lease-time.Since(began), func() {
		c.lost(fmt.Sprintf("its lease of %s is over, and the server could not be reached to renew it", j.member.Lease))
	})
	return c
}

func (c *groupClaim) lost(reason string) {
	c.lose(&sinks.GroupLostError{Group: c.in.member.Group, Partition: c.Partition(), Reason: reason})
}

// Partition implements [sinks.GroupClaim].
func (c *groupClaim) Partition() sinks.GroupPartition { return sinks.GroupPartition{Number: c.number} }

// Revoked implements [sinks.GroupClaim].
func (c *groupClaim) Revoked() <-chan struct{} { return c.revoked }

func (c *groupClaim) isRevoked() bool {
	select {
	case <-c.revoked:
		return true
	default:
		return false
	}
}

// Checkpoint implements [sinks.GroupClaim]. It is called before the first Commit.
func (c *groupClaim) Checkpoint() sinks.GroupMark {
	m, _ := c.lease.Mark.mark() // it was read before, see take
	return m
}

// Commit implements [sinks.GroupClaim].
func (c *groupClaim) Commit(ctx context.Context, at sinks.GroupMark) error {
	m := toGroupMark(at)
	return c.write(ctx, &m)
}

// run handles the partition, and lets go of it.
func (c *groupClaim) run() {
	var wg sync.WaitGroup
	renewing, stop := context.WithCancel(c.held)
	wg.Go(func() { c.renew(renewing) })
	c.err = c.in.member.Own(c.held, c)
	stop()
	wg.Wait()
	c.expiry.Stop()
	var stuck *sinks.GroupStuckError
	if c.held.Err() == nil && !errors.As(c.err, &stuck) {
		ctx, cancel := context.WithTimeout(c.held, c.in.patience())
		defer cancel()
		if err := c.release(ctx); err != nil {
			c.in.log.DebugContext(ctx, "a lease is left to run out", "partition", c.number, "error", err)
		}
	}
	c.lose(nil)
}

// renew writes the entry whenever nothing else has for a while.
func (c *groupClaim) renew(ctx context.Context) {
	every := c.in.member.Lease / 4
	tick := time.NewTicker(every / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if c.age(ctx) < every {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, c.in.patience())
		if err := c.write(limited, nil); err != nil && ctx.Err() == nil {
			c.in.log.DebugContext(ctx, "lease not renewed", "partition", c.number, "error", err)
		}
		cancel()
	}
}

func (c *groupClaim) age(ctx context.Context) time.Duration {
	if c.enter(ctx) != nil {
		return 0
	}
	defer c.leave()
	return time.Since(c.written)
}

func (c *groupClaim) enter(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *groupClaim) leave() { <-c.turn }

// release gives the partition back.
func (c *groupClaim) release(ctx context.Context) error {
	if err := c.enter(ctx); err != nil {
		return err
	}
	defer c.leave()
	for tries := 0; ; tries++ {
		next := c.lease
		next.Owner = ""
		_, err := c.in.bucket.write(ctx, c.key, &next, c.revision)
		if !raced(err) || tries == 2 {
			return err
		}
		// By a write whose answer nobody waited for any more when all came to
		// its end.
		if err := c.reread(ctx); err != nil {
			return err
		}
	}
}

// write renews the lease, with a new checkpoint if there is one.
func (c *groupClaim) write(ctx context.Context, mark *groupMark) error {
	if err := c.enter(ctx); err != nil {
		return err
	}
	defer c.leave()
	for tries := 0; ; tries++ {
		if c.held.Err() != nil {
			return context.Cause(c.held)
		}
		next := c.lease
		next.Beat++
		if mark != nil {
			next.Mark = *mark
		}
		began := time.Now()
		revision, err := c.in.bucket.write(ctx, c.key, &next, c.revision)
		if err == nil {
			c.accept(revision, next, began)
			return nil
		}
		if !raced(err) || tries == 2 {
			return fmt.Errorf("lease of partition %d: %w", c.number, err)
		}
		// An earlier write of this claim, whose answer was lost, or a new owner's.
		if err := c.reread(ctx); err != nil {
			return err
		}
	}
}

// accept takes over what was written. If the timer has run already, held has ended.
func (c *groupClaim) accept(revision uint64, lease groupLease, began time.Time) {
	c.revision, c.lease, c.written = revision, lease, began
	if c.expiry.Stop() {
		c.expiry.Reset(c.in.member.Lease - time.Since(began))
	}
}

func (c *groupClaim) reread(ctx context.Context) error {
	e, err := c.in.bucket.latest(ctx, c.key)
	if err != nil {
		return fmt.Errorf("lease of partition %d: %w", c.number, err)
	}
	var l groupLease
	if err := json.Unmarshal(e.value, &l); err != nil {
		return fmt.Errorf("lease of partition %d: %w", c.number, err)
	}
	if l.Owner != c.in.member.Name {
		by := "it was taken by " + l.Owner
		if l.Owner == "" {
			by = "somebody gave it back"
		}
		c.lost(by)
		return context.Cause(c.held)
	}
	// The entry was written before now, but not by how much; the lease goes on
	// counting from the last write that was answered.
	c.revision, c.lease = e.revision, l
	return nil
}
