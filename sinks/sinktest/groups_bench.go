package sinktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// calmLease is so long that no machine is so busy as to lose it.
	calmLease = 15 * time.Second
	// shortLease is for tests in which members lose it.
	shortLease = 2 * time.Second
)

// A groupBench is what a test of groups works with.
type groupBench struct {
	testing.TB
	server GroupServer
	tally  *groupTally
	commit uint64 // of the last transaction stored

	mu      sync.Mutex
	members []*groupMember
}

func newGroupBench(t testing.TB, s GroupServer) *groupBench {
	b := &groupBench{TB: t, server: s, commit: 100}
	b.tally = &groupTally{partitions: s.Partitions, want: make(map[string][]listeners.Position), done: make(map[string]int), shares: make(map[sinks.GroupPartition]*groupShare)}
	return b
}

// A groupMember is a process that is a member.
type groupMember struct {
	*sinks.Group
	name   string
	client *GroupClient
	stop   context.CancelFunc
	done   chan struct{}
	err    error       // after done
	cut    atomic.Bool // its connection was frozen, so it may not leave in order
}

// groupOptions are those of the tests: everything from the beginning, quickly.
func groupOptions() *sinks.GroupOptions {
	return &sinks.GroupOptions{
		Start: sinks.GroupStart{Oldest: true}, Lease: calmLease, Checkpoint: 20 * time.Millisecond, DrainTimeout: 20 * time.Second,
	}
}

// shortOptions are those of a test in which members die.
func shortOptions() *sinks.GroupOptions {
	o := groupOptions()
	o.Lease, o.DrainTimeout = shortLease, shortLease
	return o
}

// A lossTeller is a broker that tells the tally of partitions that a member loses.
type lossTeller struct {
	sinks.GroupBroker
	tally  *groupTally
	member *groupMember
}

// Join implements [sinks.GroupBroker].
func (l lossTeller) Join(ctx context.Context, m *sinks.GroupMember) error {
	c := *m
	c.Own = func(held context.Context, claim sinks.GroupClaim) error {
		stop := context.AfterFunc(held, func() {
			if _, lost := errors.AsType[*sinks.GroupLostError](context.Cause(held)); lost {
				l.tally.lost(l.member, claim.Partition())
			}
		})
		defer stop()
		return m.Own(held, claim)
	}
	return l.GroupBroker.Join(ctx, &c)
}

// join runs a member until the test ends or it is stopped. The listener hears what the tally
// was told of, too.
func (b *groupBench) join(name string, o *sinks.GroupOptions, l listeners.Listener) *groupMember {
	b.Helper()
	return b.joinWith(b.server.Join(b.TB), name, o, func(sinks.GroupPartition) listeners.Listener { return l })
}

func (b *groupBench) joinWith(client *GroupClient, name string, o *sinks.GroupOptions, l func(sinks.GroupPartition) listeners.Listener) *groupMember {
	b.Helper()
	c := *o
	c.Member = name
	// What the library says belongs to a test that fails.
	c.Logger = slog.New(slog.NewTextHandler(b.Output(), nil)).With("member", name)
	// The test's context ends before its clean-up begins.
	ctx, stop := context.WithCancel(b.Context())
	m := &groupMember{name: name, client: client, stop: stop, done: make(chan struct{})}
	g, err := sinks.NewGroup(lossTeller{GroupBroker: client.Broker, tally: b.tally, member: m}, "repricer", &c)
	if err != nil {
		stop()
		b.Fatalf("NewGroup: %v", err)
	}
	m.Group = g
	go func() {
		defer close(m.done)
		m.err = g.Run(ctx, func(p sinks.GroupPartition) listeners.Listener { return b.tally.listener(m, p, l(p)) })
	}()
	b.Cleanup(func() {
		client.Wire.Thaw()
		stop()
		<-m.done
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members = append(b.members, m)
	return m
}

// end has a member leave and returns what Run returned.
func (m *groupMember) end() error {
	m.stop()
	<-m.done
	return m.err
}

// kill ends a member as the death of its process does.
func (b *groupBench) kill(m *groupMember) {
	b.tally.bury(m)
	m.client.Wire.Kill()
	m.stop()
}

func (b *groupBench) eventually(what string, check func() error) {
	b.Helper()
	(&bench{TB: b.TB}).eventually(what, check)
}

// store stores transactions that update some of 40 seats, n events in all.
func (b *groupBench) store(n int) {
	b.Helper()
	var batches []*listeners.Batch
	for n > 0 {
		b.commit++
		t := Transaction(b.commit, min(n, 1+int(b.commit%5)))
		for i := range t.Events {
			t.Events[i].Op = listeners.Update
			t.Events[i].After = Seat(int(b.commit*7+uint64(i)*3) % 40)
		}
		n -= len(t.Events)
		batches = append(batches, t)
	}
	b.put(batches...)
}

func (b *groupBench) put(batches ...*listeners.Batch) {
	b.Helper()
	b.tally.expect(batches)
	b.server.Store(b.TB, batches)
}

// settled waits until everything stored was handled.
func (b *groupBench) settled() {
	b.Helper()
	b.eventually("everything is handled", b.tally.left)
}

// owners returns how many partitions each member has, once each has one owner.
func (b *groupBench) owners(members ...*groupMember) (counts []int, err error) {
	all := make(map[sinks.GroupPartition]string)
	for _, m := range members {
		owned := m.Owned()
		counts = append(counts, len(owned))
		for _, o := range owned {
			if other, twice := all[o.Partition]; twice {
				return counts, fmt.Errorf("%s and %s both have partition %s", other, m.name, o.Partition)
			}
			all[o.Partition] = m.name
		}
	}
	if len(all) != b.server.Partitions {
		return counts, fmt.Errorf("%d of %d partitions have an owner: %v", len(all), b.server.Partitions, counts)
	}
	return counts, nil
}

// A groupTally checks what members handle: each key's events in order, none left
// out, none again but behind a member that was killed or lost its partition, and
// no partition by two at a time.
type groupTally struct {
	partitions int

	mu       sync.Mutex
	want     map[string][]listeners.Position // by key
	done     map[string]int                  // how many of them were handled
	shares   map[sinks.GroupPartition]*groupShare
	twice    int
	lostOnes int
	failures []string
}

// A groupShare is a partition in the hands of one member.
type groupShare struct {
	member *groupMember
	last   map[string]int // index of the last event handled, by key
	next   map[string]int // where it has to begin at the earliest, by key: behind what the one before it has handled, if that left in order
	busy   bool
	dead   bool // killed, or it has lost the partition: its last checkpoint may be missing
	buried bool // killed
}

func keyOf(e *listeners.Event) string { return e.Key().String() }

func (g *groupTally) expect(batches []*listeners.Batch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range batches {
		for i := range b.Events {
			if k := keyOf(&b.Events[i]); b.Events[i].Op != listeners.Truncate {
				g.want[k] = append(g.want[k], b.Events[i].Position)
			}
		}
	}
}

// left returns an error that says what was not handled.
func (g *groupTally) left() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.failures) > 0 {
		return nil // see check
	}
	missing := 0
	for k, want := range g.want {
		missing += len(want) - g.done[k]
	}
	if missing > 0 {
		return fmt.Errorf("%d events were not handled", missing)
	}
	return nil
}

func (g *groupTally) doubled() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.twice
}

// check fails the test for what went wrong.
func (b *groupBench) check() {
	b.Helper()
	b.tally.mu.Lock()
	defer b.tally.mu.Unlock()
	if n := len(b.tally.failures); n > 0 {
		b.Errorf("%d faults:\n%s", n, strings.Join(b.tally.failures[:min(n, 10)], "\n"))
	}
}

func (g *groupTally) fail(format string, args ...any) {
	g.failures = append(g.failures, fmt.Sprintf(format, args...))
}

// bury says that what a member does counts for nothing any more.
func (g *groupTally) bury(m *groupMember) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.shares {
		if s.member == m {
			s.dead, s.buried, s.busy = true, true, false
		}
	}
}

// lost says that what a member has handled of a partition may not be in the
// checkpoint.
func (g *groupTally) lost(m *groupMember, p sinks.GroupPartition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lostOnes++
	if s := g.shares[p]; s != nil && s.member == m {
		s.dead = true
	}
}

// losses returns how often a member lost a partition.
func (g *groupTally) losses() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lostOnes
}

// listener counts what l has handled.
func (g *groupTally) listener(m *groupMember, p sinks.GroupPartition, l listeners.Listener) listeners.Listener {
	var s *groupShare
	return listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
		if s == nil {
			s = &groupShare{member: m, last: make(map[string]int), next: make(map[string]int)}
			g.begin(p, s)
		}
		if !g.enter(s) {
			<-ctx.Done() // a dead process does nothing
			return context.Cause(ctx)
		}
		err := l.OnBatch(ctx, b)
		g.leave(ctx, s, b, err)
		return err
	})
}

func (g *groupTally) begin(p sinks.GroupPartition, s *groupShare) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if before := g.shares[p]; before != nil {
		if before.busy && !before.buried {
			g.fail("%s begins with partition %s while %s handles it", s.member.name, p, before.member.name)
		}
		if !before.dead && !before.member.cut.Load() {
			maps.Copy(s.next, before.next)
			for key, last := range before.last {
				s.next[key] = last + 1
			}
		}
	}
	g.shares[p] = s
}

func (g *groupTally) enter(s *groupShare) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.busy = !s.buried
	return s.busy
}

func (g *groupTally) leave(ctx context.Context, s *groupShare, b *listeners.Batch, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.busy = false
	if err != nil || s.buried {
		return
	}
	if ctx.Err() != nil {
		s.dead = true // what it has done may not be in the checkpoint
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Op == listeners.Truncate {
			continue
		}
		g.handled(s, keyOf(e), e.Position)
	}
}

func (g *groupTally) handled(s *groupShare, key string, at listeners.Position) {
	index, known := slices.BinarySearchFunc(g.want[key], at, listeners.Position.Compare)
	last, later := s.last[key]
	switch {
	case !known:
		g.fail("%s was told %s of key %s, which was not stored", s.member.name, at, key)
		return
	case later && index != last+1:
		g.fail("%s was told event %d of key %s after event %d", s.member.name, index, key, last)
	case index > g.done[key]:
		g.fail("%s was told event %d of key %s, but %d was not handled", s.member.name, index, key, g.done[key])
	case !later && index < s.next[key]:
		g.fail("%s was told event %d of key %s again, although the member before it had left in order behind event %d", s.member.name, index, key, s.next[key])
	}
	if index < g.done[key] {
		g.twice++
	}
	s.last[key] = index
	g.done[key] = max(g.done[key], index+1)
}
