package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// A SourceLag is how far a [Source] is behind its stream. How far a listener is
// behind its source, [listeners.Subscription.Lag] says.
type SourceLag struct {
	Messages uint64        // stored and not handed on yet
	Age      time.Duration // since the oldest of them was stored; 0 if there is none
}

// Lag asks the server how far the source is behind. It is zero before Run has
// begun.
func (s *Source) Lag(ctx context.Context) (SourceLag, error) {
	if !isClosed(s.ready) {
		return SourceLag{}, nil
	}
	stream, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		return SourceLag{}, fmt.Errorf("stream %s: lag: %w", s.stream, err)
	}
	state := stream.CachedInfo().State
	next := max(s.read.Load()+1, state.FirstSeq)
	if next > state.LastSeq {
		return SourceLag{}, nil
	}
	lag := SourceLag{Messages: state.LastSeq - next + 1}
	m, err := stream.GetMsg(ctx, next)
	switch {
	case errors.Is(err, natsjs.ErrMsgNotFound): // deleted, or taken by the limits just now
		return lag, nil
	case err != nil:
		return lag, fmt.Errorf("stream %s: lag: message %d: %w", s.stream, next, err)
	}
	lag.Age = max(0, time.Since(m.Time))
	return lag, nil
}
