package jetstream

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// Defaults of [PositionsOptions].
const (
	DefaultPositionsBucket = "rowcall-positions"
	DefaultPositionsLease  = 10 * time.Second
)

// OpenPatience bounds how long [Positions].Open tries to reach the server.
const OpenPatience = 30 * time.Second

const leastPositionsLease = time.Second

// PositionsOptions set up [Positions]. Nil and zero mean the defaults.
type PositionsOptions struct {
	// Bucket is the name of the KV bucket. Default [DefaultPositionsBucket].
	Bucket string
	// Replicas is the number of servers that store the bucket when it is
	// created. Default 1.
	Replicas int
	// Lease is how long the name of a process that has died stays taken, at
	// least a second. Who has a name gives a sign of life every third of it. All
	// who use the bucket should have the same. Default [DefaultPositionsLease].
	Lease time.Duration
}

// Positions is a [listeners.PositionStore] in a JetStream KV bucket, so that a
// durable subscription goes on where it was in whatever process it runs. The
// key of an entry is the name, escaped by [sinks.EscapeToken]; its value is
// JSON with the name, the text of the position, and a token of who has the name.
//
// What Save has stored survives what a message of the bucket's stream does: with
// the defaults a crash of the server's process, but not always one of its machine.
//
// A name has one owner, and every write names the revision that it replaces. So
// of two who use one name, one is refused: within one Positions by Open, at
// once; else by Open, which needs up to two thirds of the Lease to see that the owner lives;
// or, if that could not reach the server for a Lease and lost the name to the
// other, by its next Save. Until that Save both listeners may be called.
//
// Open takes the name of an owner that is silent for a Lease, as who opens it
// measures: no two clocks are compared. So a process that starts right after
// another has died waits as long. It waits at most [OpenPatience] for a server
// that does not answer.
//
// Deleting a key, while nobody uses it, forgets the position.
type Positions struct {
	js   natsjs.JetStream
	opts PositionsOptions

	mu   sync.Mutex
	open map[string]struct{} // keys
}

var _ listeners.PositionStore = (*Positions)(nil)

// NewPositions returns a store that the first Open makes the bucket of, if it is
// missing. The connection stays the caller's, and is used until the last
// subscription has ended. It does not block and touches nothing yet; the error
// says which options cannot work.
func NewPositions(nc *nats.Conn, opts *PositionsOptions) (*Positions, error) {
	var o PositionsOptions
	if opts != nil {
		o = *opts
	}
	if o.Bucket == "" {
		o.Bucket = DefaultPositionsBucket
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.Lease == 0 {
		o.Lease = DefaultPositionsLease
	}
	if o.Lease < leastPositionsLease || o.Replicas < 1 {
		return nil, fmt.Errorf("positions %s: the lease %s must be %s at least, and replicas %d positive", o.Bucket, o.Lease, leastPositionsLease, o.Replicas)
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("positions %s: %w", o.Bucket, err)
	}
	return &Positions{js: js, opts: o, open: make(map[string]struct{})}, nil
}

// Open implements [listeners.PositionStore].
func (p *Positions) Open(ctx context.Context, name string) (listeners.PositionKeeper, listeners.Position, error) {
	k := &kvPosition{store: p, name: name, key: positionKey(name), owner: rand.Text(), turn: make(chan struct{}, 1)}
	if !p.take(k.key) {
		return nil, listeners.Position{}, fmt.Errorf("positions %s, %q: %w", p.opts.Bucket, name, listeners.ErrNameTaken)
	}
	at, err := k.begin(ctx)
	if err != nil {
		p.release(k.key)
		return nil, listeners.Position{}, fmt.Errorf("positions %s, %q: %w", p.opts.Bucket, name, err)
	}
	return k, at, nil
}

func (p *Positions) take(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.open[key]; taken {
		return false
	}
	p.open[key] = struct{}{}
	return true
}

func (p *Positions) release(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, key)
}

// bucket creates the bucket if it is missing.
func (p *Positions) bucket(ctx context.Context) (natsjs.KeyValue, error) {
	kv, err := p.js.KeyValue(ctx, p.opts.Bucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		kv, err = p.js.CreateKeyValue(ctx, natsjs.KeyValueConfig{
			Bucket: p.opts.Bucket, Description: "positions of durable subscriptions", Replicas: p.opts.Replicas, Storage: natsjs.FileStorage,
		})
		if errors.Is(err, natsjs.ErrBucketExists) { // somebody else was faster
			kv, err = p.js.KeyValue(ctx, p.opts.Bucket)
		}
	}
	if err != nil {
		return nil, err
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, err
	}
	if ttl := status.TTL(); ttl > 0 {
		return nil, fmt.Errorf("the bucket forgets its entries after %s, and positions with them; set its TTL to 0, or choose another bucket", ttl)
	}
	return kv, nil
}

// storedPosition is the value of an entry.
type storedPosition struct {
	Name string `json:"name"`
	// Position is empty before the first Save.
	Position string `json:"position"`
	// Owner is a token of the one subscription that has the name, "" if none has.
	Owner string `json:"owner"`
}

func parseStored(value []byte) (at listeners.Position, owner string, err error) {
	var v storedPosition
	if err = json.Unmarshal(value, &v); err == nil && v.Position != "" {
		at, err = listeners.ParsePosition(v.Position)
	}
	return at, v.Owner, err
}

// longestPositionKey leaves room in the subject of a message.
const longestPositionKey = 1000

// positionKey writes a name so that no two names share a key.
func positionKey(name string) string {
	key := sinks.EscapeToken(name)
	switch {
	case key == "":
		return "--" // no escaped name, since two digits follow a "-" of those
	case len(key) > longestPositionKey:
		hash := sha256.Sum256([]byte(name))
		return key[:longestPositionKey/2] + "--" + hex.EncodeToString(hash[:])
	}
	return key
}
