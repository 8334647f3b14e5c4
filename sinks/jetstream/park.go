package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

const (
	refScheme = "nats-object:"
	// parkedChunk is how much of a body is in one message at most; the headers
	// of a chunk take little.
	parkedChunk  = 128 << 10
	chunkHeaders = 4 << 10
)

// ParkedName returns the name of the object store that holds the bodies that
// are too large for a stream: the stream's, and "_PARKED". The name of an object is
// the position of its event. When the store is made it gets the MaxAge of the stream
// there is, and it keeps that. A body whose message the stream's MaxBytes or MaxMsgs
// has removed stays without MaxAge for good, and so does one that a later entry of a
// bucket has replaced, see [NewLatest]: delete them by hand.
func ParkedName(stream string) string { return stream + "_PARKED" }

// Park stores the body of a message as an object. One that is there already is
// replaced.
func (w *writer) Park(ctx context.Context, m *sinks.FirehoseMessage) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, max(w.opts.AckTimeout, time.Minute))
	defer cancel()
	bucket := ParkedName(w.opts.Stream)
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("park the body of %s in object store %s: %w", m.Frame.ID, bucket, err)
	}
	store, err := w.js.ObjectStore(ctx, bucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		// Its bodies must not expire before their messages, whatever the options say.
		var stream natsjs.Stream
		if stream, err = w.js.Stream(ctx, w.opts.Stream); err != nil {
			return fail(err)
		}
		store, err = w.js.CreateObjectStore(ctx, natsjs.ObjectStoreConfig{
			Bucket: bucket, Description: "bodies too large for " + place(w.opts.Stream),
			Replicas: w.opts.Replicas, TTL: stream.CachedInfo().Config.MaxAge,
		})
	}
	if errors.Is(err, natsjs.ErrInvalidStoreName) {
		return fail(sinks.Permanent(err))
	}
	if err != nil {
		return fail(err)
	}
	chunk := min(parkedChunk, max(w.nc.MaxPayload()-chunkHeaders, 1<<10))
	meta := natsjs.ObjectMeta{
		Name: m.Frame.Sequence, Description: sinks.EscapeHeader(m.Frame.Subject),
		Opts: &natsjs.ObjectMetaOptions{ChunkSize: uint32(chunk)},
	}
	if _, err := store.Put(ctx, meta, strings.NewReader(string(m.Frame.Body))); err != nil {
		return fail(err)
	}
	return refScheme + bucket + "/" + m.Frame.Sequence, nil
}

// Unpark implements [sinks.Unparker].
func (l *streamLog) Unpark(ctx context.Context, ref string) ([]byte, error) {
	return unparkPatiently(ctx, l.js, ref)
}

// unparkTimeout bounds one try to fetch a body, which may be large.
const unparkTimeout = time.Minute

// unparkPatiently tries again while the server is away.
func unparkPatiently(ctx context.Context, js natsjs.JetStream, ref string) ([]byte, error) {
	body, err := backoff.RetryWithData(func() ([]byte, error) {
		limited, cancel := context.WithTimeout(ctx, unparkTimeout)
		defer cancel()
		body, err := unpark(limited, js, ref)
		if _, gone := errors.AsType[*sinks.PlaceError](err); gone || errors.Is(err, nats.ErrConnectionClosed) {
			return nil, backoff.Permanent(err)
		}
		return body, err
	}, backoff.WithContext(backoff.NewExponentialBackOff(backoff.WithMaxElapsedTime(0)), ctx))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return body, err
}

// Unpark fetches the body that a message's attribute dataref speaks of, as
// [sinks.Message.DataRef] has it. It asks once. A [sinks.PlaceError] says that it is
// gone.
func Unpark(ctx context.Context, nc *nats.Conn, ref string) ([]byte, error) {
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	return unpark(ctx, js, ref)
}

func unpark(ctx context.Context, js natsjs.JetStream, ref string) ([]byte, error) {
	gone := func(err error, what, name string) error {
		if errors.Is(err, natsjs.ErrBucketNotFound) || errors.Is(err, natsjs.ErrObjectNotFound) {
			return &sinks.PlaceError{Place: what + " " + name, Err: err, Reason: "the body that was parked there is gone; have its source write a snapshot, or start behind it"}
		}
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	rest, ok := strings.CutPrefix(ref, refScheme)
	bucket, name, named := strings.Cut(rest, "/")
	if !ok || !named {
		return nil, &sinks.PlaceError{Place: fmt.Sprintf("parked body %q", ref), Reason: "that says no place: want " + refScheme + "<store>/<name>"}
	}
	store, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, gone(err, "object store", bucket)
	}
	body, err := store.GetBytes(ctx, name)
	if err != nil {
		return nil, gone(err, "object", bucket+"/"+name)
	}
	return body, nil
}
