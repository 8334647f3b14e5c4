package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
)

// Headers of a message. The names of attributes are those of package sinks.
const (
	attributePrefix = "ce-"
	headerSequence  = attributePrefix + "sequence"
	headerTxEnd     = attributePrefix + "txend"
	headerFilling   = attributePrefix + "filling"
)

// A tail is the end of the stream at one moment.
type tail struct {
	seq      uint64 // of the last message that was ever stored
	replicas int
	batched  bool          // the stream takes batches of fast ingest
	window   time.Duration // in which the server looks for duplicates
	origin   uint64        // what seq was before the first one
	limit    int64         // of a message's size in this stream; 0 for none
	found    bool          // a message is left; otherwise the stream is empty or its limits have removed all
	exact    bool          // it is the one at seq; otherwise somebody deleted that
	// subject and position of it. A message that is not a firehose's has the
	// zero position.
	subject  string
	position listeners.Position
	filling  bool // rows, of a snapshot perhaps, go on behind it
}

// readTail asks the stream's leader, since a replica may be behind.
func (w *writer) readTail(ctx context.Context, timeout time.Duration) (tail, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var t tail
	s, err := w.js.Stream(ctx, w.opts.Stream)
	if err != nil {
		return t, err
	}
	info := s.CachedInfo()
	if c := info.Cluster; c != nil && c.Leader == "" {
		return t, errNoLeader // the answer is a follower's and may be an old one
	}
	if err := w.check(&info.Config); err != nil {
		return t, err
	}
	t.replicas, t.batched = info.Config.Replicas, info.Config.AllowBatchPublish
	t.seq, t.window = info.State.LastSeq, info.Config.Duplicates
	t.origin = max(info.Config.FirstSeq, 1) - 1
	t.limit = max(int64(info.Config.MaxMsgSize), 0)
	if info.State.Msgs == 0 {
		return t, nil
	}
	// Whoever has the message has the right one: only "not found" depends on
	// whom one asks, and then it is the leader's word that counts.
	m, err := s.GetMsg(ctx, t.seq)
	if errors.Is(err, natsjs.ErrMsgNotFound) && info.Config.AllowDirect {
		m, err = w.ask(ctx, `{"seq":`+strconv.FormatUint(t.seq, 10)+`}`)
	}
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		// Somebody deleted it. What is left before it is as good.
		m, err = w.ask(ctx, `{"last_by_subj":"`+w.subjects()+`"}`)
	}
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("message %d: %w", t.seq, err)
	}
	// A predecessor's message may have come meanwhile, and in a bucket taken the
	// place of the one that was the last.
	t.seq = max(t.seq, m.Sequence)
	t.found, t.exact, t.subject = true, m.Sequence == t.seq, m.Subject
	if p, err := listeners.ParsePosition(m.Header.Get(headerSequence)); err == nil {
		t.position = p
	}
	switch operation(m.Subject) {
	case "reset":
		t.filling = true
	case "read":
		t.filling = m.Header.Get(headerTxEnd) != "true"
	default:
		t.filling = m.Header.Get(headerFilling) == "true"
	}
	return t, nil
}

// fills reports whether the tail is within a snapshot. Rows that are read again have no
// reset at their place.
func (w *writer) fills(ctx context.Context, t *tail) (bool, error) {
	if !t.filling || operation(t.subject) != "read" {
		return t.filling, nil
	}
	m, err := w.ask(ctx, `{"last_by_subj":"`+w.from.resetAddress()+`"}`)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return true, nil // the first snapshot
	}
	if err != nil {
		return false, err
	}
	reset, err := listeners.ParsePosition(m.Header.Get(headerSequence))
	return err == nil && reset.Epoch == t.position.Epoch && reset.Commit == t.position.Commit, nil
}

// operation returns the last token but one of a subject.
func operation(subject string) string {
	tokens := strings.Split(subject, ".")
	return tokens[max(len(tokens)-2, 0)]
}

// ask fetches a message from the leader. The client library would take the
// direct way, to any replica.
func (w *writer) ask(ctx context.Context, query string) (*natsjs.RawStreamMsg, error) {
	reply, err := w.nc.RequestWithContext(ctx, w.opts.api()+"STREAM.MSG.GET."+w.opts.Stream, []byte(query))
	if err != nil {
		return nil, err
	}
	var r struct {
		Message *struct {
			Subject string `json:"subject"`
			Seq     uint64 `json:"seq"`
			Header  []byte `json:"hdrs"`
			Data    []byte `json:"data"`
		} `json:"message"`
		Error *natsjs.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &r); err != nil {
		return nil, err
	}
	if r.Error != nil {
		return nil, r.Error
	}
	if r.Message == nil {
		return nil, natsjs.ErrInvalidJetStreamResponse
	}
	m := &natsjs.RawStreamMsg{Subject: r.Message.Subject, Sequence: r.Message.Seq, Data: r.Message.Data}
	if len(r.Message.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(r.Message.Header); err != nil {
			return nil, err
		}
	}
	return m, nil
}
