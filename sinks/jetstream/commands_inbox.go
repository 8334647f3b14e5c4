package jetstream

import (
	"context"
	"crypto/rand"
	"encoding/json"
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

// OpenInbox creates the bucket if it is missing. The connection stays the
// caller's.
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

// A claim is what the bucket holds of a command.
type claim struct {
	// By is a token of one attempt.
	By string `json:"by"`
	// Until is how long the attempt may be silent; of no meaning when Done.
	Until time.Time `json:"until"`
	Done  bool      `json:"done"`
	Reply []byte    `json:"reply,omitempty"`
}

// Once implements [sinks.Inbox].
func (i *Inbox) Once(ctx context.Context, queue, id string, do func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	h := &held{inbox: i, key: sinks.EscapeToken(queue) + "." + sinks.EscapeToken(id), by: rand.Text()}
	done, err := h.take(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("inbox %s, %s: %w", i.opts.Bucket, id, err)
	}
	if done != nil {
		return done.Reply, true, nil
	}
	alive, lost := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { h.keep(alive, stop, lost) })
	reply, err := do(alive)
	close(stop)
	wg.Wait()
	ended := context.Cause(alive)
	lost(nil)
	switch {
	case err != nil:
		h.release(ctx)
		return nil, false, err
	case errors.Is(ended, sinks.ErrLeaseLost):
		return nil, false, fmt.Errorf("inbox %s, %s: %w", i.opts.Bucket, id, ended)
	}
	if err := h.finish(ctx, reply); err != nil {
		return nil, false, fmt.Errorf("inbox %s, %s: %w", i.opts.Bucket, id, err)
	}
	return reply, false, nil
}

// held is one attempt's hold on a command.
type held struct {
	inbox *Inbox
	key   string
	by    string
	rev   uint64 // of what this attempt wrote last
}

func (h *held) value(done bool, reply []byte) []byte {
	text, err := json.Marshal(claim{By: h.by, Until: time.Now().Add(h.inbox.opts.Claim), Done: done, Reply: reply})
	if err != nil {
		return nil // a struct of plain fields
	}
	return text
}

// take returns what is remembered of a command that was carried out, or nil when this
// attempt has it. It waits for another that has it.
func (h *held) take(ctx context.Context) (*claim, error) {
	kv := h.inbox.kv
	for {
		entry, err := kv.Get(ctx, h.key)
		if errors.Is(err, natsjs.ErrKeyNotFound) {
			h.rev, err = kv.Create(ctx, h.key, h.value(false, nil))
			if errors.Is(err, natsjs.ErrKeyExists) {
				continue
			}
			return nil, err
		}
		if err != nil {
			return nil, err
		}
		var c claim
		if err := json.Unmarshal(entry.Value(), &c); err != nil {
			return nil, fmt.Errorf("key %s: %w", h.key, err)
		}
		if c.Done {
			return &c, nil
		}
		if c.By == h.by { // the answer to Create was lost
			h.rev = entry.Revision()
			return nil, nil
		}
		if left := time.Until(c.Until); left > 0 {
			timer := time.NewTimer(min(left, inboxPoll))
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil, context.Cause(ctx)
			case <-timer.C:
			}
			continue
		}
		if h.inbox.opts.StopAtUnclear {
			return nil, fmt.Errorf("an attempt was silent since %s: %w", c.Until.UTC().Format(time.RFC3339), sinks.ErrUnclear)
		}
		h.rev, err = kv.Update(ctx, h.key, h.value(false, nil), entry.Revision())
		if changed(err) {
			continue
		}
		return nil, err
	}
}

// changed reports whether somebody else has written the key.
func changed(err error) bool {
	var api *natsjs.APIError
	return errors.As(err, &api) && (api.ErrorCode == natsjs.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongLastInCluster)
}

// codeWrongLastInCluster is what a stream with replicas says instead.
const codeWrongLastInCluster natsjs.ErrorCode = 10164

// keep renews the claim until stop is closed.
func (h *held) keep(ctx context.Context, stop <-chan struct{}, lost context.CancelCauseFunc) {
	every := h.inbox.opts.Claim / 3
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		err := h.write(context.WithoutCancel(ctx), every, h.value(false, nil))
		switch {
		case err == nil:
			last = time.Now()
		case changed(err), time.Since(last) >= h.inbox.opts.Claim:
			lost(sinks.ErrLeaseLost)
			return
		}
	}
}

// write replaces what this attempt wrote. An answer that was lost is found in
// the bucket.
func (h *held) write(ctx context.Context, within time.Duration, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	rev, err := h.inbox.kv.Update(ctx, h.key, value, h.rev)
	if err == nil {
		h.rev = rev
		return nil
	}
	if !changed(err) {
		return err
	}
	entry, getErr := h.inbox.kv.Get(ctx, h.key)
	if getErr != nil {
		return err
	}
	var c claim
	if json.Unmarshal(entry.Value(), &c) != nil || c.By != h.by {
		return err
	}
	h.rev = entry.Revision()
	if string(entry.Value()) == string(value) {
		return nil
	}
	if rev, err = h.inbox.kv.Update(ctx, h.key, value, h.rev); err == nil {
		h.rev = rev
	}
	return err
}

// finish remembers that the command was carried out. It tries for as long as
// the claim holds, since the effect is there already.
func (h *held) finish(ctx context.Context, reply []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.inbox.opts.Claim)
	defer cancel()
	value := h.value(true, reply)
	for {
		err := h.write(ctx, h.inbox.opts.Claim/3, value)
		if err == nil || changed(err) {
			return err
		}
		timer := time.NewTimer(inboxPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// release lets the next attempt begin at once. If that fails, it waits until
// the claim is over.
func (h *held) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.inbox.opts.Claim/3)
	defer cancel()
	_ = h.inbox.kv.Delete(ctx, h.key, natsjs.LastRevision(h.rev))
}
