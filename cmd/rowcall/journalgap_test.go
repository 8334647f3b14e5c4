package main

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/listeners"
)

func gapBatch(kind listeners.Kind, commit uint64) *listeners.Batch {
	at := listeners.Position{Epoch: 1, Commit: commit}
	b := &listeners.Batch{Kind: kind, Position: at, First: true, Last: true}
	if kind == listeners.Snapshot || kind == listeners.Changes {
		b.Events = []listeners.Event{{Position: at}}
	}
	return b
}

func TestGapGuardHandsOverNoResetOfAGap(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		batches []*listeners.Batch
		want    []listeners.Kind
		gap     bool
	}{
		"gap":                  {[]*listeners.Batch{gapBatch(listeners.Changes, 10), gapBatch(listeners.Reset, 20), gapBatch(listeners.Snapshot, 5)}, []listeners.Kind{listeners.Changes}, true},
		"snapshot that stored": {[]*listeners.Batch{gapBatch(listeners.Changes, 10), gapBatch(listeners.Reset, 20), gapBatch(listeners.Snapshot, 21)}, []listeners.Kind{listeners.Changes, listeners.Reset, listeners.Snapshot}, false},
		"no rows":              {[]*listeners.Batch{gapBatch(listeners.Reset, 20), gapBatch(listeners.Live, 21)}, []listeners.Kind{listeners.Reset, listeners.Live}, false},
		"two resets":           {[]*listeners.Batch{gapBatch(listeners.Reset, 20), gapBatch(listeners.Reset, 22), gapBatch(listeners.Snapshot, 23)}, []listeners.Kind{listeners.Reset, listeners.Reset, listeners.Snapshot}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []listeners.Kind
			g := &gapGuard{stream: "CDC_shop", name: "kafka", listener: listeners.ListenerFunc(func(_ context.Context, b *listeners.Batch) error {
				got = append(got, b.Kind)
				return nil
			})}
			var err error
			for _, b := range tc.batches {
				if err = g.OnBatch(t.Context(), b); err != nil {
					break
				}
			}
			if _, gap := errors.AsType[*gapError](err); gap != tc.gap || err != nil && !gap {
				t.Errorf("OnBatch = %v, want a gap %v", err, tc.gap)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("handed over (-want +got):\n%s", diff)
			}
		})
	}
}
