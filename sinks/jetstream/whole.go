package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// maxWhole is how many messages a server takes as one.
	maxWhole = 1000
	// wholeTries is how often a transaction is sent as a whole, before it goes
	// message by message.
	wholeTries  = 5
	wholeSuffix = ".whole"
	maxHeader   = 1<<16 - 1
)

// Codes of the JetStream API for wholes of which nothing is stored.
const (
	codeWholeDuplicate  natsjs.ErrorCode = 10201
	codeWholeIncomplete natsjs.ErrorCode = 10176
	codeWholeTooLarge   natsjs.ErrorCode = 10199
	codeWholesTooMany   natsjs.ErrorCode = 10210
	// codeWholeNoEnd says that the server cannot end a whole with a message that is not
	// stored itself, which NATS 2.12 could not.
	codeWholeNoEnd natsjs.ErrorCode = 10200
)

// Wholes are transactions that the server stores as one each (its atomic batches,
// ADR-50). Only the last message of a whole, which commits it, is answered.
//
// The first message of a whole names the stream's last sequence; the server
// allows the others no such condition. So a whole is sent when nothing is in
// flight, and nothing behind it before it is answered: were the next one on its way already and
// this one refused, because an earlier attempt's copy of it came late, or because of
// strangers, the next one would fit behind what took the place.
type wholes struct {
	w *writer

	batch    *listeners.Batch // that is being sent; nil: none
	answer   bool             // of one that was sent is to come
	id       string
	sent     int
	refusals int
	limit    int64 // of a message's size in the stream; 0 for none

	batchID, batchSeq, commit header
}

func newWholes(w *writer) *wholes {
	h := func(name string) header { return header{name: name, value: make([]string, 1)} }
	return &wholes{w: w, batchID: h("Nats-Batch-Id"), batchSeq: h("Nats-Batch-Sequence"), commit: h("Nats-Batch-Commit")}
}

// begins reports whether a transaction that can be a whole begins with a message.
// One message is whole by itself.
func (a *wholes) begins(m *sinks.FirehoseMessage) bool {
	b := m.Batch
	n := len(b.Events)
	if m.Index != 0 || b.Kind != listeners.Changes || !b.First || !b.Last || n < 2 || n > min(maxWhole, a.w.opts.MaxPending) {
		return false
	}
	if a.refusals >= wholeTries {
		a.refusals = 0
		return false
	}
	return true
}

// send sends a message as a part of a whole, unless it is to go by itself. It may
// wait until nothing is in flight any more.
func (a *wholes) send(ctx context.Context, m *sinks.FirehoseMessage, msg *nats.Msg) (sent bool, err error) {
	if a.answer {
		if err := a.w.flight.await(ctx); err != nil {
			return true, err
		}
		a.answer, a.refusals = false, 0
	}
	if a.batch == nil {
		if !a.begins(m) {
			a.mark(msg.Header, "", "", "")
			return false, nil
		}
		if err := a.w.flight.await(ctx); err != nil {
			return true, err
		}
		a.batch, a.sent, a.id = m.Batch, 0, strconv.FormatUint(rand.Uint64(), 36)
		a.w.flight.beginWhole(a.w.inbox + "." + a.id)
	}
	return true, a.part(m, msg)
}

func (a *wholes) part(m *sinks.FirehoseMessage, msg *nats.Msg) error {
	_, seq := a.w.flight.next(m.Position)
	a.sent++
	reply, commit := "", ""
	last := a.sent == len(a.batch.Events)
	if last {
		reply, commit = a.w.inbox+"."+a.id+wholeSuffix, "1"
	}
	a.w.out.part(reply, seq, a.sent == 1, m.Frame.ID)
	a.mark(msg.Header, a.id, strconv.Itoa(a.sent), commit)
	if err := a.fits(msg); err != nil {
		a.w.flight.withdraw()
		a.sent--
		return err
	}
	if last {
		a.w.flight.endBatch(false)
	}
	if err := a.w.publish(msg); err != nil { // it was not sent
		a.sent--
		if last {
			a.w.flight.reopenBatch()
		}
		return err
	}
	if last {
		a.batch, a.answer = nil, true
	}
	return nil
}

// fits finds out what the server would not say: which message of a whole is the
// one that is too large.
func (a *wholes) fits(msg *nats.Msg) error {
	header := 12
	for k, v := range msg.Header {
		header += len(k) + len(v[0]) + 4
	}
	large := &sinks.TooLargeError{Place: place(a.w.opts.Stream)}
	switch size := int64(header + len(msg.Data)); {
	case header > maxHeader:
		large.Size, large.Limit, large.Remedy = int64(header), maxHeader, remedyHeader
	case a.limit > 0 && size > a.limit:
		large.Size, large.Limit, large.Remedy = size, a.limit, remedySize
	default:
		return nil
	}
	return large
}

func (a *wholes) mark(h nats.Header, id, seq, commit string) {
	a.batchID.set(h, id)
	a.batchSeq.set(h, seq)
	a.commit.set(h, commit)
}

// cutShort has the server store what it has of a whole, because there is no room
// for the rest in the window; that follows message by message.
func (a *wholes) cutShort() {
	if a.batch == nil || a.sent == 0 {
		return
	}
	a.batch, a.answer = nil, true
	a.w.flight.endBatch(false)
	h := nats.Header{}
	h.Set(a.batchID.name, a.id)
	h.Set(a.batchSeq.name, strconv.Itoa(a.sent+1))
	h.Set(a.commit.name, "eob")
	msg := nats.Msg{Subject: a.w.from.endAddress(), Header: h, Reply: a.w.inbox + "." + a.id + wholeSuffix}
	if err := a.w.nc.PublishMsg(&msg); err != nil {
		a.w.flight.interrupt(err)
	}
}

// abandon is for a fault: what was not committed is stored never.
func (a *wholes) abandon() {
	if a.batch != nil {
		a.w.flight.giveUp()
		a.batch = nil
	}
}

// restart is for a new attempt, after a fault of the one before.
func (a *wholes) restart(t *tail, fault error) {
	a.limit = t.limit
	api, said := errors.AsType[*natsjs.APIError](fault)
	if a.answer && said {
		switch api.ErrorCode {
		case codeWholeIncomplete, codeWholeTooLarge, codeWholesTooMany, natsjs.JSErrCodeStreamMessageExceedsMaximum, codeHeaderTooLarge:
			a.refusals++
		case codeWholeNoEnd: // what does not fit into the window at once never will
			a.refusals = wholeTries
		default: // not about wholes
		}
	}
	a.batch, a.answer = nil, false
}

// parseWhole reads the answer to a whole.
func parseWhole(m *nats.Msg, stream string) ingestAnswer {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return ingestAnswer{err: nats.ErrNoResponders, lost: true}
	}
	var a struct {
		Stream string           `json:"stream"`
		Seq    uint64           `json:"seq"`
		Count  uint64           `json:"count"`
		Error  *natsjs.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return ingestAnswer{err: fmt.Errorf("acknowledgement: %w", err), lost: true}
	}
	if a.Error == nil && a.Stream == stream {
		return ingestAnswer{count: a.Count, seq: a.Seq, final: true}
	}
	if a.Error == nil {
		return ingestAnswer{err: fmt.Errorf("acknowledgement of a whole: %.200q", m.Data), lost: true}
	}
	answer := ingestAnswer{err: a.Error, over: true}
	switch a.Error.ErrorCode {
	case codeWholeDuplicate, codeWholeIncomplete, codeWholeTooLarge, codeWholesTooMany, codeWholeNoEnd:
		answer.none = true
	default:
		answer.none = refused(a.Error)
	}
	return answer
}
