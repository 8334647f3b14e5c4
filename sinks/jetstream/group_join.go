package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

const (
	// slowestPoll is how often a member looks at the group at least.
	slowestPoll = time.Second
	// partitionsEvery is how often it looks whether there are partitions that
	// the group does not know.
	partitionsEvery = 30 * time.Second
	// lateTimers is the part of a lease that is waited for on top of it, since
	// the timer that ends it may run late on a busy machine.
	lateTimers = 4
	// buriedAfter is how many leases a member's entry stays after its death.
	buriedAfter = 10
)

// A groupJoin is a membership. One goroutine runs it; each claim has others.
type groupJoin struct {
	groups *Groups
	member *sinks.GroupMember
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // of Join
	bucket *groupBucket
	start  groupMark

	claims map[int]*groupClaim
	seen   map[string]groupSeen // by key
	beaten time.Time            // when its own entry was written last
	ended  chan *groupClaim
	looked time.Time // for partitions
	wg     sync.WaitGroup
}

// A groupSeen is an entry as it was found first.
type groupSeen struct {
	revision uint64
	since    time.Time
}

// Join implements [sinks.GroupBroker].
func (g *Groups) Join(ctx context.Context, m *sinks.GroupMember) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	j := &groupJoin{
		groups: g, member: m, ctx: running, log: m.Logger.With("group", m.Group, "member", m.Name),
		claims: make(map[int]*groupClaim), seen: make(map[string]groupSeen), ended: make(chan *groupClaim),
	}
	err := j.open()
	if err == nil {
		err = j.run()
		stop(err)
		err = errors.Join(err, j.leave())
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return nil
	}
	return fmt.Errorf("group %s: %w", m.Group, err)
}

// patience bounds one question to the server.
func (j *groupJoin) patience() time.Duration {
	return min(max(j.member.Lease/4, 50*time.Millisecond), lastAsk)
}

// open finds where the group begins.
func (j *groupJoin) open() error {
	c := &cursor{nc: j.groups.nc, js: j.groups.js, stream: j.groups.opts.Stream, log: j.log}
	var wrong *sinks.PlaceError
	err := c.persistFor(j.ctx, lastSearch, func(ctx context.Context) error {
		kv, err := j.groups.bucket(ctx)
		if err != nil {
			return err
		}
		j.bucket = &groupBucket{
			nc: j.groups.nc, kv: kv, bucket: j.groups.opts.Bucket,
			prefix: sinks.EscapeToken(j.groups.opts.Stream) + "." + sinks.EscapeToken(j.member.Group) + ".",
		}
		if err := j.begin(ctx); !errors.As(err, &wrong) {
			return err
		}
		return nil
	})
	if wrong != nil {
		return wrong
	}
	return err
}

func (j *groupJoin) begin(ctx context.Context) error {
	e, err := j.bucket.latest(ctx, groupBegin)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		if err := j.groups.checkPartitions(ctx); err != nil {
			return err
		}
		s := groupStart{Partitions: j.groups.opts.Partitions}
		if s.Mark, err = j.groups.start(ctx, j.member.Start); err != nil {
			return err
		}
		if _, err = j.bucket.write(ctx, groupBegin, &s, 0); err != nil && !raced(err) {
			return err
		}
		e, err = j.bucket.latest(ctx, groupBegin)
	}
	if err != nil {
		return err
	}
	var s groupStart
	if err := json.Unmarshal(e.value, &s); err != nil {
		return fmt.Errorf("where it begins: %w", err)
	}
	if s.Partitions != j.groups.opts.Partitions {
		return &sinks.PlaceError{Place: "stream " + j.groups.opts.Stream, Reason: fmt.Sprintf(
			"group %s has %d partitions, not %d; set Partitions to %d, or use a new group", j.member.Group, s.Partitions, j.groups.opts.Partitions, s.Partitions)}
	}
	j.start = s.Mark
	return nil
}

// run takes part until ctx ends, or a claim fails.
func (j *groupJoin) run() error {
	tick := time.NewTicker(min(max(j.member.Lease/10, 20*time.Millisecond), slowestPoll))
	defer tick.Stop()
	for {
		if err := j.round(); err != nil {
			return err
		}
		select {
		case c := <-j.ended:
			if err := j.forget(c); err != nil {
				return err
			}
		case <-tick.C:
		case <-j.ctx.Done():
			return nil
		}
	}
}

func (j *groupJoin) forget(c *groupClaim) error {
	delete(j.claims, c.number)
	return c.err
}

// round gives a sign of life, and gives up or takes what the shares ask for.
func (j *groupJoin) round() error {
	ctx, cancel := context.WithTimeout(j.ctx, j.patience())
	defer cancel()
	var wrong *StreamError
	for _, step := range []func(context.Context) error{j.beat, j.look, j.balance} {
		if err := step(ctx); errors.As(err, &wrong) {
			return err
		} else if err != nil {
			j.log.DebugContext(ctx, "the group cannot be looked at", "error", err)
			return nil
		}
	}
	return nil
}

func (j *groupJoin) beat(ctx context.Context) error {
	if time.Since(j.beaten) < j.member.Lease/4 {
		return nil
	}
	text, err := json.Marshal(groupLease{Owner: j.member.Name, Millis: j.member.Lease.Milliseconds()})
	if err != nil {
		return err
	}
	now := time.Now()
	if _, err := j.bucket.kv.Put(ctx, j.bucket.prefix+groupMembers+j.member.Name, text); err != nil {
		return err
	}
	j.beaten = now
	return nil
}

func (j *groupJoin) look(ctx context.Context) error {
	if !j.looked.IsZero() && time.Since(j.looked) < partitionsEvery {
		return nil
	}
	if err := j.groups.checkPartitions(ctx); err != nil {
		return err
	}
	j.looked = time.Now()
	return nil
}

// unchanged notes an entry, and returns for how long it has been as it is.
func (j *groupJoin) unchanged(kind string, e *groupEntry) time.Duration {
	s, known := j.seen[kind+e.key]
	if !known || e.revision > s.revision {
		s = groupSeen{revision: e.revision, since: time.Now()}
		j.seen[kind+e.key] = s
	}
	return time.Since(s.since)
}

// alive returns the members, in order, this one among them.
func (j *groupJoin) alive(ctx context.Context) ([]string, error) {
	entries, err := j.bucket.list(ctx, groupMembers)
	if err != nil {
		return nil, err
	}
	names := []string{j.member.Name}
	for i := range entries {
		e := &entries[i]
		var l groupLease
		if e.key == j.member.Name || json.Unmarshal(e.value, &l) != nil {
			continue
		}
		lease := time.Duration(l.Millis) * time.Millisecond
		switch age := j.unchanged(groupMembers, e); {
		case age < lease:
			names = append(names, e.key)
		case age > buriedAfter*lease:
			if err := j.bucket.remove(ctx, j.groups.js, groupMembers+e.key); err != nil {
				return nil, err
			}
			delete(j.seen, groupMembers+e.key)
		}
	}
	slices.Sort(names)
	return names, nil
}

// balance compares what this member has with its share. Shares differ by one at most
// and add up to all partitions, so that what one has too many another has too
// few.
func (j *groupJoin) balance(ctx context.Context) error {
	members, err := j.alive(ctx)
	if err != nil {
		return err
	}
	leases, err := j.bucket.list(ctx, groupLeases)
	if err != nil {
		return err
	}
	n, rank := j.groups.opts.Partitions, slices.Index(members, j.member.Name)
	share := n / len(members)
	if rank < n%len(members) {
		share++
	}
	entries := make(map[int]*groupEntry)
	for i := range leases {
		var number int
		if _, err := fmt.Sscanf(leases[i].key, "%d", &number); err == nil {
			entries[number] = &leases[i]
		}
	}
	has := 0
	for number := range n {
		if c := j.claims[number]; c != nil && !c.isRevoked() && c.held.Err() == nil {
			if has++; has > share {
				c.revoke()
			}
		}
	}
	for i := range n {
		number := (i + rank*n/len(members)) % n // not all begin at the same one
		if has >= share || j.ctx.Err() != nil {
			break
		}
		if j.claims[number] != nil {
			continue
		}
		taken, err := j.take(ctx, number, entries[number])
		if err != nil {
			return err
		}
		if taken {
			has++
		}
	}
	// What others have is watched also while this member has enough.
	for _, e := range entries {
		j.unchanged(groupLeases, e)
	}
	return nil
}

// take takes a partition if it is free.
func (j *groupJoin) take(ctx context.Context, number int, e *groupEntry) (bool, error) {
	lease := groupLease{Mark: j.start}
	revision := uint64(0)
	if e != nil {
		age := j.unchanged(groupLeases, e)
		if err := json.Unmarshal(e.value, &lease); err != nil {
			return false, fmt.Errorf("lease of partition %d: %w", number, err)
		}
		// Its own it has lost, or never heard of having.
		free := lease.Owner == "" || lease.Owner == j.member.Name
		if wait := time.Duration(lease.Millis) * time.Millisecond; !free && age < wait+wait/lateTimers {
			return false, nil
		}
		revision = e.revision
	}
	if _, err := lease.Mark.mark(); err != nil {
		return false, fmt.Errorf("lease of partition %d: %w", number, err)
	}
	before := lease.Owner
	lease.Owner, lease.Millis = j.member.Name, j.member.Lease.Milliseconds()
	lease.Beat++
	began := time.Now()
	// Not cut short when the member leaves: what it has taken it gives back.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.patience())
	revision, err := j.bucket.write(writing, groupLeases+sinks.PartitionToken(number), &lease, revision)
	cancel()
	if raced(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if before != "" && before != j.member.Name {
		j.log.InfoContext(ctx, "a partition is taken from a member that gives no sign of life", "partition", number, "from", before)
	}
	c := j.newClaim(number, revision, lease, began)
	j.claims[number] = c
	j.wg.Go(func() {
		c.run()
		select {
		case j.ended <- c:
		case <-j.ctx.Done(): // leave looks at it
		}
	})
	return true, nil
}

// leave gives everything back.
func (j *groupJoin) leave() error {
	for _, c := range j.claims {
		c.revoke()
	}
	j.wg.Wait()
	var errs []error
	for _, c := range j.claims {
		errs = append(errs, c.err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(j.ctx), j.patience())
	defer cancel()
	if err := j.bucket.remove(ctx, j.groups.js, groupMembers+j.member.Name); err != nil {
		j.log.DebugContext(ctx, "the member's entry is left to run out", "error", err)
	}
	return errors.Join(errs...)
}
