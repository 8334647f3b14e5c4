package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// smallestDuplicates is the least duplicate window that the server accepts. It
// remembers the ids of that time, which nothing here relies on.
const smallestDuplicates = 100 * time.Millisecond

// largeDuplicates is a window that is worth a warning: each message in it costs
// the server some 200 bytes of memory.
const largeDuplicates = 10 * time.Second

// codeBadRequest is the status of the JetStream API for a request that is wrong.
const codeBadRequest = 400

// Codes of the JetStream API that the client library has no names for.
const (
	codeSubjectOverlap  natsjs.ErrorCode = 10065
	codeStreamNotMatch  natsjs.ErrorCode = 10060
	codeHeaderTooLarge  natsjs.ErrorCode = 10097
	codeStreamSealed    natsjs.ErrorCode = 10109
	codeReplicasRefused natsjs.ErrorCode = 10074
)

// ensureStream creates the stream, or checks the one that exists.
func (w *writer) ensureStream(ctx context.Context) error {
	_, err := w.js.Stream(ctx, w.opts.Stream)
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		config := w.streamConfig()
		_, err = w.js.CreateStream(ctx, config)
		if api, ok := errors.AsType[*natsjs.APIError](err); ok && api.Code == codeBadRequest && config.AllowBatchPublish {
			// A server that does not know fast ingest may refuse the whole.
			config.AllowBatchPublish = false
			_, err = w.js.CreateStream(ctx, config)
		}
		if errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) {
			err = nil // somebody else was faster; the tail's reader checks it
		}
	}
	return w.explain(ctx, err)
}

func (w *writer) streamConfig() natsjs.StreamConfig {
	c := natsjs.StreamConfig{
		Name:        w.opts.Stream,
		Subjects:    []string{w.subjects()},
		Retention:   natsjs.LimitsPolicy,
		Storage:     natsjs.FileStorage,
		Replicas:    w.opts.Replicas,
		MaxAge:      w.opts.MaxAge,
		MaxBytes:    w.opts.MaxBytes,
		MaxMsgs:     w.opts.MaxMsgs,
		AllowDirect: true,
		Duplicates:  smallestDuplicates,
	}
	c.AllowAtomicPublish = w.wholes != nil
	c.AllowBatchPublish = w.ingest.possible(&tail{batched: true}) == ""
	if w.opts.Compression {
		c.Compression = natsjs.S2Compression
	}
	if w.opts.Cluster != "" || len(w.opts.Tags) > 0 {
		c.Placement = &natsjs.Placement{Cluster: w.opts.Cluster, Tags: w.opts.Tags}
	}
	if w.opts.MsgID {
		c.Duplicates = 0 // the server's default
	}
	if w.latest != nil {
		w.latest.configure(&c)
	}
	return c
}

func (w *writer) subjects() string { return w.from.address() + ".>" }

// explain turns what the server says about a stream into words and a remedy.
// Faults that may pass stay as they are.
func (w *writer) explain(ctx context.Context, err error) error {
	fail := func(reason string) error {
		return &sinks.PlaceError{Place: place(w.opts.Stream), Reason: reason, Err: err}
	}
	var api *natsjs.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, natsjs.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return fail("the NATS server has no JetStream; start it with -js, or with a jetstream block in its configuration")
	case errors.Is(err, natsjs.ErrJetStreamNotEnabledForAccount):
		return fail("JetStream is not enabled for this account; enable it there, or use another user")
	case errors.Is(err, nats.ErrPermissionViolation):
		return fail("this user may not manage streams; allow it to publish to " + w.opts.api() + ">")
	case errors.As(err, &api) && api.ErrorCode == codeSubjectOverlap:
		owner, lookup := w.js.StreamNameBySubject(ctx, w.from.resetAddress())
		if lookup != nil {
			owner = "another stream"
		}
		return fail(fmt.Sprintf("its subjects %s belong to %s already; set the name of the stream to that, or take the subjects from it", w.subjects(), owner))
	case errors.As(err, &api) && api.ErrorCode == codeReplicasRefused:
		return fail(fmt.Sprintf("%d replicas need a cluster; set the replicas to 1", w.opts.Replicas))
	case refusal(err) != "":
		return fail(refusal(err))
	}
	return fmt.Errorf("stream %s: %w", w.opts.Stream, err)
}

// check returns what keeps an existing stream from being the firehose's.
// Limits are the owner's business.
func (w *writer) check(c *natsjs.StreamConfig) error {
	var reason string
	switch {
	case c.Mirror != nil:
		reason = "it is a mirror and takes no messages; use another stream"
	case c.Sealed:
		reason = "it is sealed and takes no messages; use another stream"
	case len(c.Sources) > 0:
		reason = "it copies from other streams, but needs this writer alone; use another stream"
	case c.Retention != natsjs.LimitsPolicy:
		reason = fmt.Sprintf("its retention is %q, which drops messages that were read; it must be \"limits\", so delete the stream or use another", c.Retention)
	case c.NoAck:
		reason = "it does not acknowledge; set no_ack to false"
	case !covers(c.Subjects, w.subjects()):
		reason = fmt.Sprintf("its subjects %q do not hold %s; add that", c.Subjects, w.subjects())
	case w.wholes != nil && !c.AllowAtomicPublish:
		reason = "it does not take transactions as a whole; set allow_atomic, which needs NATS 2.12, or do not set Atomic"
	case w.latest != nil && c.MaxMsgsPerSubject != 1:
		reason = "it keeps more than the last value of a key; set its history (max_msgs_per_subject) to 1"
	default:
		return nil
	}
	return &sinks.PlaceError{Place: place(w.opts.Stream), Reason: reason}
}

// covers reports whether one of the patterns matches everything that want, a
// pattern that ends with ">", matches.
func covers(patterns []string, want string) bool {
	for _, p := range patterns {
		if coversOne(strings.Split(p, "."), strings.Split(want, ".")) {
			return true
		}
	}
	return false
}

func coversOne(p, want []string) bool {
	for i, token := range p {
		switch {
		case i >= len(want):
			return false
		case token == ">":
			return true
		case want[i] == ">":
			return false // want goes on with any number of tokens
		case token != "*" && token != want[i]:
			return false
		}
	}
	return len(p) == len(want)
}
