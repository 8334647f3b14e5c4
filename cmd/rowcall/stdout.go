package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	lineBuffer = 64 << 10
	// idleFlush is how long a line may wait for company before it is written.
	idleFlush = 2 * time.Millisecond
)

// A lineSink writes one CloudEvents JSON object per line. An event counts as
// stored when its line was written to the file and not only to the buffer.
//
// It is a [listeners.Durable]: the timer that runs while lines wait reports a
// stall, and the subscription then flushes on its own goroutine.
type lineSink struct {
	w       *bufio.Writer
	line    []byte
	idle    *time.Timer
	stalled chan struct{}

	mu     sync.Mutex
	taken  listeners.Position
	stored listeners.Position
}

var _ listeners.Durable = (*lineSink)(nil)

func newLineSink(w io.Writer) *lineSink {
	s := &lineSink{w: bufio.NewWriterSize(w, lineBuffer), stalled: make(chan struct{}, 1)}
	s.idle = time.AfterFunc(time.Hour, s.ring)
	s.idle.Stop()
	return s
}

func (s *lineSink) ring() {
	select {
	case s.stalled <- struct{}{}:
	default:
	}
}

// OnBatch implements [listeners.Listener].
func (s *lineSink) OnBatch(_ context.Context, b *listeners.Batch) error {
	if b.Kind == listeners.Reset && s.taken.IsZero() {
		return nil // nothing was written that the reader would have to forget
	}
	waiting := s.w.Buffered() > 0
	for i := range sinks.Len(b) {
		s.line = append(sinks.AppendCloudEvent(s.line[:0], b, i), '\n')
		if _, err := s.w.Write(s.line); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = b.Position
	switch {
	case s.w.Buffered() == 0:
		s.stored = b.Position
	case !waiting:
		s.idle.Reset(idleFlush)
	}
	return nil
}

// Stored implements [listeners.Durable].
func (s *lineSink) Stored() listeners.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored
}

// Stalled implements [listeners.Durable].
func (s *lineSink) Stalled() <-chan struct{} { return s.stalled }

// Flush implements [listeners.Durable].
func (s *lineSink) Flush(context.Context) error {
	s.idle.Stop()
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = s.taken
	return nil
}
