package listeners_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/rowcall/rowcall/listeners"
)

// Rows that a source reads again while changes come, without a Reset, say nothing
// of other rows: what is parked of those stays good. What is parked of the rows
// that were read comes before them.
func TestRowsReadAgainWaitBehindWhatIsParked(t *testing.T) {
	for name, tc := range map[string]struct {
		workers int
		group   *listeners.GroupPolicy
	}{"alone": {}, "two workers": {workers: 2}, "groups": {group: new(listeners.GroupPolicy)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := listeners.NewFeed(nil)
				l := newSick(1, 2)
				opts := parks(listeners.RetryPolicy{})
				opts.Workers, opts.Group = tc.workers, tc.group
				sub := subscribe(t, f, "s", singly{l}, opts, nil)
				gone := updated(seats, 1, 1)
				gone.Op, gone.OldKey, gone.After = listeners.Delete, gone.After, listeners.Record{}
				f.Append(batch(1, gone))
				synctest.Wait()
				f.Append(batch(2, updated(seats, 2, 2)))
				wantParked(t, sub, "1:1#1!(s1), 2:2#1!(s2)")
				f.Append(marker(listeners.Snapshot, 3, created(seats, 3)))
				synctest.Wait()
				f.Append(marker(listeners.Snapshot, 4, created(seats, 2)))
				f.Append(batch(5, updated(seats, 3, 3)))
				f.Append(batch(6, updated(seats, 2, 2)))
				wantHeard(t, &l.Recorder, "snapshot 3:(s3), 5:(s3)")
				wantParked(t, sub, "1:1#1!(s1), 2:2#1!(s2), 3:4#0<2(s2), 4:6#0<2(s2)")
				if got := sub.Stored(); !got.IsZero() {
					t.Errorf("Stored() = %s, want none, since the first batch is parked", got)
				}
				l.commits = nil
				if err := errors.Join(sub.RetryParked(t.Context(), 1), sub.RetryParked(t.Context(), 2)); err != nil {
					t.Error(err)
				}
				wantHeard(t, &l.Recorder, "snapshot 3:(s3), 5:(s3), 1:(s1), 2:(s2), snapshot 4:(s2), 6:(s2)")
				wantParked(t, sub, "")
			})
		})
	}
}

// A singly is a listener that takes a group one by one.
type singly struct{ *sick }

func (s singly) OnBatches(ctx context.Context, batches []*listeners.Batch) error {
	for _, b := range batches {
		if err := s.OnBatch(ctx, b); err != nil {
			return err
		}
	}
	return nil
}
