package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A groupLease is a partition's entry in the bucket.
type groupLease struct {
	// Owner is a member; empty when the partition was given back.
	Owner string `json:"owner,omitempty"`
	// Millis is how long the entry may stay unchanged before it is anybody's.
	Millis int64 `json:"lease_ms"`
	// Beat makes each write another one.
	Beat uint64    `json:"beat"`
	Mark groupMark `json:"checkpoint"`
}

func (m groupMark) mark() (sinks.GroupMark, error) {
	g := sinks.GroupMark{Next: m.Next, Stream: m.Stream, Snapshot: m.Snapshot, Fresh: m.Fresh}
	if m.Position == "" {
		return g, nil
	}
	var err error
	if g.Position, err = listeners.ParsePosition(m.Position); err != nil {
		return g, fmt.Errorf("checkpoint: %w", err)
	}
	return g, nil
}

func toGroupMark(m sinks.GroupMark) groupMark {
	g := groupMark{Next: m.Next, Stream: m.Stream, Snapshot: m.Snapshot, Fresh: m.Fresh}
	if !m.Position.IsZero() {
		g.Position = m.Position.String()
	}
	return g
}

// A groupEntry is what the bucket holds of a key.
type groupEntry struct {
	key      string
	revision uint64
	value    []byte
}

// A groupBucket is the part of a bucket that belongs to one group.
type groupBucket struct {
	nc     *nats.Conn
	kv     natsjs.KeyValue
	bucket string
	prefix string // of its keys, with a dot at the end
}

const (
	groupLeases  = "lease."
	groupMembers = "member."
	groupBegin   = "start"
)

func (b *groupBucket) subject(key string) string { return "$KV." + b.bucket + "." + key }

// list returns the entries whose keys begin with a kind, in one question.
// The answer may be one of a replica that is a little behind.
func (b *groupBucket) list(ctx context.Context, kind string) ([]groupEntry, error) {
	question, err := json.Marshal(map[string][]string{"multi_last": {b.subject(b.prefix + kind + ">")}})
	if err != nil {
		return nil, err
	}
	sub, err := b.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection is gone if it fails
	if err := b.nc.PublishRequest("$JS.API.DIRECT.GET."+bucketStream(b.bucket), sub.Subject, question); err != nil {
		return nil, err
	}
	var entries []groupEntry
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204": // the end
			return entries, nil
		case "404":
			return nil, nil
		case "400", "408":
			return nil, &sinks.PlaceError{Place: "bucket " + b.bucket, Reason: "the server does not understand a question for several entries (" +
				m.Header.Get("Description") + "); groups need NATS 2.11 or later"}
		default:
			return nil, fmt.Errorf("bucket %s: %s %s", b.bucket, status, m.Header.Get("Description"))
		}
		if m.Header.Get("KV-Operation") != "" {
			continue // deleted
		}
		revision, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("bucket %s: %w", b.bucket, err)
		}
		key := m.Header.Get("Nats-Subject")[len(b.subject(b.prefix+kind)):]
		entries = append(entries, groupEntry{key: key, revision: revision, value: m.Data})
	}
}

// latest asks the leader of the bucket for a key's entry.
func (b *groupBucket) latest(ctx context.Context, key string) (*groupEntry, error) {
	m, err := askLeader(ctx, b.nc, bucketStream(b.bucket), map[string]any{"last_by_subj": b.subject(b.prefix + key)})
	if err != nil {
		return nil, err
	}
	return &groupEntry{key: key, revision: m.Sequence, value: m.Data}, nil
}

// write stores an entry if the key has this revision, 0 for none at all.
func (b *groupBucket) write(ctx context.Context, key string, value any, revision uint64) (uint64, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return 0, err
	}
	if revision == 0 {
		return b.kv.Create(ctx, b.prefix+key, text)
	}
	return b.kv.Update(ctx, b.prefix+key, text, revision)
}

// raced reports whether an entry was not written because another revision is there.
func raced(err error) bool {
	var api *natsjs.APIError
	return errors.Is(err, natsjs.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == natsjs.JSErrCodeStreamWrongLastSequence
}

// remove deletes a key without a trace.
func (b *groupBucket) remove(ctx context.Context, js natsjs.JetStream, key string) error {
	s, err := js.Stream(ctx, bucketStream(b.bucket))
	if err != nil {
		return err
	}
	return s.Purge(ctx, natsjs.WithPurgeSubject(b.subject(b.prefix+key)))
}

// askLeader asks the leader of a stream, as opposed to any replica, for a
// message.
func askLeader(ctx context.Context, nc *nats.Conn, stream string, question map[string]any) (*natsjs.RawStreamMsg, error) {
	text, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	answer, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, text)
	if err != nil {
		return nil, err
	}
	var r struct {
		Error   *natsjs.APIError `json:"error"`
		Message struct {
			Subject  string `json:"subject"`
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &r); err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	if r.Error != nil {
		if r.Error.ErrorCode == natsjs.JSErrCodeMessageNotFound {
			return nil, natsjs.ErrMsgNotFound
		}
		return nil, fmt.Errorf("stream %s: %w", stream, r.Error)
	}
	m := &natsjs.RawStreamMsg{Subject: r.Message.Subject, Sequence: r.Message.Sequence, Data: r.Message.Data}
	if len(r.Message.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(r.Message.Header); err != nil {
			return nil, fmt.Errorf("stream %s: message %d: %w", stream, m.Sequence, err)
		}
	}
	return m, nil
}
