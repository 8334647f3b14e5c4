package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// nothing is a listener that is done at once.
var nothing listeners.ListenerFunc = func(context.Context, *listeners.Batch) error { return nil }

// A groupRecorder writes down what partitions hear.
type groupRecorder struct {
	mu    sync.Mutex
	lines map[int][]string
}

func (r *groupRecorder) listener(p sinks.GroupPartition) listeners.Listener {
	return listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.lines == nil {
			r.lines = make(map[int][]string)
		}
		if b.Kind == listeners.Reset || b.Kind == listeners.Live {
			r.lines[p.Number] = append(r.lines[p.Number], b.Kind.String())
		}
		for i := range b.Events {
			r.lines[p.Number] = append(r.lines[p.Number], groupLine(b, i))
		}
		return nil
	})
}

func groupLine(b *listeners.Batch, i int) string {
	e := &b.Events[i]
	line := fmt.Sprintf("%s %s %s %s", e.Op, e.Position, e.Key(), e.After.AppendJSON(nil))
	// A snapshot is cut as it happens.
	if b.Kind == listeners.Changes {
		line += fmt.Sprintf(" tx %d", b.Tx.ID)
		if i == 0 && b.First {
			line += " begin"
		}
		if i == len(b.Events)-1 && b.Last {
			line += " end"
		}
	}
	return line
}

// parts returns what each partition has to hear of transactions and snapshots.
func (b *groupBench) parts(batches []*listeners.Batch) [][]string {
	encoder := sinks.NewEncoder(b.server.Partitions)
	parts := make([]*listeners.Batch, b.server.Partitions)
	lines := make([][]string, b.server.Partitions)
	for _, batch := range batches {
		for p := range parts {
			if parts[p] == nil {
				c := *batch
				c.Events = nil
				parts[p] = &c
			}
			for i := range batch.Events {
				if f := encoder.Encode(batch, i); f.Partition == p || f.Partition == sinks.All {
					parts[p].Events = append(parts[p].Events, batch.Events[i])
				}
			}
			if !batch.Last {
				continue
			}
			parts[p].Last = true
			for i := range parts[p].Events {
				lines[p] = append(lines[p], groupLine(parts[p], i))
			}
			parts[p] = nil
		}
	}
	return lines
}

func (b *groupBench) compare(r *groupRecorder, batches []*listeners.Batch) {
	b.Helper()
	want := b.parts(batches)
	b.eventually("all parts", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for p := range want {
			var got []string
			for _, line := range r.lines[p] {
				if line != "reset" && line != "live" {
					got = append(got, line)
				}
			}
			diff := cmp.Diff(want[p], got)
			if len(got) < len(want[p]) {
				return fmt.Errorf("partition %d has heard %d events of %d (-want +got):\n%s", p, len(got), len(want[p]), diff[:min(len(diff), 3000)])
			}
			if diff != "" {
				b.Fatalf("partition %d (-want +got):\n%s", p, diff[:min(len(diff), 3000)])
			}
		}
		return nil
	})
}

func groupHearsAll(b *groupBench) {
	batches := []*listeners.Batch{Reset(10), Snapshot(10, 60), Live(10)}
	for commit := uint64(11); commit < 60; commit++ {
		switch {
		case commit%17 == 0:
			batches = append(batches, Truncate(commit))
		case commit == 40:
			batches = append(batches, Reset(commit), Snapshot(commit, 20), Live(commit))
		default:
			batches = append(batches, Transaction(commit, int(1+commit%30)))
		}
	}
	r := new(groupRecorder)
	b.server.Store(b.TB, batches[:20])
	m := b.joinWith(b.server.Join(b.TB), "a", groupOptions(), r.listener)
	b.server.Store(b.TB, batches[20:])
	b.compare(r, batches)
	if !b.server.Markers {
		return
	}
	if err := m.end(); err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	for p, lines := range r.lines {
		read := slices.IndexFunc(lines, func(l string) bool { return l[:4] == "read" })
		if read < 0 {
			continue
		}
		var markers []string
		for i, line := range lines {
			if line == "reset" || line == "live" || i > 0 && lines[i-1] == "reset" {
				markers = append(markers, line[:4])
			}
		}
		if got := fmt.Sprint(markers); markers[0] != "rese" || markers[len(markers)-1] != "live" {
			b.Errorf("partition %d heard the markers %s, want each snapshot to begin with a reset and to end with live", p, got)
		}
		if n := len(slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return l != "live" })); n != 2 {
			b.Errorf("partition %d heard live %d times, want after each of 2 snapshots", p, n)
		}
	}
}

// The end of a transaction lies in one partition; the others have to find out.
func groupWholeTransactions(b *groupBench) {
	r := new(groupRecorder)
	b.joinWith(b.server.Join(b.TB), "a", groupOptions(), r.listener)
	var batches []*listeners.Batch
	for commit := uint64(20); commit < 30; commit++ {
		batch := Transaction(commit, 30)
		b.server.Store(b.TB, Parts(batch, 12))
		batches = append(batches, batch)
		b.compare(r, batches) // before there is another transaction
	}
}

func groupSharesAreFair(b *groupBench) {
	var members []*groupMember
	fair := func() {
		b.Helper()
		b.store(50)
		b.eventually("a fair share for everybody", func() error {
			counts, err := b.owners(members...)
			if err == nil && slices.Max(counts)-slices.Min(counts) > 1 {
				err = fmt.Errorf("members have %v partitions", counts)
			}
			return err
		})
		b.settled()
	}
	for _, name := range []string{"a", "b", "c"} {
		members = append(members, b.join(name, groupOptions(), nothing))
		fair()
	}
	for len(members) > 1 {
		if err := members[0].end(); err != nil {
			b.Errorf("Run = %v, want nil", err)
		}
		members = members[1:]
		fair()
	}
	b.check()
	if n := b.tally.doubled(); n > 0 {
		b.Errorf("%d events were handled twice although all members left in order", n)
	}
}

func groupDrains(b *groupBench) {
	started, release := make(chan struct{}, 100), make(chan struct{})
	b.store(100)
	o := groupOptions()
	o.DrainTimeout = patience
	first := b.join("a", o, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
		started <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}))
	<-started
	first.stop()
	second := b.join("b", groupOptions(), nothing)
	timer := time.NewTimer(300 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-first.done:
		b.Error("Run returned while a batch was handled")
	case <-timer.C:
	}
	for _, o := range second.Owned() {
		for _, its := range first.Owned() {
			if o.Partition == its.Partition {
				b.Errorf("partition %s has two owners", o.Partition)
			}
		}
	}
	close(release)
	if err := first.end(); err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	b.settled()
	b.check()
	if n := b.tally.doubled(); n > 0 {
		b.Errorf("%d events were handled twice", n)
	}
}

func groupDrainTimeout(b *groupBench) {
	b.store(20)
	started, ended := make(chan struct{}, 100), make(chan error, 100)
	o := groupOptions()
	o.DrainTimeout = 300 * time.Millisecond
	first := b.join("a", o, listeners.ListenerFunc(func(ctx context.Context, _ *listeners.Batch) error {
		started <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return context.Cause(ctx)
	}))
	<-started
	if err := first.end(); err != nil {
		b.Errorf("Run = %v, want nil", err)
	}
	if err := <-ended; err == nil || errors.Is(err, context.Canceled) || errors.Is(err, listeners.ErrClosed) {
		b.Errorf("the listener's context ended with %v, want the reason", err)
	}
	b.join("b", groupOptions(), nothing)
	b.settled()
	b.check()
}

func groupGoesOn(b *groupBench) {
	b.store(200)
	for _, name := range []string{"a", "b", "c"} {
		m := b.join(name, groupOptions(), nothing)
		b.store(100)
		b.settled()
		if err := m.end(); err != nil {
			b.Errorf("Run = %v, want nil", err)
		}
		b.store(100)
	}
	b.join("d", groupOptions(), nothing)
	b.settled()
	b.check()
	if n := b.tally.doubled(); n > 0 {
		b.Errorf("%d events were handled twice although all members left in order", n)
	}
}

func groupBegins(b *groupBench) {
	before := []*listeners.Batch{Transaction(20, 20), Transaction(21, 20)}
	b.server.Store(b.TB, before)
	// What the brokers call a time is a clock's in milliseconds.
	pause := time.NewTimer(20 * time.Millisecond)
	<-pause.C
	middle := time.Now()
	pause.Reset(20 * time.Millisecond)
	<-pause.C
	later := []*listeners.Batch{Transaction(22, 20), Transaction(23, 20)}
	b.server.Store(b.TB, later)
	last := []*listeners.Batch{Transaction(24, 20), Transaction(25, 20)}
	type want struct {
		start sinks.GroupStart
		heard []*listeners.Batch
	}
	recorders := make(map[string]*groupRecorder)
	wants := map[string]want{
		"oldest": {sinks.GroupStart{Oldest: true}, slices.Concat(before, later, last)},
		"now":    {sinks.GroupStart{}, last},
		"time":   {sinks.GroupStart{Time: middle}, slices.Concat(later, last)},
		"after":  {sinks.GroupStart{After: before[0].Position}, slices.Concat(before[1:], later, last)},
	}
	for name, w := range wants {
		o := groupOptions()
		o.Start = w.start
		client := b.server.Join(b.TB)
		g, err := sinks.NewGroup(client.Broker, name, o)
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan error, 1)
		r := new(groupRecorder)
		recorders[name] = r
		go func() { done <- g.Run(ctx, r.listener) }()
		b.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				b.Errorf("Run = %v, want nil", err)
			}
		})
		b.eventually("an owner for each partition", func() error {
			if n := len(g.Owned()); n != b.server.Partitions {
				return fmt.Errorf("%d of %d", n, b.server.Partitions)
			}
			return nil
		})
	}
	b.server.Store(b.TB, last)
	for name, w := range wants {
		b.Log(name)
		b.compare(recorders[name], w.heard)
	}
}
