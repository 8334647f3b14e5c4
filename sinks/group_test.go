package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A script is a broker with one partition that reads what it is told to, for
// what a real broker does not do at will.
type script struct {
	from    sinks.GroupMark
	parts   [][]sinks.GroupPart // a burst each
	fails   int                 // commits that fail before one succeeds
	after   error               // what Read returns behind the parts; nil to wait
	lose    chan struct{}       // closed to lose the partition
	mu      sync.Mutex
	commits []sinks.GroupMark
	reads   int
	revoke  chan struct{}
}

func (s *script) Join(ctx context.Context, m *sinks.GroupMember) error {
	s.revoke = make(chan struct{})
	held, lose := context.WithCancelCause(context.WithoutCancel(ctx))
	defer lose(nil)
	done := make(chan error, 1)
	go func() { done <- m.Own(held, s) }()
	select {
	case err := <-done:
		return err
	case <-s.lose:
		lose(&sinks.GroupLostError{Group: m.Group, Reason: "a test took it"})
	case <-ctx.Done():
		close(s.revoke)
	}
	return <-done
}

func (s *script) Partition() sinks.GroupPartition { return sinks.GroupPartition{Number: 3} }
func (s *script) Revoked() <-chan struct{}        { return s.revoke }
func (s *script) Checkpoint() sinks.GroupMark     { return s.from }

func (s *script) Read(ctx context.Context, from sinks.GroupMark, take func([]sinks.GroupPart) error) error {
	s.mu.Lock()
	s.reads++
	first := s.reads == 1
	s.mu.Unlock()
	for _, burst := range s.parts {
		for len(burst) > 0 && burst[0].Next <= from.Next {
			burst = burst[1:]
		}
		if len(burst) == 0 {
			continue
		}
		if err := take(burst); err != nil {
			return err
		}
	}
	if s.after != nil && first {
		return s.after
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (s *script) Commit(_ context.Context, at sinks.GroupMark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails--; s.fails >= 0 {
		return errors.New("not now")
	}
	s.commits = append(s.commits, at)
	return nil
}

func (s *script) last() sinks.GroupMark {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.commits) == 0 {
		return sinks.GroupMark{}
	}
	return s.commits[len(s.commits)-1]
}

// event is message n of a partition: one row of a transaction.
func event(n, commit uint64, index uint32, end bool) sinks.GroupPart {
	p := sinks.Part{Kind: listeners.Changes, Source: "shop", TxEnd: end, Position: at(commit, index), Size: 100}
	p.Tx.ID = commit
	p.Event = listeners.Event{Op: listeners.Create, Schema: seats, Position: p.Position, After: record(seats, int64(n), "1A", nil)}
	return sinks.GroupPart{Some: true, Part: p, Next: n + 1}
}

func rowPart(n, commit uint64, index uint32, end bool) sinks.GroupPart {
	p := event(n, commit, index, end)
	p.Part.Kind, p.Part.Event.Op, p.Part.Tx.ID = listeners.Snapshot, listeners.Read, 0
	return p
}

func marker(n uint64, kind listeners.Kind, commit uint64, index uint32) sinks.GroupPart {
	return sinks.GroupPart{Some: true, Part: sinks.Part{Kind: kind, Source: "shop", Position: at(commit, index), Size: 100}, Next: n + 1}
}

func complete(next uint64) sinks.GroupPart { return sinks.GroupPart{Next: next, Complete: true} }

// member runs a group until the returned function is called.
func member(t *testing.T, broker sinks.GroupBroker, o *sinks.GroupOptions, l listeners.Listener) (*sinks.Group, func() error) {
	t.Helper()
	g, err := sinks.NewGroup(broker, "repricer", o)
	if err != nil {
		t.Fatalf("NewGroup: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, func(sinks.GroupPartition) listeners.Listener { return l }) }()
	return g, func() error {
		stop()
		return <-done
	}
}

func TestGroupCheckpointIsBehindWhatIsHandled(t *testing.T) {
	for name, tc := range map[string]struct {
		from  sinks.GroupMark
		parts []sinks.GroupPart
		stop  int // the batch that is not handled
		told  []string
		want  sinks.GroupMark
	}{
		"transactions": {
			parts: []sinks.GroupPart{event(1, 1, 0, true), event(2, 2, 0, false), event(3, 2, 4, true), event(4, 3, 0, true)}, stop: 2,
			told: []string{"changes 1 true true", "changes 2 true true"}, want: sinks.GroupMark{Next: 4, Position: at(2, 4)},
		},
		"the end is elsewhere": {
			parts: []sinks.GroupPart{event(1, 1, 0, false), event(5, 2, 0, false), event(9, 3, 0, true)}, stop: 2,
			told: []string{"changes 1 true true", "changes 1 true true"}, want: sinks.GroupMark{Next: 6, Position: at(2, 0)},
		},
		"the end is elsewhere and known": {
			parts: []sinks.GroupPart{event(1, 1, 0, false), complete(8)}, stop: 9,
			told: []string{"changes 1 true true"}, want: sinks.GroupMark{Next: 8, Position: at(1, 0)},
		},
		"within a transaction": {
			parts: []sinks.GroupPart{event(1, 1, 0, true), event(2, 2, 0, false)}, stop: 9,
			told: []string{"changes 1 true true"}, want: sinks.GroupMark{Next: 2, Position: at(1, 0)},
		},
		"nothing for long": {
			from: sinks.GroupMark{Next: 3, Position: at(1, 0)}, parts: []sinks.GroupPart{{Next: 800}}, stop: 9,
			want: sinks.GroupMark{Next: 800, Position: at(1, 0)},
		},
		"a first snapshot": {
			from:  sinks.GroupMark{Fresh: true},
			parts: []sinks.GroupPart{rowPart(1, 1, 1, false), rowPart(2, 1, 2, true), event(3, 2, 0, true)}, stop: 2,
			told: []string{"reset 0 true true", "snapshot 2 true true"}, want: sinks.GroupMark{Next: 3, Position: at(1, 2), Snapshot: true},
		},
		"live is owed": {
			from:  sinks.GroupMark{Next: 3, Position: at(1, 2), Snapshot: true},
			parts: []sinks.GroupPart{complete(9)}, stop: 9,
			told: []string{"live 0 true true"}, want: sinks.GroupMark{Next: 9, Position: at(1, 2)},
		},
		"a reset behind a transaction that ends elsewhere": {
			parts: []sinks.GroupPart{event(1, 1, 0, false), marker(2, listeners.Reset, 2, 0), rowPart(3, 2, 1, true)}, stop: 9,
			told: []string{"changes 1 true true", "reset 0 true true", "snapshot 1 true true", "live 0 true true"},
			want: sinks.GroupMark{Next: 4, Position: at(2, 1)},
		},
		"the rest of a transaction": {
			from:  sinks.GroupMark{Next: 3, Position: at(2, 1)},
			parts: []sinks.GroupPart{event(3, 2, 2, true)}, stop: 9,
			told: []string{"changes 1 false true"}, want: sinks.GroupMark{Next: 4, Position: at(2, 2)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{from: tc.from, parts: [][]sinks.GroupPart{tc.parts}}
				var told []string
				_, end := member(t, s, &sinks.GroupOptions{DrainTimeout: time.Second}, listeners.ListenerFunc(func(ctx context.Context, b *listeners.Batch) error {
					if len(told) == tc.stop {
						<-ctx.Done()
						return context.Cause(ctx)
					}
					told = append(told, fmt.Sprint(b.Kind, len(b.Events), b.First, b.Last))
					return nil
				}))
				time.Sleep(time.Minute)
				if err := end(); err != nil {
					t.Errorf("Run = %v, want nil", err)
				}
				for i := range tc.told {
					tc.told[i] = fmt.Sprintln(tc.told[i])
				}
				for i := range told {
					told[i] = fmt.Sprintln(told[i])
				}
				if diff := cmp.Diff(tc.told, told); diff != "" {
					t.Errorf("the listener was told (-want +got):\n%s", diff)
				}
				if got := s.last(); got != tc.want {
					t.Errorf("checkpoint = %+v, want %+v", got, tc.want)
				}
			})
		})
	}
}

func TestGroupLastCheckpointIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{parts: [][]sinks.GroupPart{{event(1, 1, 0, true)}}, fails: 20}
		_, end := member(t, s, &sinks.GroupOptions{Checkpoint: time.Hour}, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil }))
		synctest.Wait()
		if err := end(); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if got := s.last().Next; got != 2 {
			t.Errorf("checkpoint = %d, want 2", got)
		}
	})
}

// A later is a durable listener that stores when it is told to.
type later struct {
	mu      sync.Mutex
	taken   listeners.Position
	stored  listeners.Position
	stalled chan struct{}
}

func (l *later) OnBatch(_ context.Context, b *listeners.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = b.Position
	return nil
}

func (l *later) Stored() listeners.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored
}

func (l *later) Stalled() <-chan struct{} { return l.stalled }

func (l *later) Flush(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored = l.taken
	return nil
}

func TestGroupCheckpointWaitsForADurableListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{parts: [][]sinks.GroupPart{{event(1, 1, 0, true), event(2, 2, 0, true)}}}
		l := &later{stalled: make(chan struct{})}
		_, end := member(t, s, nil, l)
		time.Sleep(time.Minute)
		if got := s.last().Next; got != 0 {
			t.Errorf("checkpoint = %d before anything was stored, want none", got)
		}
		if err := end(); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if got := s.last().Next; got != 3 {
			t.Errorf("checkpoint = %d after the last flush, want 3", got)
		}
	})
}

// Both is a durable listener that takes several batches.
type both struct {
	later
	most int
}

func (l *both) OnBatches(ctx context.Context, batches []*listeners.Batch) error {
	l.most = max(l.most, len(batches))
	return l.OnBatch(ctx, batches[len(batches)-1])
}

func TestGroupHandsOverSeveralBatches(t *testing.T) {
	var parts []sinks.GroupPart
	for n := range uint64(50) {
		parts = append(parts, event(n+1, n+1, 0, true))
	}
	for name, makeListener := range map[string]func() listeners.Listener{
		"a GroupListener": func() listeners.Listener {
			return listeners.GroupFunc(func(context.Context, []*listeners.Batch) error { return nil })
		},
		"a Durable that is one too": func() listeners.Listener { return &both{later: later{stalled: make(chan struct{})}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l := &script{parts: [][]sinks.GroupPart{parts}}, makeListener()
				_, end := member(t, s, &sinks.GroupOptions{Batches: &listeners.GroupPolicy{MaxWait: time.Second}}, l)
				time.Sleep(time.Minute)
				if err := end(); err != nil {
					t.Errorf("Run = %v, want nil", err)
				}
				if got := s.last().Next; got != 51 {
					t.Errorf("checkpoint = %d, want 51", got)
				}
				if b, ok := l.(*both); ok && b.most < 2 {
					t.Errorf("at most %d batches came at once, want several", b.most)
				}
			})
		})
	}
}

func TestGroupLostPartitionEndsTheListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{parts: [][]sinks.GroupPart{{event(1, 1, 0, true), event(2, 2, 0, true)}}, lose: make(chan struct{})}
		var cause error
		calls := 0
		_, end := member(t, s, &sinks.GroupOptions{Retry: &listeners.RetryPolicy{Attempts: 5}}, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
			calls++
			<-ctx.Done()
			cause = context.Cause(ctx)
			return cause
		}))
		synctest.Wait()
		close(s.lose)
		synctest.Wait()
		if _, ok := errors.AsType[*sinks.GroupLostError](cause); !ok {
			t.Errorf("the listener's context ended with %v, want a GroupLostError", cause)
		}
		if err := end(); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if calls != 1 || s.last().Next != 0 {
			t.Errorf("%d calls and checkpoint %d, want one call and no checkpoint", calls, s.last().Next)
		}
	})
}

func TestGroupListenerThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{parts: [][]sinks.GroupPart{{event(1, 1, 0, true)}}}
		release := make(chan struct{})
		_, end := member(t, s, &sinks.GroupOptions{DrainTimeout: time.Second}, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error {
			<-release
			return nil
		}))
		synctest.Wait()
		var stuck *sinks.GroupStuckError
		if err := end(); !errors.As(err, &stuck) || stuck.Partition.Number != 3 {
			t.Errorf("Run = %v, want a GroupStuckError", err)
		}
		close(release)
		synctest.Wait()
	})
}

func TestGroupHistoryIsGone(t *testing.T) {
	for name, reset := range map[string]bool{"an error": false, "a reset": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{
					parts: [][]sinks.GroupPart{{event(9, 5, 0, true)}}, from: sinks.GroupMark{Next: 20},
					after: &sinks.GroupHistoryError{Group: "repricer", Wanted: 20, Oldest: sinks.GroupMark{Next: 9, Stream: 2}, Replaced: true},
				}
				var kinds []string
				_, end := member(t, s, &sinks.GroupOptions{ResetOnLoss: reset}, listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
					kinds = append(kinds, b.Kind.String())
					return nil
				}))
				time.Sleep(time.Minute)
				err := end()
				if _, gone := errors.AsType[*sinks.GroupHistoryError](err); gone == reset {
					t.Errorf("Run = %v with ResetOnLoss = %t", err, reset)
				}
				if !reset {
					return
				}
				if got := strings.Join(kinds, " "); got != "reset changes" {
					t.Errorf("the listener was told %q, want a reset and what is left", got)
				}
				if got, want := s.last(), (sinks.GroupMark{Next: 10, Stream: 2, Position: at(5, 0)}); got != want {
					t.Errorf("checkpoint = %+v, want %+v", got, want)
				}
			})
		})
	}
}

// Until the reset is told, a checkpoint would let the next member forget it.
func TestGroupOwesAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{
			parts: [][]sinks.GroupPart{{{Next: 12}}}, from: sinks.GroupMark{Next: 20},
			after: &sinks.GroupHistoryError{Group: "repricer", Wanted: 20, Oldest: sinks.GroupMark{Next: 9, Stream: 2}, Replaced: true},
		}
		_, end := member(t, s, &sinks.GroupOptions{ResetOnLoss: true}, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil }))
		time.Sleep(time.Minute)
		if err := end(); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if got := s.last(); got != (sinks.GroupMark{}) {
			t.Errorf("checkpoint = %+v before the reset, want none", got)
		}
	})
}

func TestGroupRefuses(t *testing.T) {
	_, err := sinks.NewGroup(nil, "", &sinks.GroupOptions{Lease: time.Millisecond, Workers: -1})
	for _, want := range []string{"broker", "name", "lease is 1ms", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewGroup = %v, want an error with %q", err, want)
		}
	}
	for name, l := range map[string]func(sinks.GroupPartition) listeners.Listener{
		"no listener": func(sinks.GroupPartition) listeners.Listener { return nil },
		"a panic":     func(sinks.GroupPartition) listeners.Listener { panic("no such train") },
	} {
		g, err := sinks.NewGroup(new(script), "repricer", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "003") {
			t.Errorf("%s: Run = %v, want an error that names the partition", name, err)
		}
		if err := g.Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "Run was called before") {
			t.Errorf("%s: second Run = %v, want an error", name, err)
		}
	}
}
