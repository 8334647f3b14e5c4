package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// errBehind passes when a new leader has caught up, or turns out to be true.
var errBehind = errors.New("the stream ends before what was acknowledged")

// firstTry bounds the first question for the stream's end. A question that is
// lost with its connection is never answered, so the first tries are short.
const firstTry = 500 * time.Millisecond

// A recovery lasts from the first call of Recover after a fault to the one that
// succeeds.
type recovery struct {
	began   time.Time // zero: there is none
	timeout time.Duration
	fault   error
	gap     bool   // messages of ours were deleted
	intact  uint64 // up to here the stream has what it is to have
}

// Recover begins the next attempt behind what the stream holds.
func (w *writer) Recover(ctx context.Context, fault error) (listeners.Position, error) {
	r := &w.recovery
	if r.began.IsZero() {
		if w.wholes != nil {
			w.wholes.abandon()
		}
		if err := w.settle(ctx); err != nil {
			return listeners.Position{}, err
		}
		w.flight.deaf()
		*r = recovery{began: time.Now(), timeout: min(firstTry, w.opts.AckTimeout), fault: fault}
	}
	err := w.removeStrays(ctx)
	var t tail
	if err == nil {
		t, err = w.readTail(ctx, r.timeout)
	}
	if err == nil && t.seq < w.flight.stable() && time.Since(r.began) < w.opts.AckTimeout {
		err = errBehind
	}
	if err == nil {
		err = w.cutOff(ctx, &t)
	}
	if err != nil {
		r.timeout = min(2*r.timeout, w.opts.AckTimeout)
		return listeners.Position{}, w.lost(err)
	}
	if errors.Is(r.fault, errAckTimeout) {
		if no := forbidden(w.nc, w.said, w.from.address()+"."); no != nil {
			return listeners.Position{}, &sinks.PlaceError{
				Place: place(w.opts.Stream), Err: no, Reason: "this user may not store events; allow it to publish to " + w.subjects(),
			}
		}
	}
	w.said = w.nc.LastError()
	balked := w.flight.batched() && balks(r.fault, t.seq == w.flight.stable())
	err = w.resume(&t, r.fault)
	w.ingest.restart(&t, balked)
	if w.wholes != nil {
		w.wholes.restart(&t, r.fault)
	}
	*r = recovery{}
	return w.lane.Tail, err
}

// removeStrays deletes messages of ours that the server is known to have stored
// behind one that it refused, unless all before them are in their places, too:
// then an earlier attempt's have taken these, which are the same.
func (w *writer) removeStrays(ctx context.Context) error {
	f := w.flight // nothing is added to its strays any more: it is deaf
	slices.Sort(f.strays)
	for len(f.strays) > 0 {
		foreign, err := w.foreignUpTo(ctx, f.strays[0]-1)
		if err != nil {
			return err
		}
		if foreign != 0 {
			break
		}
		f.doubtful, f.strays = max(f.doubtful, f.strays[0]), f.strays[1:]
	}
	return w.remove(ctx)
}

// cutOff finds out whether a stranger's message has taken the place of one of
// ours among those of which the server has said nothing: without ids it has
// stored what is behind that, which must go.
func (w *writer) cutOff(ctx context.Context, t *tail) error {
	f := w.flight
	if _, ours := f.find(t.seq); !ours || w.out.chained || f.batched() {
		return nil // in a batch nothing is stored behind what is refused
	}
	foreign, err := w.foreignUpTo(ctx, t.seq)
	if err != nil || foreign == 0 {
		return err
	}
	for seq := foreign + 1; seq <= t.seq; seq++ {
		ours, _, err := w.holds(ctx, seq)
		if err != nil {
			return err
		}
		if ours {
			f.strays = append(f.strays, seq)
		}
	}
	if len(f.strays) == 0 {
		return nil
	}
	if err := w.remove(ctx); err != nil {
		return err
	}
	*t, err = w.readTail(ctx, w.recovery.timeout)
	return err
}

// remove deletes the strays, the newest first, so that a crash meanwhile leaves no
// less to be seen than before.
func (w *writer) remove(ctx context.Context) error {
	strays := w.flight.strays
	if len(strays) == 0 {
		return nil
	}
	w.recovery.gap = true
	s, err := w.js.Stream(ctx, w.opts.Stream)
	if err != nil {
		return err
	}
	for i, seq := range slices.Backward(strays) {
		if err := s.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, natsjs.ErrMsgNotFound) {
			return fmt.Errorf("delete message %d, which a stranger's has cut off: %w", seq, err)
		}
		w.flight.strays = strays[:i]
	}
	return nil
}

// foreignUpTo returns the first message behind the acknowledged ones and up to a
// sequence that is in the place of one of ours, 0 if there is none. What is gone
// was in its place: the stream's limits remove nothing that was not stored.
func (w *writer) foreignUpTo(ctx context.Context, seq uint64) (foreign uint64, err error) {
	r := &w.recovery
	for r.intact = max(r.intact, w.flight.stable()); r.intact < seq; r.intact++ {
		ours, found, err := w.holds(ctx, r.intact+1)
		if err != nil {
			return 0, err
		}
		if found && !ours {
			return r.intact + 1, nil
		}
	}
	return 0, nil
}

// holds reports whether the stream has a message at a sequence, and whether it is
// the one of ours that belongs there.
func (w *writer) holds(ctx context.Context, seq uint64) (ours, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.recovery.timeout)
	defer cancel()
	m, err := w.ask(ctx, `{"seq":`+strconv.FormatUint(seq, 10)+`}`)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("message %d: %w", seq, err)
	}
	want, sent := w.flight.find(seq)
	got, err := listeners.ParsePosition(m.Header.Get(headerSequence))
	return sent && err == nil && got == want, true, nil
}

// settle waits until every message in flight is answered, or will not be any
// more.
func (w *writer) settle(ctx context.Context) error {
	timeout := time.NewTimer(w.opts.AckTimeout)
	defer timeout.Stop()
	if !w.flight.over() {
		w.ingest.end()
	}
	for !w.flight.over() {
		select {
		case <-w.flight.settled:
		case <-timeout.C:
			w.flight.interrupt(errAckTimeout)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// lost returns a final error for what no waiting puts right.
func (w *writer) lost(err error) error {
	switch {
	case errors.Is(err, natsjs.ErrStreamNotFound):
		return &sinks.PlaceError{Place: place(w.opts.Stream), Err: err, Reason: "it was deleted while the firehose wrote to it; start again, and a new one is created"}
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return sinks.Permanent(fmt.Errorf("stream %s: %w", w.opts.Stream, err))
	}
	return err
}

// resume compares the stream's end with what was sent, and begins the next
// attempt behind it.
func (w *writer) resume(t *tail, fault error) error {
	f := w.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	// What a leader says of a batch that it ends, and of a message that it
	// refuses, is not the last word: its successor may store what it had proposed.
	if !f.known() || t.replicas > 1 {
		f.doubtful = max(f.doubtful, f.sent)
	}
	last := w.lane.Tail
	if p, ok := f.find(f.acked); ok {
		last = p
	}
	position, ours := f.find(t.seq)
	next, _ := f.find(t.seq + 1)
	switch {
	case t.seq < f.acked:
		return &sinks.PlaceError{Place: place(w.opts.Stream), Err: fault, Reason: fmt.Sprintf(
			"it ends at %d, but %d was acknowledged: the server lost messages, or the stream was restored from a backup or made anew; see what its readers have, then start again, from a new stream and a new snapshot if need be",
			t.seq, f.acked)}
	case t.seq == f.acked:
		w.lane.Tail = last
	case ours && t.seq <= f.doubtful && (position == t.position || !t.exact && !w.recovery.gap):
		w.lane.Tail = position
	case time.Since(w.opened) < w.opts.AckTimeout && t.exact && t.position.Compare(last) > 0:
		// A predecessor's last messages, which were on their way.
		w.lane.Tail, w.lane.Begun, w.lane.Filling = t.position, true, t.filling
		f.forget(t.seq)
	default:
		return fenced(w.opts.Stream, f.acked, t)
	}
	w.out.chained = t.replicas == 1
	f.begin(w.inbox, t.seq)
	return w.final(t, next, fault)
}

func fenced(stream string, expected uint64, t *tail) error {
	what := "a message without a position"
	if !t.position.IsZero() {
		what = "position " + t.position.String()
	}
	return &sinks.FencedError{
		Place: place(stream), Position: t.position,
		Reason: fmt.Sprintf("its last message is %d (%s, subject %q), not %d; a stream has one writer: stop the other one, then start this one again",
			t.seq, what, t.subject, expected),
	}
}

const (
	remedySize   = "raise max_msg_size of the stream, or leave the large column out of the publication"
	remedyHeader = "the headers hold the key twice: choose a shorter replica identity"
)

// final returns an error for a message that the server will never take: the
// next one, at a position.
func (w *writer) final(t *tail, next listeners.Position, fault error) error {
	var api *natsjs.APIError
	if !errors.As(fault, &api) {
		return nil
	}
	limit, remedy := t.limit, remedySize
	switch api.ErrorCode {
	case codeStreamSealed, codeStreamNotMatch:
		return &sinks.PlaceError{Place: place(w.opts.Stream), Err: fault, Reason: "it takes no messages of this firehose any more; see who changed it"}
	case codeHeaderTooLarge:
		limit, remedy = 64<<10, remedyHeader
	case natsjs.JSErrCodeStreamMessageExceedsMaximum:
	default:
		return nil
	}
	if w.wholes != nil && w.wholes.answer {
		return nil // it is one of the whole; the next attempt finds out which
	}
	return &sinks.TooLargeError{Place: place(w.opts.Stream), Position: next, Limit: limit, Remedy: remedy}
}
