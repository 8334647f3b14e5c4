package listenertest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// An Event is what a [Recorder] remembers of one event. Records are their JSON,
// "null" if absent.
type Event struct {
	Op         listeners.Op
	Cause      listeners.Cause
	Collection string
	Key        string // as listeners.Key.String returns it
	OldKey     string // of an update that changed the key
	Before     string
	After      string
	Unchanged  []string // columns that the source did not send of After
	Position   listeners.Position
}

// String returns one readable line, such as
// "update public.seats/7: {"id": 7} -> {"id": 7, "price": 20}".
func (e Event) String() string {
	return fmt.Sprintf("%s %s/%s: %s -> %s", e.Op, e.Collection, e.Key, e.Before, e.After)
}

// A Batch is what a [Recorder] remembers of one batch.
type Batch struct {
	Kind        listeners.Kind
	Tx          listeners.Tx
	Position    listeners.Position
	First, Last bool
	Collections []string // of a Reset
	Events      []Event
}

// A Recorder is a [listeners.Listener] that remembers every batch. The zero
// Recorder is ready. All methods may be called from any goroutine.
type Recorder struct {
	// Err, if it is set, is asked before each batch; its error is returned
	// instead of recording.
	Err func(*listeners.Batch) error

	mu      sync.Mutex
	batches []Batch
	changed chan struct{}
}

// OnBatch implements [listeners.Listener].
func (r *Recorder) OnBatch(_ context.Context, b *listeners.Batch) error {
	if r.Err != nil {
		if err := r.Err(b); err != nil {
			return err
		}
	}
	kept := Batch{Kind: b.Kind, Tx: b.Tx, Position: b.Position, First: b.First, Last: b.Last, Collections: b.Collections}
	for i := range b.Events {
		kept.Events = append(kept.Events, keep(&b.Events[i]))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, kept)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
	return nil
}

func keep(e *listeners.Event) Event {
	k := Event{
		Op: e.Op, Cause: e.Cause, Collection: e.Schema.Collection(), Key: e.Key().String(),
		Before: string(e.Before.AppendJSON(nil)), After: string(e.After.AppendJSON(nil)),
		Unchanged: e.After.Unchanged(), Position: e.Position,
	}
	if old, changed := e.ChangedKey(); changed {
		k.OldKey = old.String()
	}
	return k
}

// Batches returns all batches so far, markers included.
func (r *Recorder) Batches() []Batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.batches)
}

// Events returns the events of all batches so far.
func (r *Recorder) Events() []Event {
	var events []Event
	for _, b := range r.Batches() {
		events = append(events, b.Events...)
	}
	return events
}

// Wait returns all batches as soon as ok accepts them, or with ctx's error.
func (r *Recorder) Wait(ctx context.Context, ok func([]Batch) bool) ([]Batch, error) {
	for {
		r.mu.Lock()
		batches := slices.Clone(r.batches)
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if ok(batches) {
			return batches, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return batches, fmt.Errorf("listenertest: after %d batches: %w", len(batches), context.Cause(ctx))
		}
	}
}

// WaitEvents returns all events as soon as there are n, or with ctx's error.
func (r *Recorder) WaitEvents(ctx context.Context, n int) ([]Event, error) {
	_, err := r.Wait(ctx, func(batches []Batch) bool {
		count := 0
		for _, b := range batches {
			count += len(b.Events)
		}
		return count >= n
	})
	return r.Events(), err
}
