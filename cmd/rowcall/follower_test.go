package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A stuckSink stores resets, and hangs at the first row.
type stuckSink struct {
	mu     sync.Mutex
	stored listeners.Position
	stuck  chan struct{}
}

func (s *stuckSink) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if b.Kind != listeners.Snapshot {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stored = b.Position
		return nil
	}
	close(s.stuck)
	<-ctx.Done()
	return context.Cause(ctx)
}

func (s *stuckSink) Stored() listeners.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored
}

func (*stuckSink) Stalled() <-chan struct{} { return nil }

func (*stuckSink) Flush(context.Context) error { return nil }

// The reset with which a reader lets a stream's first snapshot begin is nothing
// to go on behind: the snapshot that it begins has not come.
func TestFollowerDoesNotGoOnBehindAResetAlone(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Database(t)
	pgtest.Exec(t, databaseURL, "CREATE TABLE seats (id int PRIMARY KEY); INSERT INTO seats VALUES (1), (2)")
	server := natstest.Run(t)
	startRun(t, "--database-url", databaseURL, "--nats-url", server.URL(), "--state-dir", t.TempDir(), "--until-caught-up").finish(t)

	sink := &stuckSink{stuck: make(chan struct{})}
	positions := listeners.NewFilePositions(t.TempDir())
	f := &follower{
		destination: &destination{name: "stuck", options: new(targetOptions)},
		journal: &journal{
			nc: natstest.Connect(t, server), stream: jetstream.StreamName(databaseOf(t, databaseURL)),
			positions: positions, log: slog.New(slog.DiscardHandler),
		},
		open: func(_ context.Context, d *destination) error { d.listener = sink; return nil },
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.run(ctx, false) }()
	select {
	case <-sink.stuck:
	case err := <-ended:
		t.Fatalf("run = %v before the first row came", err)
	case <-time.After(patience):
		t.Fatal("no row comes")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run = %v, want nil at its end", err)
	}
	if sink.Stored().IsZero() {
		t.Error("no reset came before the first row")
	}
	var at listeners.Position
	// A process that another test forks right now has the lock until it is executed.
	pgtest.Eventually(t, patience, func() error {
		keeper, stored, err := positions.Open(t.Context(), f.journal.stream+"/stuck")
		if err != nil {
			return err
		}
		at = stored
		return keeper.Close()
	})
	if !at.IsZero() {
		t.Errorf("the place in the journal is %s: whoever goes on there hears the rows without their reset", at)
	}
}

func TestFollowerSkipsEveryGap(t *testing.T) {
	t.Parallel()
	f := &follower{
		destination: &destination{name: "kafka", options: &targetOptions{skipGap: true}},
		journal: &journal{
			stream: "CDC_shop", positions: listeners.NewFilePositions(t.TempDir()), log: slog.New(slog.DiscardHandler),
		},
	}
	f.journal.save(t, "kafka", listeners.Position{Epoch: 1, Commit: 10})
	last := errors.New("enough")
	calls := 0
	f.open = func(context.Context, *destination) error {
		switch calls++; calls {
		case 2: // it went on with the oldest, and far
			f.reach(listeners.Position{Epoch: 1, Commit: 20})
		case 4: // the third one without an event between
			return last
		}
		return &gapError{stream: "CDC_shop", name: "kafka", after: f.stored()}
	}
	if err := f.run(t.Context(), false); !errors.Is(err, last) {
		t.Errorf("run = %v after %d openings, want %v: each gap is skipped", err, calls, last)
	}
}

// save stores a place in the journal.
func (j *journal) save(t *testing.T, name string, at listeners.Position) {
	t.Helper()
	keeper, _, err := j.positions.Open(t.Context(), j.stream+"/"+name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(keeper.Save(t.Context(), at), keeper.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFollowerWaitsForWhatMayPass(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"broker away":       {&sinks.UnreachableError{Broker: "Kafka", Err: io.EOF}, true},
		"no answer in time": {fmt.Errorf("topic: %w", context.DeadlineExceeded), true},
		"journal away":      {fmt.Errorf("stream CDC_shop: %w", nats.ErrNoResponders), true},
		"second writer":     {&sinks.FencedError{}, false},
		"unfit topic":       {&sinks.PlaceError{Place: "topic a", Reason: "it is gone"}, false},
	} {
		if got := passes(tc.err); got != tc.want {
			t.Errorf("%s: passes(%v) = %v, want %v", name, tc.err, got, tc.want)
		}
	}
}
