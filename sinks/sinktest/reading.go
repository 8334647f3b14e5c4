package sinktest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
	"github.com/rowcall/rowcall/sinks"
)

// Subscribe subscribes under the name "test".
func Subscribe(t testing.TB, s *sinks.Source, l listeners.Listener, opts *listeners.SubscribeOptions) *listeners.Subscription {
	t.Helper()
	sub, err := s.Subscribe("test", l, opts)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	return sub
}

// Start runs a source until the test ends, or the returned function is called,
// which returns what Run did. It returns when the source is ready.
func Start(t testing.TB, s *sinks.Source) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var err error
	stopped := false
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			err = <-ended
		}
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Logf("Run = %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err = <-ended:
		stopped = true
		t.Fatalf("Run = %v before it was ready", err)
	}
	return stop
}

// Recorded are batches as a recorder keeps them.
func Recorded(batches ...*listeners.Batch) []listenertest.Batch {
	r := new(listenertest.Recorder)
	for _, b := range batches {
		_ = r.OnBatch(context.Background(), b)
	}
	return r.Batches()
}

// Events returns a line for each event.
func Events(batches []listenertest.Batch) []string {
	var lines []string
	for _, b := range batches {
		for _, e := range b.Events {
			lines = append(lines, fmt.Sprintf("%s %s %s", e.Op, e.Key, e.Position))
		}
	}
	return lines
}

// Told describes batches, a line for each and one for each event. Snapshots are
// cut into batches as it happens, so their rows count as one.
func Told(batches []listenertest.Batch) []string {
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

// Whole are the batches that a reader of a [History] is told, from its beginning
// to the tip: its transactions are whole, and Live comes at the tip alone.
func Whole(history []*listeners.Batch) []*listeners.Batch {
	var want []*listeners.Batch
	for i := 0; i < len(history); i++ {
		b := *history[i]
		switch {
		case b.Kind == listeners.Live, b.Kind == listeners.Changes && len(b.Events) == 0:
			continue
		case b.Kind == listeners.Changes && !b.Last: // small enough to be whole
			rest := history[i+1]
			b.Events = append(slices.Clip(b.Events), rest.Events...)
			b.Last, b.Position = true, rest.Position
			i++
		case b.Kind == listeners.Reset && i == 0:
			b.Position, b.Tx = history[1].Events[0].Position, history[1].Tx // it is not stored, and told right before that
			b.Position.Index--
		}
		want = append(want, &b)
	}
	last := want[len(want)-1]
	return append(want, &listeners.Batch{Kind: listeners.Live, Tx: last.Tx, Position: last.Position, First: true, Last: true})
}
