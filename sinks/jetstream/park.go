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

const (
	refScheme = "nats-object:"
	// parkedChunk is how much of a body is in one message at most; the headers
	// of a chunk take little.
	parkedChunk  = 128 << 10
	chunkHeaders = 4 << 10
)

// ParkedName returns the name of the object store that holds the bodies that
// are too large for a stream: the stream's, and "_PARKED". The name of an object is
// the position of its event.
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
		store, err = w.js.CreateObjectStore(ctx, natsjs.ObjectStoreConfig{
			Bucket: bucket, Description: "bodies too large for " + place(w.opts.Stream),
			Replicas: w.opts.Replicas, TTL: w.opts.MaxAge,
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

// Unpark fetches the body that a message's attribute dataref speaks of, as
// [sinks.Message.DataRef] has it. It asks once.
func Unpark(ctx context.Context, nc *nats.Conn, ref string) ([]byte, error) {
	rest, ok := strings.CutPrefix(ref, refScheme)
	bucket, name, named := strings.Cut(rest, "/")
	if !ok || !named {
		return nil, fmt.Errorf("jetstream: %q does not say where a body is parked: want %s<store>/<name>", ref, refScheme)
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	store, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w", bucket, err)
	}
	body, err := store.GetBytes(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("object %s of store %s: %w", name, bucket, err)
	}
	return body, nil
}
