package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
)

const (
	// positionsAttempt bounds one try of Open and Save, and Close.
	positionsAttempt = 2 * time.Second
	// positionsPoll is how often Open looks whether an owner lives, and whether
	// the server is back.
	positionsPoll = 50 * time.Millisecond
	// livelySigns is how many changes Open wants to see of an owner. One may be
	// the last that it made before it died, or come from a replica that lags.
	livelySigns = 2
)

// A kvPosition is one name of a [Positions].
type kvPosition struct {
	store *Positions
	name  string
	key   string
	owner string
	kv    natsjs.KeyValue

	stop context.CancelFunc // of renew
	done sync.WaitGroup     // renew

	turn chan struct{} // of capacity 1; who has put something in it writes
	rev  uint64        // of what this owner has written last, as far as it knows
	at   listeners.Position
	lost bool // the name is another's
}

// begin takes the name, and begins to renew that.
func (k *kvPosition) begin(ctx context.Context) (listeners.Position, error) {
	patience := time.Now().Add(OpenPatience)
	w := watchedOwner{}
	for {
		err := k.attempt(ctx, func(ctx context.Context) (err error) {
			if k.kv == nil {
				if k.kv, err = k.store.bucket(ctx); err != nil {
					return err
				}
			}
			return k.tryTake(ctx, &w)
		})
		switch {
		case err == nil:
			at := k.at
			renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
			k.stop = stop
			k.done.Go(func() { k.renew(renewing) })
			return at, nil
		case ctx.Err() != nil:
			return listeners.Position{}, context.Cause(ctx)
		case errors.Is(err, errOwned):
			patience = time.Now().Add(OpenPatience) // the server does answer
		case !mayPass(err):
			return listeners.Position{}, err
		default:
			// Nobody can show a sign of life while the server does not answer.
			w.since = time.Time{}
			if time.Now().After(patience) {
				return listeners.Position{}, fmt.Errorf("no answer in %s: %w", OpenPatience, err)
			}
		}
		if err := rest(ctx); err != nil {
			return listeners.Position{}, err
		}
	}
}

// attempt bounds one request.
func (k *kvPosition) attempt(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, positionsAttempt)
	defer cancel()
	return f(ctx)
}

// errOwned says that somebody has the name, or has just written the entry.
var errOwned = errors.New("the name has an owner")

// A watchedOwner is what Open has seen of the one who has the name.
type watchedOwner struct {
	rev   uint64    // the highest seen
	since time.Time // when it was; the zero Time to begin anew
	signs int
}

// tryTake returns nil when the name is taken, and an error that wraps
// [listeners.ErrNameTaken] when its owner lives.
func (k *kvPosition) tryTake(ctx context.Context, w *watchedOwner) error {
	entry, err := k.kv.Get(ctx, k.key)
	if errors.Is(err, natsjs.ErrKeyNotFound) {
		k.rev, err = k.kv.Create(ctx, k.key, k.value(listeners.Position{}, k.owner))
		if errors.Is(err, natsjs.ErrKeyExists) || changed(err) {
			return errOwned
		}
		return err
	}
	if err != nil {
		return err
	}
	at, owner, err := parseStored(entry.Value())
	if err != nil {
		return fmt.Errorf("what is stored cannot be read: %w; delete key %s to begin without a position", err, k.key)
	}
	rev := entry.Revision()
	if owner == k.owner { // the answer to an earlier try was lost
		k.rev, k.at = rev, at
		return nil
	}
	if rev > w.rev && w.rev > 0 && owner != "" {
		if w.signs++; w.signs >= livelySigns {
			return listeners.ErrNameTaken
		}
	}
	if rev > w.rev || w.since.IsZero() {
		w.rev, w.since = max(rev, w.rev), time.Now()
	}
	silent := time.Since(w.since) >= k.store.opts.Lease
	switch {
	case rev < w.rev && silent:
		*w = watchedOwner{} // no replica lags that long: the bucket is another one
		return errOwned
	case rev < w.rev, owner != "" && !silent:
		return errOwned
	}
	rev, err = k.kv.Update(ctx, k.key, k.value(at, k.owner), rev)
	if changed(err) {
		return errOwned
	}
	if err == nil {
		k.rev, k.at = rev, at
	}
	return err
}

func (k *kvPosition) value(at listeners.Position, owner string) []byte {
	v := storedPosition{Name: k.name, Owner: owner}
	if !at.IsZero() {
		v.Position = at.String()
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil // a struct of strings
	}
	return text
}

// Save implements [listeners.PositionKeeper]. It tries again what may pass, since
// the last save of a subscription has no other chance.
func (k *kvPosition) Save(ctx context.Context, p listeners.Position) error {
	for {
		err := k.attempt(ctx, func(ctx context.Context) error { return k.put(ctx, &p, k.owner) })
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil || !mayPass(err) || rest(ctx) != nil:
			return fmt.Errorf("positions %s: %w", k.store.opts.Bucket, err)
		}
	}
}

// rest waits before another try, and returns the cause of ctx's end.
func rest(ctx context.Context) error {
	timer := time.NewTimer(positionsPoll)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close implements [listeners.PositionKeeper].
func (k *kvPosition) Close() error {
	k.stop()
	k.done.Wait()
	defer k.store.release(k.key)
	ctx, cancel := context.WithTimeout(context.Background(), positionsAttempt)
	defer cancel()
	err := k.put(ctx, nil, "")
	if err != nil && !errors.Is(err, listeners.ErrNameTaken) {
		return fmt.Errorf("positions %s: %w; the name is free again %s after the last sign of life", k.store.opts.Bucket, err, k.store.opts.Lease)
	}
	return nil
}

// renew shows signs of life until ctx ends.
func (k *kvPosition) renew(ctx context.Context) {
	every := k.store.opts.Lease / 3
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		attempt, cancel := context.WithTimeout(ctx, every)
		err := k.put(attempt, nil, k.owner)
		cancel()
		if errors.Is(err, listeners.ErrNameTaken) {
			return
		}
	}
}

// put replaces what this owner has written; a nil position is the one before. The answer to a write may have been
// lost, and the write may even still be on its way. So what the entry holds now
// says whether the name is still its own, and each write names what it replaces:
// an older one that arrives late is refused.
func (k *kvPosition) put(ctx context.Context, at *listeners.Position, owner string) error {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if at == nil {
		at = &k.at
	}
	text := k.value(*at, owner)
	for !k.lost {
		var err error
		var rev uint64
		if k.rev == 0 {
			rev, err = k.kv.Create(ctx, k.key, text) // somebody has deleted the entry
		} else {
			rev, err = k.kv.Update(ctx, k.key, text, k.rev)
		}
		if err == nil {
			k.rev, k.at = rev, *at
			return nil
		}
		if !changed(err) && !errors.Is(err, natsjs.ErrKeyExists) {
			return err
		}
		if err := k.look(ctx); err != nil {
			return err
		}
	}
	return listeners.ErrNameTaken
}

// look finds out what the entry is now.
func (k *kvPosition) look(ctx context.Context) error {
	entry, err := k.kv.Get(ctx, k.key)
	switch {
	case errors.Is(err, natsjs.ErrKeyNotFound):
		k.rev = 0
		return nil
	case err != nil:
		return err
	}
	if _, owner, err := parseStored(entry.Value()); err != nil || owner != k.owner {
		if entry.Revision() >= k.rev { // else a replica that lags
			k.lost = true
			return nil
		}
	}
	if entry.Revision() > k.rev {
		k.rev = entry.Revision()
		return nil
	}
	return rest(ctx)
}

// mayPass reports whether a request that failed is worth trying again.
func mayPass(err error) bool {
	var api *natsjs.APIError
	for _, passing := range []error{
		nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		natsjs.ErrNoStreamResponse, context.DeadlineExceeded,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return errors.As(err, &api) && api.Code == 503
}
