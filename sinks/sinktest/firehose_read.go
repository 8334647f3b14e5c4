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

// A heard collects the events that a listener hears, a line for each.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) OnBatch(_ context.Context, b *listeners.Batch) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, told(b)...)
	return nil
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// told are the lines of batches.
func told(batches ...*listeners.Batch) []string {
	var lines []string
	for _, b := range batches {
		for i := range b.Events {
			e := &b.Events[i]
			end := b.Last && i == len(b.Events)-1
			lines = append(lines, fmt.Sprintf("%s %s %s %t %s", e.Op, e.Position, e.Key(), end, e.After.AppendJSON(nil)))
		}
	}
	return lines
}

func firehoseRead(r *rig) {
	if r.server.Unfenced {
		r.Skip("what is stored without transactions cannot be read in order")
	}
	// The last batch shows that all before it is read.
	var history []*listeners.Batch
	for _, b := range History(r.random(), 600) {
		if b.First && b.Last { // otherwise a reader hears one batch for two
			history = append(history, b)
		}
	}
	history = append(history, Transaction(1<<30, 3))
	half := slices.IndexFunc(history[len(history)/2:], func(b *listeners.Batch) bool {
		return b.Kind == listeners.Changes && len(b.Events) > 0
	}) + len(history)/2 + 1
	f := r.open(FirehoseSetup{}).Firehose
	r.store(f, history[:half])
	moment := time.NewTimer(20 * time.Millisecond) // servers have their own clocks' precision
	<-moment.C
	between := time.Now()
	r.store(f, history[half:])

	for name, tc := range map[string]struct {
		from sinks.Start
		want []string
	}{
		"from the oldest":  {sinks.Start{Oldest: true}, told(history...)},
		"from a position":  {sinks.Start{After: history[half-1].Position}, told(history[half:]...)},
		"from a time":      {sinks.Start{Time: between}, told(history[half:]...)},
		"from now, at end": {sinks.Start{}, nil},
	} {
		ctx, cancel := r.patient()
		var got heard
		if err := f.Read(ctx, tc.from, &got, &sinks.SourceOptions{UntilTip: true}); err != nil {
			r.Errorf("Read %s = %v, want nil at the tip", name, err)
		}
		cancel()
		if diff := cmp.Diff(tc.want, got.all()); diff != "" {
			r.Errorf("Read %s (-want +got):\n%.2000s", name, diff)
		}
	}

	// It follows, while the firehose stores.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var got heard
	read := make(chan error, 1)
	go func() { read <- f.Read(ctx, sinks.Start{After: history[half-1].Position}, &got, nil) }()
	more := []*listeners.Batch{Transaction(1<<31, 5), Transaction(1<<31+1, 7)}
	r.store(f, more)
	want := told(append(slices.Clone(history[half:]), more...)...)
	r.eventually("everything is read", func() bool { return len(got.all()) >= len(want) })
	cancel()
	if err := <-read; err != nil {
		r.Errorf("Read whose context ends = %v, want nil", err)
	}
	if diff := cmp.Diff(want, got.all()); diff != "" {
		r.Errorf("Read that follows (-want +got):\n%.2000s", diff)
	}

	broken := errors.New("no more")
	err := f.Read(r.Context(), sinks.Start{Oldest: true}, listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return broken }), nil)
	if e := as[*listeners.ListenerError](r, "Read with a listener that fails", err); !errors.Is(e, broken) {
		r.Errorf("Read with a listener that fails = %v, want its error", err)
	}
}
