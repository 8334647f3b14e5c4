package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// pump sends every message that was not sent, and recovers from faults.
func (f *Firehose) pump(ctx context.Context) error {
	for {
		e, seq, ok := f.w.next()
		if !ok {
			return nil
		}
		fault, err := f.send(ctx, &e, seq)
		if err == nil && fault {
			err = f.resync(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// send publishes the rest of an entry, from the message with a sequence on. It
// returns true when a fault ended the attempt; an error is final, unless ctx
// ended.
func (f *Firehose) send(ctx context.Context, e *entry, seq uint64) (fault bool, err error) {
	for ; seq <= e.last(); seq++ {
		i := e.start + int(seq-e.first)
		if !marker(e.batch) {
			if err := f.ownEvent(&e.batch.Events[i]); err != nil {
				f.dead = err
				return false, err
			}
		}
		frame := f.encoder.Encode(e.batch, i)
		m := f.out.message(frame)
		if f.latest != nil {
			f.latest.address(m, e.batch, i, frame)
		}
		size := len(m.Data) + len(frame.ID) + 2*len(frame.Subject) + headerEstimate
		for {
			reply, admission := f.w.admit(size, f.opts.MaxPendingBytes)
			if admission == over {
				return true, nil
			}
			if admission == granted {
				f.out.link(reply, frame.ID, seq)
				break
			}
			select {
			case <-f.w.wake:
			case <-ctx.Done():
				return false, f.interrupted(ctx)
			}
		}
		if err := f.nc.PublishMsg(m); err != nil {
			if err := f.refused(err, e.batch, i, m); err != nil {
				f.dead = err
				return false, err
			}
			return true, nil
		}
	}
	return false, nil
}

// headerEstimate is about what the headers take apart from key and id.
const headerEstimate = 400

func (f *Firehose) ownEvent(e *listeners.Event) error {
	if e.Schema == f.out.schema {
		return nil
	}
	if f.from.region != "" {
		if e.Schema.Namespace != "" || e.Schema.Name != f.from.region {
			return fmt.Errorf("jetstream: %s of %s does not belong into the firehose of %s", e.Schema.Collection(), e.Schema.Source, f.from)
		}
	} else if e.Schema.Namespace == "" {
		return fmt.Errorf("jetstream: region %s of %s does not belong into the firehose of a database", e.Schema.Name, e.Schema.Source)
	}
	if err := f.ours(e.Schema.Source, "table "+e.Schema.Collection()); err != nil {
		return err
	}
	f.out.schema = e.Schema
	return nil
}

// refused handles an error of the client library. It returns the final ones.
func (f *Firehose) refused(err error, b *listeners.Batch, i int, m *nats.Msg) error {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		f.w.withdraw()
		return f.tooLarge(b, i, int64(m.Size()-len(m.Subject)-len(m.Reply)), f.nc.MaxPayload(),
			"raise max_payload of the NATS server, or leave the large column out of the publication")
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining),
		errors.Is(err, nats.ErrHeadersNotSupported), errors.Is(err, nats.ErrBadSubject):
		f.w.withdraw()
		return fmt.Errorf("stream %s: publish to %s: %w", f.opts.Stream, m.Subject, err)
	}
	f.w.interrupt(err) // it may have been sent in part, so it counts as sent
	return nil
}

func (f *Firehose) tooLarge(b *listeners.Batch, i int, size, limit int64, remedy string) error {
	e := &TooLargeError{Position: b.Position, Size: size, Limit: limit, Remedy: remedy}
	if !marker(b) {
		event := &b.Events[i]
		e.Collection, e.Key, e.Op, e.Position = event.Schema.Collection(), event.Key().String(), event.Op, event.Position
	}
	return e
}

// An outgoing is the one message that all are sent with: the client library
// encodes it before it returns.
type outgoing struct {
	msg    nats.Msg
	schema *listeners.Schema // the last one found to be the database's

	stream      string
	cleanSource bool // needs no percent-encoding
	eventIDs    bool // Options.MsgID
	chained     bool // messages name the id of their predecessor

	lastID string // of the attempt's last message
	text   []byte // text[:tag] begins the ids of this attempt
	tag    int

	expectedStream, expectedSeq, expectedID, msgID                          header
	id, source, typ, subject, partition, time, sequence, txid, txend, cause header
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
	source := from.attribute()
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
	txend := ""
	if f.TxEnd {
		txend = "true"
	}
	o.txend.set(h, txend)
	o.cause.set(h, f.Cause)
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
// stream for good when they differ. See window.strays for what is done instead.
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
	if o.chained {
		o.lastID = id
	}
}
