package jetstream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// source returns a source that is not running.
func source(t testing.TB, nc *nats.Conn, opts *jetstream.SourceOptions) *jetstream.Source {
	t.Helper()
	s, err := jetstream.NewSource(nc, "CDC_SHOP", opts)
	if err != nil {
		t.Fatalf("NewSource: %v", err)
	}
	return s
}

func subscribe(t testing.TB, s *jetstream.Source, l listeners.Listener, opts *listeners.SubscribeOptions) *listeners.Subscription {
	t.Helper()
	sub, err := s.Subscribe("test", l, opts)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	return sub
}

// start runs a source until the test ends, or the returned function is called,
// which returns what Run did.
func start(t testing.TB, s *jetstream.Source) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var err error
	stopped := false
	stop := func() error {
		if !stopped {
			stopped = true
			cancel()
			err = <-ended
		}
		return err
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case <-s.Ready():
	case err = <-ended:
		stopped = true
		t.Fatalf("Run = %v before it was ready", err)
	}
	return stop
}

// told describes batches, a line for each and one for each event. Snapshots are
// cut into batches as it happens, so their rows count as one.
func told(batches []listenertest.Batch) []string {
	var lines []string
	for _, b := range batches {
		if b.Kind != listeners.Snapshot {
			lines = append(lines, fmt.Sprintf("%s %d %s %t %t %s", b.Kind, b.Tx.ID, b.Tx.Time.UTC().Format(time.TimeOnly), b.First, b.Last, b.Position))
		}
		for _, e := range b.Events {
			lines = append(lines, fmt.Sprintf("  %s %s %s", e, e.Cause, e.Position))
		}
	}
	return lines
}

func recorded(batches ...*listeners.Batch) []listenertest.Batch {
	r := new(listenertest.Recorder)
	for _, b := range batches {
		_ = r.OnBatch(context.Background(), b) //nolint:usetesting // it does not look at it
	}
	return r.Batches()
}

// A listener of the stream hears the batches that one of the database hears.
func TestSourceTellsTheBatchesOfTheDatabase(t *testing.T) {
	nc := connect(t, natstest.Run(t))
	f := open(t, nc, nil)
	batches := history(random(t, 50), 3000)
	store(t, f, batches)

	var want []*listeners.Batch
	for i := 0; i < len(batches); i++ {
		b := *batches[i]
		switch {
		case b.Kind == listeners.Live:
			continue // see below
		case b.Kind == listeners.Changes && len(b.Events) == 0:
			continue
		case b.Kind == listeners.Changes && !b.Last: // small enough to be whole
			rest := batches[i+1]
			b.Events = append(b.Events[:len(b.Events):len(b.Events)], rest.Events...)
			b.Last, b.Position = true, rest.Position
			i++
		case b.Kind == listeners.Reset && i == 0:
			b.Position = batches[1].Events[0].Position // it is not stored
			b.Tx = batches[1].Tx
		}
		want = append(want, &b)
	}
	last := want[len(want)-1]
	want = append(want, &listeners.Batch{Kind: listeners.Live, Tx: last.Tx, Position: last.Position, First: true, Last: true})

	r := new(listenertest.Recorder)
	s := source(t, nc, &jetstream.SourceOptions{Start: jetstream.Start{Oldest: true}, UntilTip: true})
	subscribe(t, s, r, nil)
	if err := s.Run(t.Context()); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if diff := cmp.Diff(told(recorded(want...)), told(r.Batches())); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}
