package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// errBehind passes when a new leader has caught up, or turns out to be true.
var errBehind = errors.New("the stream ends before what was acknowledged")

// firstTry bounds the first question for the stream's end.
const firstTry = 500 * time.Millisecond

// resync ends an attempt that failed and begins the next one behind what the
// stream holds. It tries for as long as ctx lives. An error is final, unless
// ctx ended.
func (f *Firehose) resync(ctx context.Context) error {
	reason, err := f.settle(ctx)
	if err != nil {
		return err
	}
	f.w.deaf()
	log := f.opts.Logger.With("stream", f.opts.Stream)
	log.WarnContext(ctx, "publishing interrupted", "error", reason)
	// A question that is lost with its connection is never answered, so the
	// first tries are short.
	began := time.Now()
	timeout := min(firstTry, f.opts.AckTimeout)
	for tries := 1; ; tries++ {
		if err := f.pause(ctx, tries == 1); err != nil {
			return err
		}
		err := f.removeStrays(ctx)
		var t tail
		if err == nil {
			t, err = f.readTail(ctx, timeout)
		}
		if err == nil && t.seq < f.w.stable() && time.Since(began) < f.opts.AckTimeout {
			err = errBehind
		}
		if err == nil {
			err = f.resume(&t, reason)
			if err == nil {
				log.InfoContext(ctx, "publishing goes on", "sequence", t.seq, "tries", tries)
				return nil
			}
			f.dead = err
			return err
		}
		if ctx.Err() != nil {
			return f.interrupted(ctx)
		}
		if err := f.lost(err); err != nil {
			f.dead = err
			return err
		}
		timeout = min(2*timeout, f.opts.AckTimeout)
		log.DebugContext(ctx, "the stream's end cannot be read yet", "error", err)
	}
}

// removeStrays deletes what must not be in the stream, the newest first, so
// that a crash meanwhile leaves no less to be seen than before.
func (f *Firehose) removeStrays(ctx context.Context) error {
	strays := f.w.strays // nothing is added to it any more: the window is deaf
	if len(strays) == 0 {
		return nil
	}
	s, err := f.js.Stream(ctx, f.opts.Stream)
	if err != nil {
		return err
	}
	for i, seq := range slices.Backward(strays) {
		if err := s.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, natsjs.ErrMsgNotFound) {
			return fmt.Errorf("delete message %d, which a stranger's has cut off: %w", seq, err)
		}
		f.w.strays = strays[:i]
	}
	return nil
}

// settle waits until every message in flight is answered, or will not be any
// more, and returns the fault.
func (f *Firehose) settle(ctx context.Context) (error, error) {
	timeout := time.NewTimer(f.opts.AckTimeout)
	defer timeout.Stop()
	for !f.w.settled() {
		select {
		case <-f.w.wake:
		case <-timeout.C:
			f.w.interrupt(errAckTimeout)
		case <-ctx.Done():
			return nil, f.interrupted(ctx)
		}
	}
	_, fault := f.w.left()
	return fault, nil
}

// pause waits longer from one recovery to the next, until one has led to
// something.
func (f *Firehose) pause(ctx context.Context, first bool) error {
	if first {
		if acked := f.w.stable(); acked != f.recovered {
			f.recovered = acked
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

// lost returns a final error for what no waiting puts right.
func (f *Firehose) lost(err error) error {
	var wrong *StreamError
	switch {
	case errors.As(err, &wrong):
		return err
	case errors.Is(err, natsjs.ErrStreamNotFound):
		return &StreamError{Stream: f.opts.Stream, Err: err, Reason: "it was deleted while the firehose wrote to it; start again, and a new one is created"}
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return fmt.Errorf("stream %s: %w", f.opts.Stream, err)
	}
	return nil
}

// resume compares the stream's end with what was sent, and begins the next
// attempt behind it.
func (f *Firehose) resume(t *tail, reason error) error {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.answered < w.published {
		w.doubtful = max(w.doubtful, w.sent)
	}
	switch {
	case t.seq < w.acked:
		return &StreamError{Stream: f.opts.Stream, Err: reason, Reason: fmt.Sprintf(
			"it ends at %d, but %d was acknowledged: the server lost messages, or the stream was restored from a backup or made anew; see what its readers have, then start again, from a new stream and a new snapshot if need be",
			t.seq, w.acked)}
	case t.seq == w.acked:
	case f.mine(t):
		w.advance(t.seq)
	case time.Since(f.opened) < f.opts.AckTimeout && t.exact && t.position.Compare(w.stored) > 0:
		// A predecessor's last messages, which were on their way.
		w.skip(t.seq, t.position)
		w.reach(t.position)
		f.tail = *t
	default:
		return &FencedError{Stream: f.opts.Stream, Expected: w.acked, Sequence: t.seq, Subject: t.subject, Position: t.position}
	}
	f.out.chained = t.replicas == 1
	w.begin(f.inbox, t.seq)
	return f.final(t, reason)
}

// mine reports whether the message at the stream's end is one that was sent
// from here and not answered.
func (f *Firehose) mine(t *tail) bool {
	position, ok := f.w.find(t.seq)
	if !ok || t.seq > f.w.doubtful {
		return false
	}
	return !t.exact || position == t.position
}

// final returns an error for a message that the server will never take.
func (f *Firehose) final(t *tail, reason error) error {
	var api *natsjs.APIError
	if !errors.As(reason, &api) {
		return nil
	}
	limit, remedy := t.limit, "raise max_msg_size of the stream, or leave the large column out of the publication"
	switch api.ErrorCode {
	case codeStreamSealed, codeStreamNotMatch:
		return &StreamError{Stream: f.opts.Stream, Err: reason, Reason: "it takes no messages of this firehose any more; see who changed it"}
	case codeHeaderTooLarge:
		limit, remedy = 64<<10, "the headers hold the key twice: choose a shorter replica identity"
	case natsjs.JSErrCodeStreamMessageExceedsMaximum:
	default:
		return nil
	}
	for i := f.w.head; i < len(f.w.entries); i++ {
		if e := &f.w.entries[i]; e.first <= t.seq+1 && t.seq+1 <= e.last() {
			return f.tooLarge(e.batch, e.start+int(t.seq+1-e.first), 0, limit, remedy)
		}
	}
	return nil
}
