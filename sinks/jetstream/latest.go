package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// "-control" is no escaped name.
	bucketReset    = ".-control.reset"
	bucketLive     = ".-control.live"
	bucketTruncate = ".-control.truncate."
	headerKV       = "KV-Operation"
	headerAddress  = "Rowcall-Address"
)

func bucketStream(bucket string) string  { return "KV_" + bucket }
func bucketAddress(bucket string) string { return "$KV." + bucket }

// LatestName returns the name of the bucket of a database, unless somebody
// chooses another: "LATEST_" and the escaped name in upper case.
func LatestName(database string) string {
	return "LATEST_" + strings.ToUpper(sinks.EscapeToken(database))
}

// RegionLatestName is [LatestName] for a region.
func RegionLatestName(grid, region string) string {
	return "LATEST_" + strings.ToUpper(sinks.EscapeToken(grid)+"_"+sinks.EscapeToken(region))
}

// LatestStream returns the name of the stream behind a bucket, for [NewSource].
func LatestStream(bucket string) string { return bucketStream(bucket) }

// NewLatest returns a firehose that keeps the latest state of each key of a
// database in a JetStream KV bucket, rather than its history in a stream. An
// empty bucket name means [LatestName]. Subscribe it with
// [listeners.SubscribeOptions].Current.
//
// The key of an entry is <schema>.<table>.<key>, for a region <region>.<key>,
// each escaped by [sinks.EscapeToken] (the key's text as a whole). Its value is the body that the firehose has, without before; a
// deleted key has a delete marker, and an update of the key is a delete of the old one and
// a create of the new. Headers are those of the firehose. Columns
// that Postgres left out of an update are filled in from the entry before.
// Tables without a key end the subscription with an error.
//
// What [sinks.Firehose] promises of order and completeness holds for each key. A
// transaction is not visible as one. A truncate and a reset are entries under
// "-control", and what they make obsolete is purged.
//
// Positions in a bucket have twice the index of the source's, and one more; the
// firehose's Stored speaks of the source's. Who stores a reader's position takes
// what the reader told.
//
// A [sinks.Source] on [LatestStream] begins with the bucket's content, and then hears
// what is stored. While it is behind, it hears of several changes of a key only
// the last, so an update may be the first that it hears of a row.
func NewLatest(nc *nats.Conn, database, bucket string, opts *Options) (*sinks.Firehose, error) {
	if bucket == "" {
		bucket = LatestName(database)
	}
	return newLatest(nc, scope{FirehoseScope: sinks.FirehoseScope{Source: database}, bucket: bucket}, opts)
}

// NewRegionLatest is [NewLatest] for a region. An empty bucket name means
// [RegionLatestName].
func NewRegionLatest(nc *nats.Conn, grid, region, bucket string, opts *Options) (*sinks.Firehose, error) {
	if region == "" {
		return nil, fmt.Errorf("jetstream: the region of grid %q must have a name", grid)
	}
	if bucket == "" {
		bucket = RegionLatestName(grid, region)
	}
	return newLatest(nc, scope{FirehoseScope: sinks.FirehoseScope{Source: grid, Region: region}, bucket: bucket}, opts)
}

func newLatest(nc *nats.Conn, from scope, opts *Options) (*sinks.Firehose, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Stream != "" && o.Stream != bucketStream(from.bucket) {
		return nil, fmt.Errorf("jetstream: the stream of bucket %q is %q, not %q; leave Options.Stream empty", from.bucket, bucketStream(from.bucket), o.Stream)
	}
	return newFirehose(nc, from, &o)
}

// A latest is a writer that keeps the latest state of each key. Its batches have twice the indexes of the source's, and one more, so that
// an update of the key has room for the deletion of the old one before it.
type latest struct {
	*writer
	text []byte
}

var _ sinks.FirehoseShaper = (*latest)(nil)

// A shaping is one call of Shape.
type shaping struct {
	*latest
	store func(context.Context, *listeners.Batch) error
	flush func(context.Context) error
}

func doubled(p listeners.Position) listeners.Position {
	if p.Index >= math.MaxUint32/2 {
		p.Index = math.MaxUint32
		return p
	}
	p.Index = 2*p.Index + 1
	return p
}

// Plain returns the position in the source up to which all is stored when that
// in the bucket is.
func (l *latest) Plain(p listeners.Position) listeners.Position {
	switch {
	case p.Index == math.MaxUint32:
	case p.Index%2 == 1:
		p.Index /= 2
	case p.Index > 0: // the first half of an event
		p.Index = p.Index/2 - 1
	case p.Commit > 0:
		p.Commit, p.Index = p.Commit-1, math.MaxUint32
	}
	return p
}

// Shape stores a batch, and waits where something must be stored before what
// follows can be known.
func (l *latest) Shape(ctx context.Context, b *listeners.Batch, store func(context.Context, *listeners.Batch) error, flush func(context.Context) error) error {
	return (&shaping{latest: l, store: store, flush: flush}).batch(ctx, b)
}

func (l *shaping) batch(ctx context.Context, b *listeners.Batch) error {
	c := *b
	c.Events = make([]listeners.Event, 0, len(b.Events))
	c.Position = doubled(b.Position)
	rows := slices.DeleteFunc(slices.Clone(b.Events), func(e listeners.Event) bool { return e.Op == listeners.Message })
	for i := range rows {
		e := rows[i]
		e.Position = doubled(e.Position)
		switch {
		case e.Op == listeners.Truncate:
			c.Events = append(c.Events, e)
			if err := l.part(ctx, &c, i == len(rows)-1); err != nil {
				return err
			}
			if err := l.purge(ctx, l.marker(e.Schema), l.prefix(e.Schema)+".>"); err != nil {
				return err
			}
			continue
		case e.Key().Len() == 0:
			return fmt.Errorf("jetstream: %s has no key, which entries of bucket %q need; leave it out, or give it a replica identity", e.Schema.Collection(), l.from.bucket)
		}
		if old, changed := e.ChangedKey(); changed {
			gone := listeners.Event{Op: listeners.Delete, Cause: e.Cause, Schema: e.Schema, Position: e.Position, OldKey: e.OldKey, Before: e.Before}
			gone.Position.Index--
			if e.After.Unchanged() != nil {
				if err := l.complete(ctx, &c, &e, old); err != nil {
					return err
				}
			}
			c.Events = append(c.Events, gone)
			e.Op = listeners.Create // under the new key
		} else if e.Op == listeners.Update && e.After.Unchanged() != nil {
			if err := l.complete(ctx, &c, &e, e.Key()); err != nil {
				return err
			}
		}
		e.Before, e.OldKey = withoutBefore(&e)
		c.Events = append(c.Events, e)
	}
	if err := l.store(ctx, &c); err != nil || b.Kind != listeners.Reset {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	return l.purgeReset(ctx)
}

// withoutBefore leaves a delete what says its key.
func withoutBefore(e *listeners.Event) (before, oldKey listeners.Record) {
	if e.Op == listeners.Delete {
		return e.Before, e.OldKey
	}
	return listeners.Record{}, listeners.Record{}
}

// part stores what there is of a batch so far, and waits until it is stored.
func (l *shaping) part(ctx context.Context, c *listeners.Batch, last bool) error {
	if len(c.Events) == 0 {
		return l.flush(ctx)
	}
	now := *c
	now.Last = c.Last && last
	if !last {
		now.Position = c.Events[len(c.Events)-1].Position
	}
	if err := l.store(ctx, &now); err != nil {
		return err
	}
	c.Events, c.First = nil, false
	return l.flush(ctx)
}

// complete fills in the columns of an update that the source left out, from the
// entry of a key.
func (l *shaping) complete(ctx context.Context, c *listeners.Batch, e *listeners.Event, key listeners.Key) error {
	if err := l.part(ctx, c, false); err != nil {
		return err
	}
	if e.Position.Compare(l.lane.Tail) <= 0 {
		return nil // it is stored already, and so may be what came after it
	}
	reply, err := l.last(ctx, l.entry(e.Schema, key))
	if err != nil || reply == nil { // then nobody knows the columns
		return err
	}
	address := reply.Header.Get(headerAddress)
	p, err := sinks.NewDecoder().Decode(address, attributes(reply.Header), reply.Data)
	if parked, ok := errors.AsType[*sinks.ParkedError](err); ok {
		var body []byte
		if body, err = unparkPatiently(ctx, l.js, parked.Ref); err == nil {
			p, err = sinks.NewDecoder().Decode(address, attributes(reply.Header), body)
		}
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.opts.Stream, err)
	}
	e.After = sinks.Fill(e.After, p.Event.After)
	return nil
}

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		return `""` // strings never fail
	}
	return string(text)
}

// prefix returns the subject's tokens of a collection's entries.
func (l *latest) prefix(s *listeners.Schema) string {
	p := bucketAddress(l.from.bucket) + "."
	if s.Namespace != "" {
		p += sinks.EscapeToken(s.Namespace) + "."
	}
	return p + sinks.EscapeToken(s.Name)
}

func (l *latest) entry(s *listeners.Schema, key listeners.Key) string {
	l.text = key.Append(l.text[:0])
	token := sinks.EscapeToken(string(l.text))
	if token == "" {
		token = "-" // which no escaped text is
	}
	return l.prefix(s) + "." + token
}

func (l *latest) marker(s *listeners.Schema) string {
	return bucketAddress(l.from.bucket) + bucketTruncate + sinks.EscapeToken(s.Collection())
}

// address turns a firehose's message into an entry.
func (l *latest) address(m *nats.Msg, of *sinks.FirehoseMessage) {
	b, i := of.Batch, of.Index
	m.Header.Set(headerAddress, of.Frame.Address)
	m.Header.Del(headerKV)
	bucket := bucketAddress(l.from.bucket)
	switch {
	case b.Kind == listeners.Reset:
		m.Subject = bucket + bucketReset
	case b.Kind == listeners.Live:
		m.Subject = bucket + bucketLive
	case b.Events[i].Op == listeners.Truncate:
		m.Subject = l.marker(b.Events[i].Schema)
	default:
		e := &b.Events[i]
		if e.Op == listeners.Delete {
			m.Header.Set(headerKV, "DEL")
		}
		m.Subject = l.entry(e.Schema, e.Key())
	}
}

func (l *latest) configure(c *natsjs.StreamConfig) {
	c.MaxMsgsPerSubject = 1
	c.AllowRollup = true // for the purge operation of KV clients
	c.Discard = natsjs.DiscardNew
	c.MaxAge = 0
}

// purge removes what a marker made obsolete.
func (l *latest) purge(ctx context.Context, marker, filter string) error {
	m, err := l.last(ctx, marker)
	if err != nil || m == nil {
		return err
	}
	opts := []natsjs.StreamPurgeOpt{natsjs.WithPurgeSequence(m.Sequence)}
	if filter != "" {
		opts = append(opts, natsjs.WithPurgeSubject(filter))
	}
	return l.persist(ctx, func(ctx context.Context) error {
		s, err := l.js.Stream(ctx, l.opts.Stream)
		if err != nil {
			return err
		}
		return s.Purge(ctx, opts...)
	})
}

// persist asks again while the server is away.
func (l *latest) persist(ctx context.Context, ask func(context.Context) error) error {
	c := &cursor{nc: l.nc, js: l.js, stream: l.opts.Stream, log: l.opts.Logger, created: time.Now()}
	return c.persist(ctx, ask)
}

// last returns the last message of a subject, nil if there is none.
func (l *latest) last(ctx context.Context, subject string) (m *natsjs.RawStreamMsg, err error) {
	err = l.persist(ctx, func(ctx context.Context) error {
		m, err = l.ask(ctx, `{"last_by_subj":`+quote(subject)+`}`)
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			m, err = nil, nil
		}
		return err
	})
	return m, err
}

// purgeReset removes what the last reset made obsolete: the snapshot that
// follows it holds all there is.
func (l *latest) purgeReset(ctx context.Context) error {
	marker := bucketAddress(l.from.bucket) + bucketReset
	m, err := l.last(ctx, marker)
	if err != nil || m == nil { // then the bucket was empty
		return err
	}
	reset, err := sinks.Decode(attributes(m.Header), m.Data)
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.opts.Stream, err)
	}
	if reset.Collections == nil {
		return l.purge(ctx, marker, "")
	}
	for _, c := range reset.Collections {
		if err := l.purge(ctx, marker, l.entries(c)); err != nil {
			return err
		}
	}
	return nil
}

// entries returns the subjects of the entries of a collection.
func (l *latest) entries(collection string) string {
	tokens := sinks.EscapeToken(collection)
	if namespace, name, ok := strings.Cut(collection, "."); ok && l.from.Region == "" {
		tokens = sinks.EscapeToken(namespace) + "." + sinks.EscapeToken(name)
	}
	return bucketAddress(l.from.bucket) + "." + tokens + ".>"
}

// sweep does what a predecessor may have died before.
func (l *latest) sweep(ctx context.Context) error {
	s, err := l.js.Stream(ctx, l.opts.Stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.opts.Stream, err)
	}
	bucket := bucketAddress(l.from.bucket)
	info, err := s.Info(ctx, natsjs.WithSubjectFilter(bucket+bucketTruncate+">"))
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.opts.Stream, err)
	}
	for marker := range info.State.Subjects {
		collection, err := sinks.UnescapeToken(strings.TrimPrefix(marker, bucket+bucketTruncate))
		if err != nil {
			continue // not ours
		}
		if err := l.purge(ctx, marker, l.entries(collection)); err != nil {
			return err
		}
	}
	return l.purgeReset(ctx)
}
