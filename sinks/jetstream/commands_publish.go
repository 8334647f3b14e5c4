package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// Publish implements [sinks.CommandBroker].
func (b *CommandBroker) Publish(ctx context.Context, envelopes []sinks.CommandEnvelope) []error {
	errs := make([]error, len(envelopes))
	futures := make([]natsjs.PubAckFuture, len(envelopes))
	if err := b.open(); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for i := range envelopes {
		m := b.message(&envelopes[i])
		if payload(m) > b.room() {
			errs[i] = nats.ErrMaxPayload
			continue
		}
		futures[i], errs[i] = b.js.PublishMsgAsync(m, natsjs.WithRetryAttempts(0), natsjs.WithExpectStream(CommandStream(envelopes[i].Queue)))
	}
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	failed := false
	for i, f := range futures {
		e := &envelopes[i]
		if errs[i] == nil {
			select {
			case <-ctx.Done():
				errs[i] = context.Cause(ctx)
			case <-f.Ok():
			case errs[i] = <-f.Err():
			}
		}
		if errs[i] != nil {
			errs[i] = b.explainPublish(ctx, e, errs[i])
			failed = true
		}
	}
	if !failed {
		return nil
	}
	return errs
}

// room is how large a command may be: should it become a dead letter, the
// reason has to fit, too.
func (b *CommandBroker) room() int64 {
	limit := b.nc.MaxPayload()
	return limit - min(deadRoom, limit/4)
}

func (b *CommandBroker) message(e *sinks.CommandEnvelope) *nats.Msg {
	m := nats.NewMsg(CommandSubject(e.Queue, e.Name))
	m.Data = e.Body
	putEnvelope(m.Header, e)
	m.Header[natsjs.MsgIDHeader] = []string{sinks.EscapeHeader(e.Dedupe)}
	if e.At.IsZero() {
		return m
	}
	b.mu.Lock()
	scheduled := b.scheduled[e.Queue]
	b.mu.Unlock()
	if !scheduled {
		return m // a worker gives it back until its time has come
	}
	// A schedule is a message of its own subject; the server replaces it by
	// the command when the time has come. The same command sent twice is one
	// schedule.
	sum := sha256.Sum256([]byte(e.Dedupe))
	target := m.Subject
	m.Subject = delayPrefix(e.Queue) + hex.EncodeToString(sum[:16])
	m.Header[natsjs.ScheduleHeader] = []string{"@at " + timeText(e.At)}
	m.Header[natsjs.ScheduleTargetHeader] = []string{target}
	return m
}

// explainPublish returns a final error for what will not pass, and
// [sinks.ErrQueueFull] for want of room.
func (b *CommandBroker) explainPublish(ctx context.Context, e *sinks.CommandEnvelope, err error) error {
	stream := CommandStream(e.Queue)
	var api *natsjs.APIError
	isAPI := errors.As(err, &api)
	switch {
	case errors.Is(err, nats.ErrMaxPayload) || isAPI && api.ErrorCode == codeMessageTooLarge:
		return b.tooLarge(ctx, e, isAPI)
	case isAPI && (api.ErrorCode == codeStoreFailed && strings.Contains(api.Description, "maximum") ||
		api.ErrorCode == codeAccountExceeded || api.ErrorCode == codeInsufficient || api.ErrorCode == codeStorageExceeded ||
		api.ErrorCode == codeMemoryExceeded):
		return fmt.Errorf("stream %s: %w: %w", stream, sinks.ErrQueueFull, err)
	case isAPI && api.ErrorCode == codeStreamNotMatch:
		return &sinks.QueueError{Queue: e.Queue, Reason: "its subjects belong to another stream than " + stream + "; take them from that", Err: err}
	case isAPI && api.ErrorCode == codeSchedulesNotAllowed:
		return &sinks.QueueError{Queue: e.Queue, Reason: "stream " + stream + " takes no schedules any more; start this program anew", Err: err}
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, natsjs.ErrNoStreamResponse):
		ctx, cancel := b.bounded(ctx)
		defer cancel()
		if _, lookup := b.js.Stream(ctx, stream); errors.Is(lookup, natsjs.ErrStreamNotFound) {
			return b.missing(e.Queue)
		}
	}
	return fmt.Errorf("stream %s: %w", stream, err)
}

func (b *CommandBroker) missing(queue string) error {
	return &sinks.QueueError{Queue: queue, Reason: fmt.Sprintf("stream %s was deleted while it was in use; start this program anew to create it", CommandStream(queue))}
}

// tooLarge finds the limit that the message broke.
func (b *CommandBroker) tooLarge(ctx context.Context, e *sinks.CommandEnvelope, ofStream bool) error {
	large := &sinks.CommandTooLargeError{Queue: e.Queue, Name: e.Name, ID: e.ID, Size: payload(b.message(e)), Limit: b.room()}
	if ofStream {
		large.Limit = 0
		ctx, cancel := b.bounded(ctx)
		defer cancel()
		if s, err := b.js.Stream(ctx, CommandStream(e.Queue)); err == nil && s.CachedInfo().Config.MaxMsgSize > 0 {
			large.Limit = int64(s.CachedInfo().Config.MaxMsgSize)
		}
	}
	return large
}
