package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func (l *streamLog) cursor(ctx context.Context) (*cursor, *natsjs.StreamInfo, error) {
	c := &cursor{nc: l.nc, js: l.js, stream: l.stream, log: l.log, retry: newRetry()}
	info, err := c.info(ctx)
	if err != nil {
		return nil, nil, err
	}
	c.created, c.tip = info.Created, info.State.LastSeq
	return c, info, nil
}

// Seek implements [sinks.Log].
func (l *streamLog) Seek(ctx context.Context, start sinks.Start) (sinks.LogReader, sinks.LogPlace, error) {
	var place sinks.LogPlace
	c, info, err := l.cursor(ctx)
	if err != nil {
		return nil, place, err
	}
	err = c.persistFor(ctx, lastSearch, func(ctx context.Context) error {
		c.next, err = l.place(ctx, info, start)
		return err
	})
	if err != nil {
		return nil, place, err
	}
	place.Origin = c.next == origin(info)
	place.Place = max(c.next, 1) - 1
	if c.next <= info.State.FirstSeq || info.State.Msgs == 0 {
		return c, place, nil
	}
	err = c.persist(ctx, func(ctx context.Context) error {
		place.Position, place.Open, err = l.before(ctx, c.next)
		return err
	})
	return c, place, err
}

// SeekState implements [sinks.Log].
func (l *streamLog) SeekState(ctx context.Context) (sinks.LogReader, sinks.LogPlace, error) {
	var place sinks.LogPlace
	c, info, err := l.cursor(ctx)
	if err != nil {
		return nil, place, err
	}
	err = c.persistFor(ctx, lastSearch, func(ctx context.Context) error {
		c.next, err = l.snapshotStart(ctx, info)
		return err
	})
	if err != nil {
		return nil, place, err
	}
	place.Origin = c.next == origin(info)
	place.Place = max(c.next, 1) - 1
	return c, place, nil
}

// place returns the sequence for a start.
func (l *streamLog) place(ctx context.Context, info *natsjs.StreamInfo, start sinks.Start) (uint64, error) {
	state := &info.State
	cut := state.FirstSeq > origin(info) && !compacted(info) // the limits have taken something
	switch {
	case !start.After.IsZero():
		stream, err := l.js.Stream(ctx, l.stream)
		if err != nil {
			return 0, err
		}
		seq, err := sequenceAfter(ctx, stream, start.After)
		if err != nil {
			return 0, err
		}
		if cut && seq <= state.FirstSeq {
			return 0, l.lost(info, seq)
		}
		return seq, nil
	case start.Sequence > 0:
		if cut && start.Sequence < state.FirstSeq {
			return 0, l.lost(info, start.Sequence)
		}
		return min(max(start.Sequence, state.FirstSeq, 1), state.LastSeq+1), nil
	case !start.Time.IsZero():
		return l.timePlace(ctx, info, start.Time)
	case start.Oldest:
		return max(state.FirstSeq, 1), nil
	}
	return state.LastSeq + 1, nil
}

// lost says that messages are gone, 0 for those from the first on.
func (l *streamLog) lost(info *natsjs.StreamInfo, from uint64) *sinks.HistoryError {
	gone := &sinks.HistoryError{Log: l.Name(), Held: fmt.Sprintf("%d to %d", info.State.FirstSeq, info.State.LastSeq)}
	if from > 0 {
		gone.Wanted = fmt.Sprintf("messages from %d on", from)
	}
	return gone
}

// timePlace returns the sequence of the first message that was stored at or
// after the time, by bisection: a consumer that is asked does not notice at once
// that ctx has ended.
func (l *streamLog) timePlace(ctx context.Context, info *natsjs.StreamInfo, start time.Time) (uint64, error) {
	stream, err := l.js.Stream(ctx, l.stream)
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
		case m.Sequence < high && m.Time.Before(start):
			low = m.Sequence + 1
		default:
			high = middle
		}
	}
	return low, nil
}

// before returns the position of the message before seq, and whether its
// transaction may go on.
func (l *streamLog) before(ctx context.Context, seq uint64) (at listeners.Position, open bool, err error) {
	stream, err := l.js.Stream(ctx, l.stream)
	if err != nil {
		return at, false, err
	}
	m, err := stream.GetMsg(ctx, seq-1)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return at, false, nil
	}
	if err != nil {
		return at, false, fmt.Errorf("stream %s: message %d: %w", l.stream, seq-1, err)
	}
	at, err = listeners.ParsePosition(m.Header.Get(headerSequence))
	if err != nil {
		return at, false, nil //nolint:nilerr // no event, which is no part of a transaction
	}
	return at, m.Header.Get(attributePrefix+"txend") == "" && m.Header.Get(attributePrefix+"txid") != "", nil
}

// snapshotStart returns the sequence from which on a stream adds up to the
// whole state: that of the last reset of everything, or the very first one.
func (l *streamLog) snapshotStart(ctx context.Context, info *natsjs.StreamInfo) (uint64, error) {
	if compacted(info) {
		return max(info.State.FirstSeq, 1), nil
	}
	start := uint64(0)
	for _, filter := range []string{"cdc.*._control.reset.reset.all", "grid.*.*.reset.all"} {
		seq, err := l.lastReset(ctx, filter)
		if err != nil {
			return 0, err
		}
		start = max(start, seq)
	}
	if start == 0 && info.State.FirstSeq <= origin(info) {
		start = origin(info)
	}
	if start == 0 {
		return 0, l.lost(info, 0)
	}
	return start, nil
}

// lastReset returns the sequence of the last reset of everything, 0 if the
// stream holds none.
func (l *streamLog) lastReset(ctx context.Context, filter string) (uint64, error) {
	stream, err := l.js.Stream(ctx, l.stream)
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
