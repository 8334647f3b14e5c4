package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/sinks"
)

// A claim is what the bucket holds of a command.
type claim struct {
	// By is a token of one attempt.
	By string `json:"by"`
	// Until is how long the attempt may be silent; of no meaning when Done.
	Until time.Time `json:"until"`
	Done  bool      `json:"done"`
	Reply []byte    `json:"reply,omitempty"`
	// Large is the size of a reply that does not fit.
	Large int `json:"large,omitempty"`
}

// held is one attempt's hold on a command. Every write names the revision that
// it replaces, so that of two attempts one wins, whatever a replica that lags
// has told them before.
type held struct {
	inbox *Inbox
	key   string
	by    string
	rev   uint64 // of what this attempt wrote last
}

func (h *held) value(c claim) []byte {
	c.By, c.Until = h.by, time.Now().Add(h.inbox.opts.Claim)
	text, err := json.Marshal(c)
	if err != nil {
		return nil // a struct of plain fields
	}
	return text
}

// look returns nil if the bucket has nothing of the command.
func (h *held) look(ctx context.Context) (*claim, natsjs.KeyValueEntry, error) {
	ctx, cancel := h.bounded(ctx)
	defer cancel()
	entry, err := h.inbox.kv.Get(ctx, h.key)
	if errors.Is(err, natsjs.ErrKeyNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	c := new(claim)
	if err := json.Unmarshal(entry.Value(), c); err != nil {
		return nil, nil, fmt.Errorf("key %s: %w", h.key, err)
	}
	return c, entry, nil
}

// bounded leaves time for another try within the claim.
func (h *held) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, h.inbox.opts.Claim/3)
}

// take returns what is remembered of a command that was carried out, or nil when this
// attempt has it. It waits for another that has it.
func (h *held) take(ctx context.Context) (*claim, error) {
	for {
		c, entry, err := h.look(ctx)
		switch {
		case err != nil:
			return nil, err
		case c != nil && c.Done:
			return c, nil
		case c != nil && time.Until(c.Until) > 0:
			if err := wait(ctx, min(time.Until(c.Until), inboxPoll)); err != nil {
				return nil, err
			}
			continue
		case c != nil && h.inbox.opts.StopAtUnclear:
			err = h.unclear(ctx, c, entry)
		default:
			err = h.claim(ctx, entry)
		}
		if !changed(err) {
			return nil, err
		}
		if err := wait(ctx, inboxPoll/10); err != nil { // a replica may lag
			return nil, err
		}
	}
}

// claim writes the claim in place of what was found. If its answer is lost, the
// bucket says who has it.
func (h *held) claim(ctx context.Context, over natsjs.KeyValueEntry) error {
	err := h.claimOnce(ctx, over)
	if err == nil || changed(err) {
		return err
	}
	within, cancel := context.WithTimeout(ctx, h.inbox.opts.Claim)
	defer cancel()
	for {
		c, entry, lookErr := h.look(within)
		switch {
		case lookErr != nil:
		case c != nil && c.By == h.by:
			h.rev = entry.Revision()
			return nil
		default:
			// Nothing of it, or of a replica that lags: written again, it
			// fails if it is there.
			again := h.claimOnce(within, over)
			if again == nil {
				return nil
			}
			if changed(again) && c != nil && (over == nil || entry.Revision() > over.Revision()) {
				return again // somebody else's
			}
		}
		if wait(within, inboxPoll) != nil {
			h.release(ctx) // nothing was begun
			return err
		}
	}
}

func (h *held) claimOnce(ctx context.Context, over natsjs.KeyValueEntry) error {
	ctx, cancel := h.bounded(ctx)
	defer cancel()
	var rev uint64
	var err error
	if over == nil {
		rev, err = h.inbox.kv.Create(ctx, h.key, h.value(claim{}))
	} else {
		rev, err = h.inbox.kv.Update(ctx, h.key, h.value(claim{}), over.Revision())
	}
	if err == nil {
		h.rev = rev
	}
	return err
}

// unclear gives up a command whose attempt fell silent: if the bucket agrees
// that this is still so.
func (h *held) unclear(ctx context.Context, c *claim, entry natsjs.KeyValueEntry) error {
	ctx, cancel := h.bounded(ctx)
	defer cancel()
	if _, err := h.inbox.kv.Update(ctx, h.key, entry.Value(), entry.Revision()); err != nil {
		return err
	}
	return fmt.Errorf("an attempt was silent since %s: %w", c.Until.UTC().Format(time.RFC3339), sinks.ErrUnclear)
}

// changed reports whether somebody else has written the key.
func changed(err error) bool {
	if errors.Is(err, natsjs.ErrKeyExists) {
		return true
	}
	var api *natsjs.APIError
	return errors.As(err, &api) && (api.ErrorCode == natsjs.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongLastInCluster)
}

// codeWrongLastInCluster is what a stream with replicas says instead.
const codeWrongLastInCluster natsjs.ErrorCode = 10164

// keep renews the claim until stop is closed.
func (h *held) keep(ctx context.Context, stop <-chan struct{}, lost context.CancelCauseFunc) {
	ticker := time.NewTicker(h.inbox.opts.Claim / 3)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		err := h.write(context.WithoutCancel(ctx), h.value(claim{}))
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
func (h *held) write(ctx context.Context, value []byte) error {
	ctx, cancel := h.bounded(ctx)
	defer cancel()
	for {
		rev, err := h.inbox.kv.Update(ctx, h.key, value, h.rev)
		if err == nil {
			h.rev = rev
			return nil
		}
		if !changed(err) {
			return err
		}
		if owned, lookErr := h.adopt(ctx); lookErr == nil && !owned {
			return err
		}
		if wait(ctx, inboxPoll/10) != nil {
			return context.DeadlineExceeded // not known, so not changed
		}
	}
}

// adopt takes over the revision of this attempt's own last write. Not owned: the
// key is another's, or gone.
func (h *held) adopt(ctx context.Context) (owned bool, err error) {
	c, entry, err := h.look(ctx)
	switch {
	case err != nil:
		return false, err
	case c == nil:
		return false, nil
	case entry.Revision() < h.rev: // of a replica that lags
		return true, nil
	case c.By != h.by:
		return false, nil
	}
	h.rev = entry.Revision()
	return true, nil
}

// finish remembers that the command was carried out. It tries for as long as
// the claim holds, since the effect is there already.
func (h *held) finish(ctx context.Context, reply []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.inbox.opts.Claim)
	defer cancel()
	value := h.value(claim{Done: true, Reply: reply})
	for {
		err := h.write(ctx, value)
		var api *natsjs.APIError
		switch {
		case err == nil, changed(err), errors.Is(err, nats.ErrConnectionClosed):
			return err
		case len(reply) > 0 && (errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == codeMessageTooLarge):
			value = h.value(claim{Done: true, Large: len(reply)})
			reply = nil
			continue
		}
		if wait(ctx, inboxPoll) != nil {
			return err
		}
	}
}

// release lets the next attempt begin at once. If that fails, it waits until
// the claim is over.
func (h *held) release(ctx context.Context) {
	ctx, cancel := h.bounded(context.WithoutCancel(ctx))
	defer cancel()
	for h.rev == 0 { // the answer to the claim was lost
		owned, err := h.adopt(ctx)
		if err == nil && !owned || err != nil && wait(ctx, inboxPoll) != nil {
			return
		}
	}
	for {
		trying, end := context.WithTimeout(ctx, h.inbox.opts.Claim/6)
		err := h.inbox.kv.Delete(trying, h.key, natsjs.LastRevision(h.rev))
		end()
		if err == nil {
			return
		}
		if owned, lookErr := h.adopt(ctx); lookErr == nil && !owned {
			return
		}
		if wait(ctx, inboxPoll/10) != nil {
			return
		}
	}
}

// wait returns the cause of ctx's end.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
