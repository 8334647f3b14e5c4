package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// Defaults of [InboxOptions].
const (
	DefaultInboxBucket = "rowcall-inbox"
	DefaultRemember    = 7 * 24 * time.Hour
	DefaultClaim       = 30 * time.Second

	inboxPoll = 100 * time.Millisecond
)

// InboxOptions set up an [Inbox]. Nil and zero mean the defaults.
type InboxOptions struct {
	// Bucket is the name of the KV bucket. Default [DefaultInboxBucket].
	Bucket string
	// Remember is how long the bucket remembers a command when it is created.
	// Default [DefaultRemember].
	Remember time.Duration
	// Replicas is the number of servers that store the bucket when it is
	// created. Default 1.
	Replicas int
	// Claim is how long a worker holds a command without a sign of life; it
	// gives one every third of it. Workers' clocks have to agree better than that.
	// Default [DefaultClaim].
	Claim time.Duration
	// StopAtUnclear says what happens to a command whose worker died between
	// the beginning of its handler and the memory of its end. Default: it is
	// carried out again, maybe a second time. With StopAtUnclear it becomes a
	// dead letter with the reason "unclear", and somebody has to look: at most
	// once, for effects that must not be repeated.
	StopAtUnclear bool
}

// An Inbox remembers commands in a JetStream KV bucket. It keeps a command that
// is delivered again, or sent twice, from being carried out again, also at the
// same time elsewhere. But the bucket cannot be written together with a handler's
// effect: see StopAtUnclear. Where the effect is in Postgres, use package
// pginbox. Its methods may be called concurrently.
type Inbox struct {
	kv   natsjs.KeyValue
	opts InboxOptions
}

var _ sinks.Inbox = (*Inbox)(nil)

// OpenInbox returns an inbox, and creates its bucket if that is missing. It tries once,
// blocks for round trips, and starts nothing that would have to be closed. The
// connection stays the caller's.
func OpenInbox(ctx context.Context, nc *nats.Conn, opts *InboxOptions) (*Inbox, error) {
	var o InboxOptions
	if opts != nil {
		o = *opts
	}
	if o.Bucket == "" {
		o.Bucket = DefaultInboxBucket
	}
	if o.Remember == 0 {
		o.Remember = DefaultRemember
	}
	if o.Claim == 0 {
		o.Claim = DefaultClaim
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if nc == nil {
		return nil, fmt.Errorf("inbox %s: there must be a connection", o.Bucket)
	}
	if o.Claim < time.Second || o.Remember < o.Claim || o.Replicas < 1 {
		return nil, fmt.Errorf("inbox %s: the claim %s must be a second at least, remember %s no less, and replicas %d positive", o.Bucket, o.Claim, o.Remember, o.Replicas)
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("inbox %s: %w", o.Bucket, err)
	}
	kv, err := js.KeyValue(ctx, o.Bucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, natsjs.KeyValueConfig{
			Bucket: o.Bucket, Description: "commands that were carried out", TTL: o.Remember, Replicas: o.Replicas,
		})
		if errors.Is(err, natsjs.ErrBucketExists) { // somebody else was faster
			kv, err = js.KeyValue(ctx, o.Bucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("inbox %s: %w", o.Bucket, err)
	}
	return &Inbox{kv: kv, opts: o}, nil
}

// Once implements [sinks.Inbox]. A reply that is too large for the bucket is not
// remembered; the command is, and when it comes again that is a
// [sinks.Permanent] error.
func (i *Inbox) Once(ctx context.Context, queue, id string, do func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	h := &held{inbox: i, key: sinks.EscapeToken(queue) + "." + sinks.EscapeToken(id), by: rand.Text()}
	fail := func(err error) ([]byte, bool, error) {
		return nil, false, fmt.Errorf("inbox %s, %s: %w", i.opts.Bucket, id, err)
	}
	done, err := h.take(ctx)
	switch {
	case err != nil:
		return fail(err)
	case done != nil && done.Large > 0:
		return fail(sinks.Permanent(fmt.Errorf("the command was carried out before, and its reply of %d bytes was too large to be remembered", done.Large)))
	case done != nil:
		return done.Reply, true, nil
	}
	reply, lost, err := h.run(ctx, do)
	if err != nil {
		h.release(ctx)
		return nil, false, err
	}
	// Also when the claim was lost meanwhile: the effect is there, and unless
	// another attempt has begun, it can still be remembered.
	if err := h.finish(ctx, reply); err != nil {
		return fail(errors.Join(lost, err))
	}
	return reply, false, nil
}

// run calls do while the claim is renewed, and says whether it was lost. Do may
// end its goroutine.
func (h *held) run(ctx context.Context, do func(context.Context) ([]byte, error)) (reply []byte, leaseLost, err error) {
	alive, lost := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { h.keep(alive, stop, lost) })
	defer func() {
		close(stop)
		wg.Wait()
		lost(nil)
	}()
	if reply, err = do(alive); errors.Is(context.Cause(alive), sinks.ErrLeaseLost) {
		leaseLost = sinks.ErrLeaseLost
	}
	return reply, leaseLost, err
}
