package sinks

import (
	"context"
	"errors"
	"fmt"

	"github.com/rowcall/rowcall/listeners"
)

// errTip ends a run that goes no further than the tip.
var errTip = errors.New("the tip is reached")

// A take is where Run is.
type take struct {
	reader    LogReader
	rest      []LogMessage // of the reader's last slice, still to be taken
	assembler *Assembler
	at        listeners.Position // of the message before the first one
	last      Part               // the one before the tip, for who finds that without a message; its origin alone
	live      bool               // Live is owed when the tip is reached
	fresh     bool               // nothing of the log was read, and nothing was stored before
}

func (s *Source) run(ctx context.Context) error {
	t := &take{assembler: s.assembler(s.wanted), live: !s.opts.Start.IsNow()}
	defer func() {
		if t.reader != nil {
			t.reader.Close()
		}
	}()
	reader, place, err := s.log.Seek(ctx, s.opts.Start)
	gone, lost := errors.AsType[*HistoryError](err)
	if err != nil && !lost {
		return err
	}
	if !lost {
		s.goOn(t, reader, place.Place)
		t.fresh, t.at, s.begin = place.Origin, place.Position, place.Position
		if place.Open {
			t.assembler.Follow(place.Position)
		}
	}
	close(s.ready)
	for {
		if lost {
			s.opts.Logger.WarnContext(ctx, "history is gone; the present state follows", "log", s.log.Name(), "wanted", gone.Wanted, "held", gone.Held, "replaced", gone.Replaced)
			if err := s.restart(ctx, t); err != nil {
				return err
			}
			if s.opts.UntilTip {
				return nil
			}
		}
		err := s.follow(ctx, t)
		if errors.Is(err, errTip) {
			return nil
		}
		if gone, lost = errors.AsType[*HistoryError](err); !lost {
			return err
		}
	}
}

// goOn takes the next messages from a reader.
func (s *Source) goOn(t *take, reader LogReader, place uint64) {
	t.reader = reader
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reader = reader
	s.read.Store(place)
}

func (s *Source) assembler(wanted func(*listeners.Event) bool) *Assembler {
	return &Assembler{MaxTxBytes: s.opts.MaxTxBytes, Wanted: wanted}
}

// follow returns an error. It is errTip where Run is to end, and otherwise the
// reader's, or what is wrong with a message.
func (s *Source) follow(ctx context.Context, t *take) error {
	for {
		list := t.rest
		if len(list) == 0 {
			var err error
			if list, err = t.reader.Next(ctx); err != nil {
				return err
			}
		}
		t.rest = nil
		if err := s.take(ctx, t, list); err != nil {
			return err
		}
	}
}

// restart appends the present state and goes on behind it.
func (s *Source) restart(ctx context.Context, t *take) error {
	if t.reader != nil {
		t.reader.Close()
	}
	t.rest = nil
	sum, err := s.state(ctx, s.wanted)
	if err != nil {
		return err
	}
	s.goOn(t, sum.reader, sum.place)
	if sum.state.Position().IsZero() {
		sum.state.Reach(ofEmptyLog())
	}
	if err := sum.state.Tell(func(b *listeners.Batch) error { return s.append(ctx, b) }); err != nil {
		return err
	}
	t.rest = sum.rest
	t.assembler = s.assembler(s.wanted)
	t.live, t.fresh = false, false
	return nil
}

// take appends what has arrived to the feed.
func (s *Source) take(ctx context.Context, t *take, list []LogMessage) error {
	emit := func(b *listeners.Batch) error {
		if b.Kind == listeners.Live && t.live {
			return nil // told at the tip
		}
		return s.append(ctx, b)
	}
	for i := range list {
		m := &list[i]
		p, ok, err := s.decode(ctx, t.reader, m)
		if err != nil {
			return err
		}
		if ok {
			if t.fresh && p.Kind == listeners.Snapshot {
				if err := s.append(ctx, firstReset(&p)); err != nil {
					return err
				}
				t.assembler.Begin()
			}
			t.fresh = false
			if err := t.assembler.Add(&p, emit); err != nil {
				return err
			}
		}
		if m.Tip {
			if err := s.tip(ctx, t, &p); err != nil {
				return err
			}
		}
		if t.live {
			t.last.Source, t.last.Tx, t.last.Size = p.Source, p.Tx, p.Size
		}
		s.read.Store(m.Place)
	}
	if err := t.assembler.Flush(emit); err != nil {
		return err
	}
	if len(list) == 0 {
		return s.tip(ctx, t, &t.last)
	}
	return nil
}

// firstReset begins the snapshot with which a log begins. It stands before the
// first row: who stores each position once must not take that for stored.
func firstReset(p *Part) *listeners.Batch {
	at := predecessor(p.Position)
	if at.IsZero() {
		at = p.Position // nothing that has the zero position is ever told
	}
	return &listeners.Batch{
		Kind: listeners.Reset, Source: p.Source, Tx: p.Tx, Position: at, First: true, Last: true, Size: p.Size,
	}
}

// ofEmptyLog is a position for what is told of a log without events: nothing that has
// the zero position is ever told, and index 1 alone is a mark of position stores.
func ofEmptyLog() listeners.Position { return listeners.Position{Index: 2} }

// tip is called when everything from before Run was read.
func (s *Source) tip(ctx context.Context, t *take, p *Part) error {
	if t.live && t.assembler.Idle() {
		t.live = false
		at := t.assembler.Last()
		if at.IsZero() {
			at = t.at
		}
		if at.IsZero() {
			at = ofEmptyLog()
		}
		live := &listeners.Batch{
			Kind: listeners.Live, Source: p.Source, Tx: p.Tx, Position: at, First: true, Last: true, Size: p.Size,
		}
		if err := s.append(ctx, live); err != nil {
			return err
		}
	}
	if s.opts.UntilTip {
		return errTip
	}
	return nil
}

// decode returns false for a message that is no event: nobody stored it who
// has anything to say here.
func (s *Source) decode(ctx context.Context, r LogReader, m *LogMessage) (Part, bool, error) {
	if m.Attribute("sequence") == "" {
		s.opts.Logger.WarnContext(ctx, "a message is no event and is left out", "log", s.log.Name(), "message", r.Describe(m.Place), "address", m.Address)
		return Part{}, false, nil
	}
	p, err := s.decoder.Decode(m.Address, m.Attribute, m.Body)
	if parked, ok := errors.AsType[*ParkedError](err); ok {
		if log, can := s.log.(Unparker); can {
			var body []byte
			if body, err = log.Unpark(ctx, parked.Ref); err == nil {
				p, err = s.decoder.Decode(m.Address, m.Attribute, body)
			}
		}
	}
	if err != nil {
		return p, false, fmt.Errorf("%s: %s: %w", s.log.Name(), r.Describe(m.Place), err)
	}
	return p, true, nil
}

func (s *Source) append(ctx context.Context, b *listeners.Batch) error {
	if err := s.feed.Reserve(ctx); err != nil {
		return err
	}
	s.feed.Append(b)
	return nil
}
