package sinks

import (
	"context"
	"errors"

	"github.com/rowcall/rowcall/listeners"
)

// waitReady returns nil when Run knows where it begins.
func (s *Source) waitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-s.ended:
		return listeners.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// beginsAt answers for [listeners.FeedOptions].Begin.
func (s *Source) beginsAt(ctx context.Context) (listeners.Position, error) {
	if err := s.waitReady(ctx); err != nil {
		return listeners.Position{}, err
	}
	return s.begin, nil
}

// replay implements [listeners.Replay].
//
// Nothing is lost or told twice: the subscription is in the feed already, so
// what was read before that is in the log, where the tip is looked up
// afterwards; and of what the feed holds, the position of the last message read
// here says which batches were told.
func (s *Source) replay(ctx context.Context, from listeners.Position, emit func(*listeners.Batch) error) (listeners.Position, error) {
	if err := s.waitReady(ctx); err != nil {
		return listeners.Position{}, err
	}
	s.replaying.Add(1)
	defer s.replaying.Add(-1)
	at, err := s.tellAfter(ctx, from, emit)
	if _, gone := errors.AsType[*HistoryError](err); gone {
		s.opts.Logger.WarnContext(ctx, "a subscription cannot go on where it was", "log", s.log.Name(), "position", from.String(), "error", err)
		err = &listeners.HistoryError{Asked: from}
	}
	return at, err
}

// tellAfter tells what the log holds behind a position, up to the tip and the end
// of the transaction there.
func (s *Source) tellAfter(ctx context.Context, from listeners.Position, emit func(*listeners.Batch) error) (listeners.Position, error) {
	reader, place, err := s.log.Seek(ctx, Start{After: from})
	if err != nil {
		return listeners.Position{}, err
	}
	defer reader.Close()
	assembler := s.assembler(s.wanted)
	if place.Open {
		assembler.Follow(place.Position)
	}
	end := func() (listeners.Position, error) {
		if last := assembler.Last(); last.Compare(from) > 0 {
			return last, nil
		}
		return from, nil
	}
	for {
		list, err := reader.Next(ctx)
		if err != nil {
			return listeners.Position{}, err
		}
		for i := range list {
			p, ok, err := s.decode(ctx, reader, &list[i])
			if err != nil {
				return listeners.Position{}, err
			}
			if ok {
				if err := assembler.Add(&p, emit); err != nil {
					return listeners.Position{}, err
				}
			}
			if list[i].Tip && assembler.Idle() {
				return end()
			}
		}
		if err := assembler.Flush(emit); err != nil {
			return listeners.Position{}, err
		}
		if len(list) == 0 && assembler.Idle() {
			return end()
		}
	}
}
