package sinks

import (
	"context"
	"errors"
	"time"
)

// messageEstimate is about what the headers take apart from key and id.
const messageEstimate = 400

// pump sends everything that was not sent, and recovers from faults.
func (f *Firehose) pump(ctx context.Context) error {
	for {
		e, ok, fault := f.w.current()
		switch {
		case fault != nil:
			if err := f.recover(ctx, fault); err != nil {
				return err
			}
		case !ok:
			return nil
		default:
			whole, err := f.send(ctx, &e)
			if err != nil {
				return err
			}
			if whole {
				f.cursor = cursor{}
				f.w.finish(f.c.Keep)
			}
		}
	}
}

// send sends the rest of an entry. It returns false when a fault ended the
// attempt; an error is final, unless ctx ended.
func (f *Firehose) send(ctx context.Context, e *entry) (whole bool, err error) {
	n := Len(e.batch)
	if e.live {
		n = 1
	}
	m := &f.message
	for ; f.cursor.message < n; f.cursor.message++ {
		i := f.cursor.message
		if !isMarker(e.batch) {
			if schema := e.batch.Events[i].Schema; schema != f.schema {
				if err := f.c.Scope.owns(schema); err != nil {
					return false, f.fatal(err)
				}
				f.schema = schema
			}
		}
		m.Frame = f.encoder.Encode(e.batch, i)
		m.Frame.Filling = e.filling == incomplete
		m.Batch, m.Index, m.Position = e.batch, i, messagePosition(e.batch, i)
		lanes, err := f.broker.Lanes(ctx, m)
		if err != nil {
			return false, f.failed(ctx, err)
		}
		for ; f.cursor.lane < len(lanes); f.cursor.lane++ {
			m.Lane = lanes[f.cursor.lane]
			if e.filling == asTail {
				m.Frame.Filling = m.Lane.Filling
			}
			held, err := f.held(m)
			if err != nil {
				return false, f.fatal(err)
			}
			if held {
				f.counters.skipped.Add(1)
				continue
			}
			if !f.parkAt.IsZero() && m.Position == f.parkAt && f.parks(m) {
				if err := f.park(ctx, m); err != nil {
					return false, f.failed(ctx, err)
				}
			}
			if sent, err := f.sendOne(ctx, m); err != nil || !sent {
				return false, err
			}
			m.Lane.Begun = true
		}
		f.cursor.lane = 0
	}
	return true, nil
}

// failed is for what the broker says before anything was sent. It returns nil if it may pass:
// the fault is in the window then.
func (f *Firehose) failed(ctx context.Context, err error) error {
	switch {
	case finalForFirehose(err):
		return f.fatal(err)
	case ctx.Err() != nil:
		return f.interrupted(ctx)
	}
	f.w.fail(err)
	return nil
}

// held reports whether a message's lane holds it already, or does not need it.
func (f *Firehose) held(m *FirehoseMessage) (bool, error) {
	tail := m.Lane.Tail
	if !m.Position.IsZero() && m.Position.Epoch < tail.Epoch {
		return false, &EpochError{Place: m.Lane.Place, Tail: tail, Got: m.Position}
	}
	return m.Position.Compare(tail) <= 0 || isMarker(m.Batch) && !m.Lane.Begun, nil
}

// sendOne sends a message to its lane when there is room. It returns false when
// a fault ended the attempt.
func (f *Firehose) sendOne(ctx context.Context, m *FirehoseMessage) (bool, error) {
	body := len(m.Frame.Body)
	size := body + len(m.Frame.ID) + 2*len(m.Frame.Subject) + messageEstimate
	for {
		number, answer := f.w.admit(size, body, f.c.MaxPendingBytes)
		switch answer {
		case over:
			return false, nil
		case granted:
			m.Number = number
			err := f.broker.Send(ctx, m)
			if err == nil {
				return true, nil
			}
			f.w.withdraw(body)
			if large, ok := errors.AsType[*TooLargeError](err); ok {
				if f.parks(m) {
					if err := f.park(ctx, m); err != nil {
						return false, f.failed(ctx, err)
					}
					return f.sendOne(ctx, m)
				}
				large.name(m.Batch, m.Index)
			}
			return false, f.failed(ctx, err)
		case full:
		}
		f.broker.Push(PushFull)
		select {
		case <-f.w.wake:
		case <-ctx.Done():
			return false, f.interrupted(ctx)
		}
	}
}

// recover finds out after a fault what is stored, and begins anew behind it. It
// tries for as long as ctx lives. An error is final, unless ctx ended.
func (f *Firehose) recover(ctx context.Context, fault error) error {
	if finalForFirehose(fault) {
		return f.fatal(fault)
	}
	f.counters.failed(fault)
	f.log.WarnContext(ctx, "storing interrupted", "error", fault)
	for tries := 1; ; tries++ {
		if err := f.pause(ctx, tries == 1); err != nil {
			return err
		}
		at, err := f.broker.Recover(ctx, fault)
		if large, ok := errors.AsType[*TooLargeError](err); ok {
			f.cursor = cursor{}
			f.w.begin(at)
			b, i, found := f.w.find(large.Position)
			if found {
				large.name(b, i)
			}
			// A small message that is refused again is one too many.
			if found && !isMarker(b) && f.c.TooLarge == TooLargePark && f.parkAt != large.Position {
				f.counters.retries.Add(1)
				f.parkAt = large.Position
				return nil
			}
		}
		switch {
		case err == nil:
			f.counters.retries.Add(1)
			f.cursor = cursor{}
			f.w.begin(at)
			f.log.InfoContext(ctx, "storing goes on", "position", at, "tries", tries)
			return nil
		case ctx.Err() != nil:
			return f.interrupted(ctx)
		case finalForFirehose(err):
			return f.fatal(err)
		}
		f.counters.failed(err)
		f.log.DebugContext(ctx, "it cannot be read yet what is stored", "error", err)
	}
}

// pause waits longer from one recovery to the next, until one has led to
// something.
func (f *Firehose) pause(ctx context.Context, first bool) error {
	if first {
		if gained := f.w.progress(); gained != f.recovered {
			f.recovered = gained
			f.retry.Reset()
			return nil
		}
	}
	wait := time.NewTimer(f.retry.NextBackOff())
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return f.interrupted(ctx)
	}
}
