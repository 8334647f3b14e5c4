package jetstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

const (
	// ingestFlow is how many messages the server may leave unanswered; it
	// answers more often when others publish, too. More would save next to
	// nothing, and say less of a server that is slow.
	ingestFlow = 100
	// A run of messages counts as load if it takes no longer than ingestPause, and
	// so many of them one after the other as sustained.
	ingestRun      = 512
	ingestRuns     = 8
	ingestPause    = 50 * time.Millisecond
	ingestPatience = 500 * time.Millisecond
	// ingestRest is how many messages go one by one after the server has
	// refused a batch. It doubles each time, so often.
	ingestRest     = 4096
	ingestRestings = 8
)

// An ingest sends messages in batches of the server's fast ingest.
//
// Each message names the stream's last sequence, so the server refuses one whose
// place is taken. It ends the batch then, and whenever a number of the batch is
// missing, and takes nothing more of it: so a sequence is enough here, where
// messages by themselves need more, see outgoing.link. For that to hold across
// batches, one begins only when nothing else is in flight, and nothing else is
// sent before its end is answered.
//
// The server answers every few messages. What it has of a batch that goes on slowly, or not at
// all, it says only when the batch is ended.
type ingest struct {
	w    *writer
	mode FastIngest
	flow uint64

	// Of the firehose's goroutine.
	allowed  bool
	batching bool // a batch was begun, and its end has not been seen
	resting  int  // messages that go one by one
	restings int
	run      int // messages since began
	runs     int
	began    time.Time

	begun chan struct{} // capacity 1: to watch

	mu     sync.Mutex // keeps the messages and the end of a batch in order
	open   bool
	ending bool
	prefix []byte // of the reply addresses in the batch, up to the number
	text   []byte
	sent   uint64
}

func newIngest(w *writer) *ingest {
	return &ingest{
		w: w, mode: w.opts.FastIngest, begun: make(chan struct{}, 1),
		flow: uint64(min(max(w.opts.MaxPending/8, 1), ingestFlow)),
	}
}

// possible returns why no batch is ever sent, "" if one may be.
func (in *ingest) possible(t *tail) (not string) {
	o := &in.w.opts
	switch {
	case o.FastIngest == FastIngestOff:
		return "turned off"
	case in.w.latest != nil:
		return "not for a bucket"
	case o.Atomic:
		return "not with Atomic"
	case o.MsgID:
		return "not with MsgID"
	case o.Domain != "" || o.APIPrefix != "":
		return "not with another account's or domain's JetStream"
	case !t.batched:
		return "the stream does not allow it; with NATS 2.14 set allow_batched"
	}
	return ""
}

// send sends a message in a batch, unless it is to go by itself. It may wait
// until nothing is in flight any more.
func (in *ingest) send(ctx context.Context, m *sinks.FirehoseMessage, msg *nats.Msg) (sent bool, err error) {
	for {
		if in.batching {
			if sent, err := in.add(m, msg); sent {
				return true, err
			}
			if err := in.w.flight.await(ctx); err != nil {
				return true, err
			}
			in.batching = false
		}
		if !in.loaded() {
			return false, nil
		}
		if err := in.w.flight.await(ctx); err != nil {
			return true, err
		}
		in.begin()
	}
}

// loaded reports whether a batch is worth it.
func (in *ingest) loaded() bool {
	if !in.allowed {
		return false
	}
	if in.resting > 0 {
		in.resting--
		return false
	}
	if in.mode == FastIngestAlways {
		return true
	}
	if in.run++; in.run < ingestRun {
		return false
	}
	now := time.Now()
	if in.runs++; now.Sub(in.began) > ingestPause {
		in.runs = 0
	}
	in.run, in.began = 0, now
	if in.runs < ingestRuns {
		return false
	}
	in.runs = 0
	return true
}

func (in *ingest) begin() {
	in.mu.Lock()
	defer in.mu.Unlock()
	reply := in.w.inbox + "." + strconv.FormatUint(rand.Uint64(), 36)
	in.prefix = append(strconv.AppendUint(append(append(in.prefix[:0], reply...), '.'), in.flow, 10), ingestGap...)
	in.open, in.ending, in.sent, in.batching = true, false, 0, true
	in.w.flight.beginBatch(reply)
	select {
	case in.begun <- struct{}{}:
	default:
	}
}

// reply returns the reply address of message n of the batch.
func (in *ingest) reply(n uint64, what string) string {
	in.text = append(strconv.AppendUint(append(in.text[:0], in.prefix...), n, 10), what...)
	return string(in.text)
}

// add sends a message as the batch's next. It returns false if the batch was ended.
func (in *ingest) add(m *sinks.FirehoseMessage, msg *nats.Msg) (sent bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.open || in.ending {
		return false, nil
	}
	_, seq := in.w.flight.next(m.Position)
	in.sent++
	what := ingestAppend
	if in.sent == 1 {
		what = ingestStart
	}
	in.w.out.place(in.reply(in.sent, what), seq, in.sent == 1)
	if err := in.w.publish(msg); err != nil { // it was not sent
		in.sent--
		return true, err
	}
	return true, nil
}

// end has the server say what it has of the batch, and take no more of it. It
// waits for nothing.
func (in *ingest) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.endLocked()
}

func (in *ingest) endLocked() {
	if !in.open || in.ending {
		return
	}
	in.ending = true
	in.w.flight.endBatch(in.sent == 0)
	if in.sent == 0 {
		return
	}
	msg := nats.Msg{Subject: in.w.from.endAddress(), Reply: in.reply(in.sent+1, ingestEnd)}
	if err := in.w.nc.PublishMsg(&msg); err != nil {
		in.w.flight.interrupt(err)
	}
}

// makeRoom ends the batch if the window is full and what the server will say by
// itself does not free half of it.
func (in *ingest) makeRoom() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.open || in.ending {
		return
	}
	sent, acked := in.w.flight.reach()
	if waiting := sent - acked; waiting < (waiting+1)/2+in.flow-1 {
		in.endLocked()
		in.resting = ingestRest
		if in.mode == FastIngestAlways {
			in.resting = 0
		}
	}
}

// balks reports whether a fault of a batch is about batches, and not about a
// message or its place.
func balks(fault error, placeIsFree bool) bool {
	api, said := errors.AsType[*natsjs.APIError](fault)
	switch {
	case !said:
		return false
	case refused(fault):
		return placeIsFree
	}
	return api.ErrorCode != natsjs.JSErrCodeStreamMessageExceedsMaximum && api.ErrorCode != codeHeaderTooLarge
}

// restart is for a new attempt, after a fault of the one before. If the server has
// balked at a batch, the next messages go by themselves.
func (in *ingest) restart(t *tail, balked bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.allowed = in.possible(t) == ""
	in.run, in.runs = 0, 0
	if balked {
		in.resting = ingestRest << in.restings
		in.restings = min(in.restings+1, ingestRestings)
	}
	in.open, in.ending, in.batching = false, false, false
}

// watch ends batches that nothing is added to any more, or not enough for the
// server to answer by itself.
func (in *ingest) watch(ctx context.Context) {
	pause := max(min(ingestPause, in.w.opts.AckTimeout/8), time.Millisecond)
	patience := max(int(min(ingestPatience, in.w.opts.AckTimeout/2)/pause), 1)
	for {
		select {
		case <-ctx.Done():
			return
		case <-in.begun:
		}
		in.follow(ctx, pause, patience)
	}
}

func (in *ingest) follow(ctx context.Context, pause time.Duration, patience int) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	var lastSent, lastAcked uint64
	for unanswered := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if over := func() bool {
			in.mu.Lock()
			defer in.mu.Unlock()
			sent, acked := in.w.flight.reach()
			if unanswered++; acked != lastAcked {
				unanswered = 0
			}
			// With as many in flight as that, an answer is on its way.
			if sent-acked < in.flow && (sent == lastSent || unanswered >= patience) {
				in.endLocked()
			}
			lastSent, lastAcked = sent, acked
			return !in.open || in.ending
		}(); over {
			return
		}
	}
}
