package sinks

import (
	"context"
	"errors"

	"github.com/rowcall/rowcall/listeners"
)

// A sum is the present state, and where the log goes on behind it.
type sum struct {
	state  *State
	reader LogReader
	rest   []LogMessage // of the reader's last slice
	place  uint64       // of the last message that is in the state
}

// join implements [listeners.Join].
//
// Nothing is lost or told twice: the subscription is in the feed already, so
// what was read before that is in the log, hence in the state, which is read
// afterwards; and of what the feed holds, the state's position says which
// batches are in it.
func (s *Source) join(ctx context.Context, wanted func(*listeners.Event) bool, emit func(*listeners.Batch) error) (listeners.Position, error) {
	if err := s.waitReady(ctx); err != nil {
		return listeners.Position{}, err
	}
	sum, err := s.state(ctx, wanted)
	if err != nil {
		return listeners.Position{}, err
	}
	sum.reader.Close()
	return sum.state.Position(), sum.state.Tell(emit)
}

// state adds up the present state. If history is gone while it reads, it begins
// again.
func (s *Source) state(ctx context.Context, wanted func(*listeners.Event) bool) (*sum, error) {
	const tries = 5
	for i := 1; ; i++ {
		sum, err := s.addUp(ctx, wanted)
		var gone *HistoryError
		if err == nil || i == tries || !errors.As(err, &gone) {
			return sum, err
		}
	}
}

func (s *Source) addUp(ctx context.Context, wanted func(*listeners.Event) bool) (*sum, error) {
	reader, place, err := s.log.SeekState(ctx)
	if err != nil {
		return nil, err
	}
	c := &sum{state: new(State), reader: reader, place: place.Place}
	if err := s.addAll(ctx, c, &take{assembler: s.assembler(wanted), fresh: place.Origin}); err != nil {
		reader.Close()
		return nil, err
	}
	return c, nil
}

// addAll reads up to the tip, and to the end of the transaction there.
func (s *Source) addAll(ctx context.Context, c *sum, t *take) error {
	for {
		list, err := c.reader.Next(ctx)
		if err != nil {
			return err
		}
		for i := range list {
			p, ok, err := s.decode(ctx, c.reader, &list[i])
			if err != nil {
				return err
			}
			if ok {
				if t.fresh && p.Kind == listeners.Snapshot {
					t.assembler.Begin()
				}
				t.fresh = false
				if err := t.assembler.Add(&p, c.state.Apply); err != nil {
					return err
				}
			}
			c.place = list[i].Place
			if list[i].Tip && t.assembler.Idle() {
				c.rest = list[i+1:]
				c.state.Reach(t.assembler.Last())
				return nil
			}
		}
		if len(list) == 0 && t.assembler.Idle() { // none is left, or all that was left is deleted
			c.state.Reach(t.assembler.Last())
			return nil
		}
	}
}
