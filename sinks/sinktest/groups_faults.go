package sinktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func groupListenerError(b *groupBench) {
	b.store(50)
	bad := errors.New("no such train")
	m := b.join("a", groupOptions(), listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
		if batch.Position.Commit > 110 {
			return bad
		}
		return nil
	}))
	<-m.done
	var failed *sinks.GroupListenerError
	var at *listeners.ListenerError
	if !errors.As(m.err, &failed) || !errors.Is(m.err, bad) || !errors.As(m.err, &at) || at.Position.Commit <= 110 || failed.Group != "repricer" {
		b.Errorf("Run = %v, want a GroupListenerError with the batch's position", m.err)
	}
	b.join("b", groupOptions(), nothing)
	b.settled()
	b.check()
	if n := b.tally.doubled(); n > 0 {
		b.Errorf("%d events were handled twice", n)
	}
}

func groupRetries(b *groupBench) {
	b.store(50)
	var failures atomic.Int64
	o := groupOptions()
	o.Retry = &listeners.RetryPolicy{Attempts: 5, Delay: time.Millisecond}
	m := b.joinWith(b.server.Join(b.TB), "a", o, func(sinks.GroupPartition) listeners.Listener {
		tries := make(map[listeners.Position]int)
		return listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
			if tries[batch.Position]++; tries[batch.Position] < 3 {
				failures.Add(1)
				return errors.New("once more")
			}
			return nil
		})
	})
	b.settled()
	b.check()
	if err := m.end(); err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	if failures.Load() < 3 {
		b.Error("nothing failed, so this test shows nothing")
	}
}

func groupParked(b *groupBench) {
	b.store(100)
	const parked = 110
	var again atomic.Int64
	o := groupOptions()
	o.Retry = &listeners.RetryPolicy{Attempts: 1, Park: true}
	m := b.joinWith(b.server.Join(b.TB), "a", o, func(sinks.GroupPartition) listeners.Listener {
		return listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
			if batch.Position.Commit == parked {
				return errors.New("not today")
			}
			return nil
		})
	})
	b.eventually("something is parked, and all else handled", func() error {
		n, behind := 0, 0
		for _, o := range m.Owned() {
			n += len(o.Subscription.Parked())
			behind += o.Subscription.Lag().Batches
		}
		if n == 0 || behind > 0 || len(m.Owned()) != b.server.Partitions {
			return fmt.Errorf("%d parked, %d behind", n, behind)
		}
		return nil
	})
	if err := m.end(); err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	b.joinWith(b.server.Join(b.TB), "b", groupOptions(), func(sinks.GroupPartition) listeners.Listener {
		return listeners.ListenerFunc(func(_ context.Context, batch *listeners.Batch) error {
			if batch.Position.Commit == parked {
				again.Add(int64(len(batch.Events)))
			}
			return nil
		})
	})
	want := int64(len(Transaction(parked, 1+parked%5).Events))
	b.eventually("what was parked is told again", func() error {
		if n := again.Load(); n != want {
			return fmt.Errorf("%d events of it, want %d", n, want)
		}
		return nil
	})
}

func groupKilled(b *groupBench) {
	b.store(100)
	first := b.join("a", shortOptions(), nothing)
	second := b.join("b", shortOptions(), nothing)
	b.eventually("two owners", func() error {
		counts, err := b.owners(first, second)
		if err == nil && (counts[0] == 0 || counts[1] == 0) {
			err = fmt.Errorf("members have %v partitions", counts)
		}
		return err
	})
	b.store(100)
	b.kill(first)
	b.store(100)
	b.settled()
	b.check()
	<-first.done
	b.eventually("the other has everything", func() error {
		_, err := b.owners(second)
		return err
	})
}

// A member that the broker does not hear from for longer than its lease finds its
// listener's context ended, and cannot move the checkpoint.
func groupStale(b *groupBench) {
	b.store(60)
	lost, hold := make(chan error, 100), atomic.Bool{}
	client := b.server.Join(b.TB)
	stale := b.joinWith(client, "stale", shortOptions(), func(sinks.GroupPartition) listeners.Listener {
		return listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			if !hold.Load() {
				return nil
			}
			<-ctx.Done()
			lost <- context.Cause(ctx)
			return context.Cause(ctx)
		})
	})
	b.settled()
	hold.Store(true)
	b.store(60)
	b.eventually("the listeners are at it", func() error {
		for _, o := range stale.Owned() {
			if o.Subscription.Lag().Batches > 0 {
				return nil
			}
		}
		return errors.New("no backlog")
	})
	stale.cut.Store(true)
	client.Wire.Freeze()
	var gone *sinks.GroupLostError
	if err := <-lost; !errors.As(err, &gone) || gone.Group != "repricer" || gone.Reason == "" {
		b.Errorf("the stale owner's context ended with %v, want a GroupLostError", err)
	}
	next := b.join("next", shortOptions(), nothing)
	b.settled()
	hold.Store(false)
	client.Wire.Thaw()
	b.store(60)
	b.settled()
	b.eventually("both have a share", func() error {
		counts, err := b.owners(stale, next)
		if err == nil && (counts[0] == 0 || counts[1] == 0) {
			err = fmt.Errorf("members have %v partitions", counts)
		}
		return err
	})
	b.store(60)
	b.settled()
	b.check()
	for _, m := range []*groupMember{stale, next} {
		if err := m.end(); err != nil {
			b.Errorf("Run = %v, want nil", err)
		}
	}
}

// Others wait for a member that is slow to give up a partition, for longer than
// a lease, and lose nothing by that.
func groupSlowDrain(b *groupBench) {
	if !b.server.SlowDrains {
		b.Skip("this server gives up members that wait for others")
	}
	var hold atomic.Bool
	release, held := make(chan struct{}), make(chan struct{}, 100)
	o := shortOptions()
	o.Lease, o.DrainTimeout = 2*shortLease, patience
	longest := stalls()
	slow := b.join("slow", o, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
		if !hold.Load() {
			return nil
		}
		held <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}))
	members := []*groupMember{slow, b.join("quick", o, nothing)}
	fair := func() error {
		counts, err := b.owners(members...)
		if err == nil && slices.Max(counts)-slices.Min(counts) > 1 {
			err = fmt.Errorf("members have %v partitions", counts)
		}
		return err
	}
	b.eventually("two fair shares", fair)
	hold.Store(true)
	b.store(100)
	<-held
	members = append(members, b.join("late", o, nothing))
	pause := time.NewTimer(2*o.Lease + o.Lease/2)
	<-pause.C
	hold.Store(false)
	close(release)
	b.eventually("three fair shares", fair)
	b.store(100)
	b.settled()
	b.check()
	switch n, stall := b.tally.losses(), longest(); {
	case n > 0 && stall >= o.Lease/6: // then the test says nothing
		b.Logf("%d partitions were lost while the machine stood still for %s", n, stall)
	case n > 0:
		b.Errorf("%d partitions were lost while members waited", n)
	}
}

func groupHistory(b *groupBench) {
	b.store(60)
	m := b.join("a", groupOptions(), nothing)
	b.settled()
	if err := m.end(); err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	b.store(60)
	b.server.Forget(b.TB)
	b.store(60)
	m = b.join("b", groupOptions(), nothing)
	<-m.done
	var gone *sinks.GroupHistoryError
	if !errors.As(m.err, &gone) || gone.Oldest.Next <= gone.Wanted {
		b.Errorf("Run behind a hole = %v, want a GroupHistoryError", m.err)
	}
}

func groupHistoryReset(b *groupBench) {
	b.store(60)
	m := b.join("a", groupOptions(), nothing)
	b.settled()
	if err := m.end(); err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	b.store(60)
	b.server.Forget(b.TB)
	var rest []*listeners.Batch
	for commit := b.commit + 1; commit < b.commit+20; commit++ {
		rest = append(rest, Transaction(commit, 10))
	}
	b.server.Store(b.TB, rest)
	o := groupOptions()
	o.ResetOnLoss = true
	client := b.server.Join(b.TB)
	g, err := sinks.NewGroup(client.Broker, "repricer", o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	r := new(groupRecorder)
	go func() { done <- g.Run(ctx, r.listener) }()
	b.compare(r, rest)
	stop()
	if err := <-done; err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	for p, lines := range r.lines {
		if lines[0] != "reset" {
			b.Errorf("partition %d begins with %q, want a reset", p, lines[0])
		}
	}
}

// GroupFaults returns how many times members come and go in the random test:
// 20, or what ROWCALL_GROUP_FAULTS says.
func (b *groupBench) faults() int {
	n := 20
	if v := os.Getenv("ROWCALL_GROUP_FAULTS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 1 {
			b.Fatalf("ROWCALL_GROUP_FAULTS=%q is no number of faults", v)
		}
	}
	return n
}

// groupRandom lets members join, leave, die, freeze and be slow while events
// are stored all the time.
func groupRandom(b *groupBench) {
	seed := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("ROWCALL_TEST_SEED"), 10, 64); err == nil {
		seed = v
	}
	b.Cleanup(func() {
		if b.Failed() {
			b.Logf("again with ROWCALL_TEST_SEED=%d", seed)
		}
	})
	r := rand.New(rand.NewPCG(seed, 0))
	slow := func(limit time.Duration) listeners.Listener {
		return listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			if limit == 0 {
				return nil
			}
			timer := time.NewTimer(rand.N(limit))
			defer timer.Stop()
			select {
			case <-timer.C:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}
	var members []*groupMember
	add := func(i int) {
		members = append(members, b.join(fmt.Sprintf("m%02d", i), shortOptions(), slow(time.Duration(r.IntN(3))*3*time.Millisecond)))
	}
	add(0)
	for i := range b.faults() {
		b.store(20 + r.IntN(60))
		switch n := r.IntN(10); {
		case len(members) < 2 || n < 3 && len(members) < 5:
			add(i + 1)
		case n < 6:
			at := r.IntN(len(members))
			members[at].stop() // and on without waiting
			members = append(members[:at:at], members[at+1:]...)
		case n < 8:
			at := r.IntN(len(members))
			b.kill(members[at])
			members = append(members[:at:at], members[at+1:]...)
		case n == 8 && b.server.Fault != nil:
			b.server.Fault(b.TB)
		default:
			m := members[r.IntN(len(members))]
			m.cut.Store(true)
			m.client.Wire.Freeze()
			time.AfterFunc(time.Duration(r.Int64N(int64(2*shortLease))), m.client.Wire.Thaw)
		}
		pause := time.NewTimer(time.Duration(r.IntN(300)) * time.Millisecond)
		<-pause.C
	}
	b.settled()
	b.check()
	for _, m := range members {
		m.client.Wire.Thaw()
		if err := m.end(); err != nil {
			b.Errorf("Run = %v, want nil", err)
		}
	}
	b.Logf("%d events were handled twice", b.tally.doubled())
}

// GroupMemberKilled kills one of two members while events are stored, and checks that
// the other one handles everything, each key in order.
func GroupMemberKilled(t testing.TB, server GroupServer) {
	t.Helper()
	groupKilled(newGroupBench(t, server))
}

// GroupUnderLoad runs two members while events are stored, does some harm in the midst of
// it, and checks that they have handled everything, each key in order.
func GroupUnderLoad(t testing.TB, server GroupServer, harm func()) {
	t.Helper()
	b := newGroupBench(t, server)
	o := shortOptions()
	o.Lease = 3 * shortLease // an election takes a while
	members := []*groupMember{b.join("a", o, nothing), b.join("b", o, nothing)}
	for i := range 20 {
		b.store(50)
		if i == 10 {
			harm()
		}
	}
	b.settled()
	b.check()
	for _, m := range members {
		if err := m.end(); err != nil {
			b.Errorf("Run = %v, want nil", err)
		}
	}
}
