package jetstream

import (
	"context"
	"errors"
	"fmt"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// begin finds the place where Run begins.
func (s *Source) begin(ctx context.Context, c *cursor) (*take, error) {
	t := &take{assembler: s.assembler(s.wanted), live: !s.opts.Start.isNow()}
	info, err := c.info(ctx)
	if err != nil {
		return nil, err
	}
	c.created = info.Created
	t.tip = info.State.LastSeq
	err = c.persist(ctx, func(ctx context.Context) error {
		c.next, err = s.place(ctx, info, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	t.fresh = c.next == origin(info)
	if t.lost || c.next <= info.State.FirstSeq || info.State.Msgs == 0 {
		return t, nil
	}
	err = c.persist(ctx, func(ctx context.Context) error {
		at, open, err := s.before(ctx, c.next)
		t.at = at
		if open {
			t.assembler.Follow(at)
		}
		return err
	})
	return t, err
}

// place returns the sequence for Start.
func (s *Source) place(ctx context.Context, info *natsjs.StreamInfo, t *take) (uint64, error) {
	start := s.opts.Start
	state := &info.State
	cut := state.FirstSeq > origin(info) && !compacted(info) // the limits have taken something
	switch {
	case !start.After.IsZero():
		stream, err := s.js.Stream(ctx, s.stream)
		if err != nil {
			return 0, err
		}
		seq, err := sequenceAfter(ctx, stream, start.After)
		if err != nil {
			return 0, err
		}
		t.lost = cut && seq <= state.FirstSeq
		return seq, nil
	case start.Sequence > 0:
		t.lost = cut && start.Sequence < state.FirstSeq
		return min(max(start.Sequence, state.FirstSeq, 1), state.LastSeq+1), nil
	case !start.Time.IsZero():
		return s.timePlace(ctx, info)
	case start.Oldest:
		return max(state.FirstSeq, 1), nil
	}
	return state.LastSeq + 1, nil
}

// timePlace returns the sequence of the first message that was stored at or
// after the time, by bisection: a consumer that is asked does not notice at once
// that ctx has ended.
func (s *Source) timePlace(ctx context.Context, info *natsjs.StreamInfo) (uint64, error) {
	stream, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		return 0, err
	}
	low, high := max(info.State.FirstSeq, 1), info.State.LastSeq+1
	for low < high {
		middle := low + (high-low)/2
		m, err := stream.GetMsg(ctx, middle, natsjs.WithGetMsgSubject(">")) // or the next one that is left
		switch {
		case errors.Is(err, natsjs.ErrMsgNotFound):
			high = middle
		case err != nil:
			return 0, fmt.Errorf("message %d: %w", middle, err)
		case m.Sequence < high && m.Time.Before(s.opts.Start.Time):
			low = m.Sequence + 1
		default:
			high = middle
		}
	}
	return low, nil
}

// before returns the position of the message before seq, and whether its
// transaction may go on.
func (s *Source) before(ctx context.Context, seq uint64) (at listeners.Position, open bool, err error) {
	stream, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		return at, false, err
	}
	m, err := stream.GetMsg(ctx, seq-1)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return at, false, nil
	}
	if err != nil {
		return at, false, fmt.Errorf("stream %s: message %d: %w", s.stream, seq-1, err)
	}
	at, err = listeners.ParsePosition(m.Header.Get(headerSequence))
	if err != nil {
		return at, false, nil //nolint:nilerr // no event, which is no part of a transaction
	}
	return at, m.Header.Get(attributePrefix+"txend") == "" && m.Header.Get(attributePrefix+"txid") != "", nil
}

// join implements [listeners.Join].
//
// Nothing is lost or told twice: the subscription is in the feed already, so
// what was read before that is in the stream, hence in the state, which is read
// afterwards; and of what the feed holds, the state's position says which
// batches are in it.
func (s *Source) join(ctx context.Context, wanted func(*listeners.Event) bool, emit func(*listeners.Batch) error) (listeners.Position, error) {
	select {
	case <-s.ready:
	case <-s.ended:
		return listeners.Position{}, listeners.ErrClosed
	case <-ctx.Done():
		return listeners.Position{}, context.Cause(ctx)
	}
	state, _, err := s.state(ctx, wanted)
	if err != nil {
		return listeners.Position{}, err
	}
	return state.Position(), state.Tell(emit)
}

// state adds up the present state, and returns where it ends. If history is
// gone while it reads, it begins again.
func (s *Source) state(ctx context.Context, wanted func(*listeners.Event) bool) (*sinks.State, *cursor, error) {
	const tries = 5
	for i := 1; ; i++ {
		state, c, err := s.addUp(ctx, wanted)
		var gone *HistoryError
		if err == nil || i == tries || !errors.As(err, &gone) {
			return state, c, err
		}
	}
}

func (s *Source) addUp(ctx context.Context, wanted func(*listeners.Event) bool) (*sinks.State, *cursor, error) {
	c := s.cursor()
	info, err := c.info(ctx)
	if err != nil {
		return nil, nil, err
	}
	c.created = info.Created
	err = c.persist(ctx, func(ctx context.Context) error {
		c.next, err = s.snapshotStart(ctx, info)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	state := new(sinks.State)
	t := &take{assembler: s.assembler(wanted), tip: info.State.LastSeq, fresh: c.next == origin(info)}
	if t.tip < c.next {
		return state, c, nil
	}
	err = c.follow(ctx, func(list []arrival) error {
		for i := range list {
			p, ok, err := s.decode(ctx, &list[i])
			if err != nil {
				return err
			}
			if ok {
				if t.fresh && p.Kind == listeners.Snapshot {
					t.assembler.Begin()
				}
				t.fresh = false
				if err := t.assembler.Add(&p, state.Apply); err != nil {
					return err
				}
			}
			if (list[i].seq >= t.tip || list[i].pending == 0) && t.assembler.Idle() {
				c.next = list[i].seq + 1
				return errStop
			}
		}
		if len(list) == 0 && t.assembler.Idle() {
			return errStop // all that was left is deleted
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	state.Reach(t.assembler.Last())
	return state, c, nil
}

// snapshotStart returns the sequence from which on a stream adds up to the
// whole state: that of the last reset of everything, or the very first one.
func (s *Source) snapshotStart(ctx context.Context, info *natsjs.StreamInfo) (uint64, error) {
	if compacted(info) {
		return max(info.State.FirstSeq, 1), nil
	}
	start := uint64(0)
	for _, filter := range []string{"cdc.*._control.reset.reset.all", "grid.*.*.reset.all"} {
		seq, err := s.lastReset(ctx, filter)
		if err != nil {
			return 0, err
		}
		start = max(start, seq)
	}
	if start == 0 && info.State.FirstSeq <= origin(info) {
		start = origin(info)
	}
	if start == 0 {
		return 0, &HistoryError{Stream: s.stream, First: info.State.FirstSeq, Last: info.State.LastSeq}
	}
	return start, nil
}

// lastReset returns the sequence of the last reset of everything, 0 if the
// stream holds none.
func (s *Source) lastReset(ctx context.Context, filter string) (uint64, error) {
	stream, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		return 0, err
	}
	info, err := stream.Info(ctx, natsjs.WithSubjectFilter(filter))
	if err != nil {
		return 0, err
	}
	last := uint64(0)
	for subject := range info.State.Subjects {
		m, err := stream.GetLastMsgForSubject(ctx, subject)
		if err == nil && ofAll(m) {
			last = max(last, m.Sequence)
			continue
		}
		// It concerns some collections only; there may be one before it.
		for seq := max(info.State.FirstSeq, 1); err == nil; {
			if m, err = stream.GetMsg(ctx, seq, natsjs.WithGetMsgSubject(subject)); err != nil {
				break
			}
			if ofAll(m) {
				last = max(last, m.Sequence)
			}
			seq = m.Sequence + 1
		}
		if !errors.Is(err, natsjs.ErrMsgNotFound) {
			return 0, fmt.Errorf("resets: %w", err)
		}
	}
	return last, nil
}

// ofAll reports whether a message is a reset of everything.
func ofAll(m *natsjs.RawStreamMsg) bool {
	reset, err := sinks.Decode(attributes(m.Header), m.Data)
	return err == nil && reset.Reset && reset.Collections == nil
}
