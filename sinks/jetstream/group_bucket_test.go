package jetstream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/grid"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// join runs a member until the test ends or the returned function is called.
func join(t *testing.T, g *jetstream.Groups, o *sinks.GroupOptions, l listeners.Listener) func() error {
	t.Helper()
	group, err := sinks.NewGroup(g, "repricer", o)
	if err != nil {
		t.Fatalf("NewGroup: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- group.Run(ctx, func(sinks.GroupPartition) listeners.Listener { return l }) }()
	return sync.OnceValue(func() error {
		stop()
		return <-ended
	})
}

// checkpoints returns the next sequence of each partition, and who owns it.
func checkpoints(t *testing.T, nc *nats.Conn) (next []uint64, owners []string) {
	t.Helper()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), jetstream.DefaultGroupBucket)
	if err != nil {
		return nil, nil
	}
	keys, err := kv.Keys(t.Context())
	if err != nil {
		return nil, nil
	}
	sort.Strings(keys)
	for _, key := range keys {
		if !strings.Contains(key, ".lease.") {
			continue
		}
		e, err := kv.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var lease struct {
			Owner      string
			Checkpoint struct{ Next uint64 }
		}
		if err := json.Unmarshal(e.Value(), &lease); err != nil {
			t.Fatal(err)
		}
		next, owners = append(next, lease.Checkpoint.Next), append(owners, lease.Owner)
	}
	return next, owners
}

// A partition that gets nothing must not fall behind what the stream keeps.
func TestGroupCheckpointOfAQuietPartitionMoves(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	needs(t, nc, 11)
	f := open(t, nc, nil)
	store(t, f, []*listeners.Batch{sinktest.Transaction(1, 1)})
	g, err := jetstream.NewGroups(nc, "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	quiet := listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil })
	end := join(t, g, &sinks.GroupOptions{Start: sinks.GroupStart{Oldest: true}}, quiet)
	defer func() { _ = end() }()
	for commit := uint64(2); commit < 20; commit++ {
		b := sinktest.Transaction(commit, 1)
		b.Events[0].After = sinktest.Seat(1000) // one partition gets them all
		store(t, f, []*listeners.Batch{b})
	}
	eventually(t, "all checkpoints are at the end of the stream", func() bool {
		next, _ := checkpoints(t, nc)
		for _, n := range next {
			if n != 20 {
				return false
			}
		}
		return len(next) == sinks.DefaultPartitions
	})
	if err := end(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if _, owners := checkpoints(t, nc); strings.Join(owners, "") != "" {
		t.Errorf("after Run has returned, the partitions belong to %q, want nobody", owners)
	}
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "CDC_SHOP")
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan listeners.Position, 1)
	end = join(t, g, nil, listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		heard <- b.Position
		return nil
	}))
	defer func() { _ = end() }()
	store(t, f, []*listeners.Batch{sinktest.Transaction(30, 1)})
	eventually(t, "the only one behind the purge is heard", func() bool {
		select {
		case got := <-heard:
			if got != sinktest.At(30, 0) {
				t.Errorf("heard %s, want the only one behind the purge", got)
			}
			return true
		default:
			return false
		}
	})
	if err := end(); err != nil {
		t.Errorf("Run behind a purge of what was handled = %v, want nil", err)
	}
}

func TestGroupRefusesAnotherNumberOfPartitions(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	needs(t, nc, 11)
	store(t, open(t, nc, nil), []*listeners.Batch{sinktest.Transaction(1, 500)})
	run := func(partitions int, until func() bool) error {
		g, err := jetstream.NewGroups(nc, "shop", &jetstream.GroupsOptions{Partitions: partitions})
		if err != nil {
			t.Fatal(err)
		}
		group, err := sinks.NewGroup(g, "repricer", nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		ended := make(chan error, 1)
		go func() {
			ended <- group.Run(ctx, func(sinks.GroupPartition) listeners.Listener {
				return listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil })
			})
		}()
		if until != nil {
			eventually(t, "the group has begun", until)
			stop()
		}
		return <-ended
	}
	var wrong *jetstream.StreamError
	if err := run(32, func() bool { next, _ := checkpoints(t, nc); return len(next) == 32 }); err != nil {
		t.Errorf("Run with more partitions than the stream has = %v, want nil", err)
	}
	if err := run(16, nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "32") {
		t.Errorf("Run of a group of 32 partitions with 16 = %v, want a StreamError with the remedy", err)
	}
}

// What is in a partition that the group does not read would be missed.
func TestGroupRefusesTooFewPartitions(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	needs(t, nc, 11)
	store(t, open(t, nc, nil), []*listeners.Batch{sinktest.Transaction(1, 500)})
	g, err := jetstream.NewGroups(nc, "shop", &jetstream.GroupsOptions{Partitions: 8})
	if err != nil {
		t.Fatal(err)
	}
	group, err := sinks.NewGroup(g, "repricer", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	err = group.Run(ctx, func(sinks.GroupPartition) listeners.Listener {
		return listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil })
	})
	var wrong *jetstream.StreamError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "Partitions") {
		t.Errorf("Run with 8 partitions on a stream with 16 = %v, want a StreamError with the remedy", err)
	}
	if next, _ := checkpoints(t, nc); len(next) > 0 {
		t.Errorf("there are %d checkpoints, want none, so that the group can begin with the right number", len(next))
	}
}

func TestGroupWithoutAStream(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	needs(t, nc, 11)
	g, err := jetstream.NewGroups(nc, "shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	group, err := sinks.NewGroup(g, "repricer", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	err = group.Run(ctx, func(sinks.GroupPartition) listeners.Listener { return nil })
	var wrong *jetstream.StreamError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "no such stream") {
		t.Errorf("Run = %v, want a StreamError that says so", err)
	}
}

func TestGroupOfARegion(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	needs(t, nc, 11)
	shop := grid.New("shop", nil)
	defer func() { _ = shop.Close(context.WithoutCancel(t.Context())) }()
	seats, err := grid.Open[string, int](shop, "seats", nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := jetstream.NewRegion(nc, "shop", "seats", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := seats.Put(t.Context(), "before", 0); err != nil {
		t.Fatal(err)
	}
	sub, err := seats.Subscribe("firehose", f, &listeners.SubscribeOptions{Current: true})
	if err != nil {
		t.Fatal(err)
	}
	<-sub.Live()
	g, err := jetstream.NewRegionGroups(nc, "shop", "seats", nil)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1000)
	end := join(t, g, &sinks.GroupOptions{Start: sinks.GroupStart{Oldest: true}}, listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
		for i := range b.Events {
			heard <- b.Events[i].Op.String() + " " + b.Events[i].Key().String()
		}
		return nil
	}))
	defer func() { _ = end() }()
	want := map[string]bool{"read before": true}
	for i := range 100 {
		key := fmt.Sprint("12-", i)
		want["create "+key] = true
		if _, err := seats.Put(t.Context(), key, i); err != nil {
			t.Fatal(err)
		}
	}
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for len(want) > 0 {
		select {
		case line := <-heard:
			if !want[line] {
				t.Errorf("heard %q, which is not expected (any more)", line)
			}
			delete(want, line)
		case <-timeout.C:
			t.Fatalf("%d entries were not heard", len(want))
		}
	}
	if err := end(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}
