package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/listeners"
	rowcalljs "github.com/rowcall/rowcall/sinks/jetstream"
)

// A cutSink cuts the journal when the first rows come, the first times, and has
// nothing stored for good until then, as an open transaction of Kafka.
type cutSink struct {
	cut func(round int)

	mu     sync.Mutex
	rounds int // begun
	begun  bool
	at     listeners.Position
	last   string // the key of the last row
}

const (
	cuts    = 3
	cutRows = 40_000 // more than a reader has fetched ahead, several times
)

func (s *cutSink) OnBatch(_ context.Context, b *listeners.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b.Events) == 0 {
		return nil
	}
	if !s.begun {
		s.begun = true
		s.rounds++
		if s.rounds <= cuts {
			s.cut(s.rounds)
		}
	}
	s.at, s.last = b.Position, b.Events[len(b.Events)-1].Key().String()
	return nil
}

func (s *cutSink) Stored() listeners.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rounds <= cuts && s.last != strconv.Itoa(cutRows) {
		return listeners.Position{}
	}
	return s.at
}

func (*cutSink) Stalled() <-chan struct{} { return nil }

func (*cutSink) Flush(context.Context) error { return nil }

func TestJournalThatIsCutWithinASnapshotAgainAndAgainIsSkipped(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Database(t)
	pgtest.Exec(t, databaseURL, fmt.Sprintf("CREATE TABLE seats (id int PRIMARY KEY); INSERT INTO seats SELECT generate_series(1, %d)", cutRows))
	server := natstest.Run(t)
	startRun(t, "--database-url", databaseURL, "--nats-url", server.URL(), "--state-dir", t.TempDir(), "--until-caught-up").finish(t)
	name := rowcalljs.StreamName(databaseOf(t, databaseURL))
	stream, err := natstest.JetStream(t, server).Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	sink := &cutSink{cut: func(round int) {
		if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(uint64(1000+round*9000))); err != nil {
			t.Error(err)
		}
	}}
	f := &follower{
		destination: &destination{name: "cut", options: &targetOptions{skipGap: true}},
		journal: &journal{
			nc: natstest.Connect(t, server), stream: name,
			positions: listeners.NewFilePositions(t.TempDir()), log: slog.New(slog.DiscardHandler),
		},
		open: func(_ context.Context, d *destination) error {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			sink.begun, d.listener = false, sink
			return nil
		},
	}
	if err := f.run(t.Context(), true); err != nil {
		t.Errorf("run = %v, want nil: each gap is skipped", err)
	}
	if sink.last != strconv.Itoa(cutRows) {
		t.Errorf("after %d rounds the last row is %q, want %d", sink.rounds, sink.last, cutRows)
	}
	if sink.rounds <= cuts { // a reader that has fetched what is cut meets no gap
		t.Logf("only %d of %d cuts were met", sink.rounds-1, cuts)
	}
}
