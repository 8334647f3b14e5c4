package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/sinks"
)

// Send publishes a message. What the connection says of it later, the flight
// knows.
func (w *writer) Send(ctx context.Context, m *sinks.FirehoseMessage) error {
	msg := w.out.message(m.Frame)
	if w.latest != nil {
		w.latest.address(msg, m)
	}
	if w.wholes != nil {
		if sent, err := w.wholes.send(ctx, m, msg); sent {
			return err
		}
	} else if sent, err := w.ingest.send(ctx, m, msg); sent {
		return err
	}
	reply, seq := w.flight.next(m.Position)
	w.out.link(reply, m.Frame.ID, seq)
	return w.publish(msg)
}

// publish hands a message to the connection. After an error it was not sent.
func (w *writer) publish(msg *nats.Msg) error {
	err := w.nc.PublishMsg(msg)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		w.flight.withdraw()
		w.out.unlink()
		return &sinks.TooLargeError{
			Place: place(w.opts.Stream), Size: int64(msg.Size() - len(msg.Subject) - len(msg.Reply)), Limit: w.nc.MaxPayload(),
			Remedy: "raise max_payload of the NATS server, or leave the large column out of the publication",
		}
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining),
		errors.Is(err, nats.ErrHeadersNotSupported), errors.Is(err, nats.ErrBadSubject):
		w.flight.withdraw()
		return sinks.Permanent(fmt.Errorf("stream %s: publish to %s: %w", w.opts.Stream, msg.Subject, err))
	}
	w.flight.interrupt(err) // it may have been sent in part, so it counts as sent
	return nil
}

// An outgoing is the one message that all are sent with: the client library
// encodes it before it returns.
type outgoing struct {
	msg nats.Msg

	stream      string
	cleanSource bool // needs no percent-encoding
	eventIDs    bool // Options.MsgID
	chained     bool // messages name the id of their predecessor

	lastID string // of the attempt's last message
	before string // lastID before the last link
	text   []byte // text[:tag] begins the ids of this attempt
	tag    int

	expectedStream, expectedSeq, expectedID, msgID                                            header
	id, source, typ, subject, partition, time, sequence, txid, txend, cause, filling, dataRef header
}

// A header is one key of the message's map. Its slice is changed in place.
type header struct {
	name  string
	value []string
	on    bool
}

func (h *header) set(in nats.Header, value string) {
	if value == "" {
		if h.on {
			delete(in, h.name)
			h.on = false
		}
		return
	}
	h.value[0] = value
	if !h.on {
		in[h.name] = h.value
		h.on = true
	}
}

func newOutgoing(from scope, opts *Options) *outgoing {
	h := func(name string) header { return header{name: name, value: make([]string, 1)} }
	source := from.Attribute()
	o := &outgoing{
		stream:         opts.Stream,
		cleanSource:    sinks.EscapeHeader(source) == source,
		eventIDs:       opts.MsgID,
		expectedStream: h(nats.ExpectedStreamHdr),
		expectedSeq:    h(nats.ExpectedLastSeqHdr),
		expectedID:     h(nats.ExpectedLastMsgIdHdr),
		msgID:          h(nats.MsgIdHdr),
		id:             h(attributePrefix + "id"),
		source:         h(attributePrefix + "source"),
		typ:            h(attributePrefix + "type"),
		subject:        h(attributePrefix + "subject"),
		partition:      h(attributePrefix + "partitionkey"),
		time:           h(attributePrefix + "time"),
		sequence:       h(headerSequence),
		txid:           h(attributePrefix + "txid"),
		txend:          h(attributePrefix + "txend"),
		cause:          h(attributePrefix + "cause"),
		filling:        h(headerFilling),
		dataRef:        h(attributePrefix + "dataref"),
	}
	o.msg.Header = nats.Header{
		attributePrefix + "specversion":     {sinks.SpecVersion},
		attributePrefix + "datacontenttype": {sinks.ContentType},
	}
	return o
}

// message fills in a frame; link does the rest. The result is valid until the
// next call.
func (o *outgoing) message(f *sinks.Frame) *nats.Msg {
	h := o.msg.Header
	id, source := f.ID, f.Source
	if !o.cleanSource {
		id, source = sinks.EscapeHeader(id), sinks.EscapeHeader(source)
	}
	subject := sinks.EscapeHeader(f.Subject)
	o.id.set(h, id)
	o.source.set(h, source)
	o.typ.set(h, f.Type)
	o.subject.set(h, subject)
	o.partition.set(h, subject)
	o.time.set(h, f.Time)
	o.sequence.set(h, f.Sequence)
	o.txid.set(h, f.TxID)
	word := func(is bool) string {
		if is {
			return "true"
		}
		return ""
	}
	o.txend.set(h, word(f.TxEnd))
	o.filling.set(h, word(f.Filling))
	o.cause.set(h, f.Cause)
	o.dataRef.set(h, f.DataRef)
	o.msg.Subject, o.msg.Data = f.Address, f.Body
	return &o.msg
}

// link completes a message: it is to be stored right behind the one before it,
// and nowhere else. Its reply address tells attempts apart.
//
// The first message of an attempt names the last sequence of the stream. The
// others name the id of their predecessor, since a sequence would not do: if a
// stranger's message took the place of message n, the server would refuse n, but
// accept n+1 behind the stranger's, and n would be missing.
//
// On a stream with replicas they name sequences all the same: there, servers up
// to 2.15 compare ids only when the message is replicated already, and stop the
// stream for good when they differ. See flight.strays for what is done instead.
func (o *outgoing) link(reply, eventID string, seq uint64) {
	h := o.msg.Header
	first := o.msg.Reply != reply
	if first {
		o.msg.Reply = reply
		o.lastID = ""
		o.text = strconv.AppendUint(o.text[:0], rand.Uint64(), 36)
		o.text = append(o.text, '.')
		o.tag = len(o.text)
	}
	expected, stream, id := "", "", ""
	if first || !o.chained || o.eventIDs {
		// With ids that survive restarts, only this keeps two firehoses apart.
		expected, stream = strconv.FormatUint(seq-1, 10), o.stream
	}
	switch {
	case o.eventIDs:
		id = eventID
	case o.chained:
		o.text = strconv.AppendUint(o.text[:o.tag], seq, 10)
		id = string(o.text)
	}
	o.expectedStream.set(h, stream)
	o.expectedSeq.set(h, expected)
	o.expectedID.set(h, o.lastID)
	o.msgID.set(h, id)
	o.before = o.lastID
	if o.chained {
		o.lastID = id
	}
}

// place completes a message of a batch, which needs no id, see ingest.
func (o *outgoing) place(reply string, seq uint64, first bool) {
	h := o.msg.Header
	stream := ""
	if first {
		stream = o.stream
	}
	o.expectedStream.set(h, stream)
	o.expectedSeq.set(h, strconv.FormatUint(seq-1, 10))
	o.expectedID.set(h, "")
	o.msgID.set(h, "")
	o.msg.Reply, o.lastID, o.before = reply, "", ""
}

// part completes a message of a whole: the server asks only what is before the
// first one, and answers the one with a reply address.
func (o *outgoing) part(reply string, seq uint64, first bool, eventID string) {
	h := o.msg.Header
	expected, stream, id := "", "", ""
	if first {
		expected, stream = strconv.FormatUint(seq-1, 10), o.stream
	}
	if o.eventIDs {
		id = eventID
	}
	o.expectedStream.set(h, stream)
	o.expectedSeq.set(h, expected)
	o.expectedID.set(h, "")
	o.msgID.set(h, id)
	o.msg.Reply, o.lastID, o.before = reply, "", ""
}

// unlink takes back the last link, of a message that was never sent.
func (o *outgoing) unlink() {
	if o.lastID = o.before; o.lastID == "" {
		o.msg.Reply = "" // the next one is the first of the attempt
	}
}
