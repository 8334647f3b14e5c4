package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// So many records or bytes of a partition wait before fetching pauses. What the
// client fetched by then comes on top.
const (
	claimRecords = 2000
	claimBytes   = 1 << 20
)

// A groupClaim is a partition of a topic that the member has.
type groupClaim struct {
	session   *groupSession
	topic     string
	partition int32
	from      sinks.GroupMark

	held    context.Context //nolint:containedctx // the time for which it is the member's
	lose    context.CancelCauseFunc
	gone    chan struct{}
	revoke  func() // closes gone
	ended   chan struct{}
	decoder *sinks.Decoder

	mu      sync.Mutex
	records []*kgo.Record
	bytes   int   // of records
	stable  int64 // everything before it is fetched, or will be
	paused  bool
	hole    bool          // what was to be read is not there any more; until a seek
	seeking bool          // what comes is from before the seek
	sought  int64         // the offset of the seek
	filled  chan struct{} // capacity 1
}

func (s *groupSession) newClaim(topic string, partition int32, from sinks.GroupMark) *groupClaim {
	c := &groupClaim{
		session: s, topic: topic, partition: partition, from: from, gone: make(chan struct{}), ended: make(chan struct{}),
		decoder: sinks.NewDecoder(), filled: make(chan struct{}, 1),
	}
	c.revoke = sync.OnceFunc(func() { close(c.gone) })
	c.held, c.lose = context.WithCancelCause(context.WithoutCancel(s.ctx))
	return c
}

func (c *groupClaim) revokeNow() { c.revoke() }

func (c *groupClaim) lost(reason string) {
	c.lose(&sinks.GroupLostError{Group: c.session.member.Group, Partition: c.Partition(), Reason: reason})
}

// Partition implements [sinks.GroupClaim].
func (c *groupClaim) Partition() sinks.GroupPartition {
	return sinks.GroupPartition{Collection: c.session.groups.collection(c.topic), Number: int(c.partition)}
}

// Revoked implements [sinks.GroupClaim].
func (c *groupClaim) Revoked() <-chan struct{} { return c.gone }

// Checkpoint implements [sinks.GroupClaim].
func (c *groupClaim) Checkpoint() sinks.GroupMark { return c.from }

func (c *groupClaim) only() map[string][]int32 {
	return map[string][]int32{c.topic: {c.partition}}
}

// push takes what was fetched. It does not block: if too much waits, fetching
// pauses.
func (c *groupClaim) push(p *kgo.FetchTopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hole || c.seeking {
		return
	}
	c.records = append(c.records, p.Records...)
	for _, r := range p.Records {
		c.bytes += size(r)
	}
	c.stable = p.LastStableOffset
	if (len(c.records) >= claimRecords || c.bytes >= claimBytes) && !c.paused {
		c.paused = true
		c.session.client.PauseFetchPartitions(c.only())
	}
	c.wake()
}

// broken notes that the partition does not go on where it was read to. What was
// read before is still handed on.
func (c *groupClaim) broken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seeking {
		return
	}
	c.hole = true
	c.wake()
}

func (c *groupClaim) wake() {
	select {
	case c.filled <- struct{}{}:
	default:
	}
}

func (c *groupClaim) pop() (records []*kgo.Record, stable int64, hole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	records, c.records, c.bytes = c.records, nil, 0
	if c.paused {
		c.paused = false
		c.session.client.ResumeFetchPartitions(c.only())
	}
	return records, c.stable, c.hole && len(records) == 0
}

// Read implements [sinks.GroupClaim].
func (c *groupClaim) Read(ctx context.Context, from sinks.GroupMark, take func([]sinks.GroupPart) error) error {
	c.mu.Lock()
	moved := from != c.from || c.hole
	c.mu.Unlock()
	if moved {
		c.seek(from)
	}
	next, open := int64(from.Next), from.Snapshot
	changes := false // what is open is a transaction
	linger := time.NewTimer(lingerComplete)
	defer linger.Stop()
	for {
		records, stable, hole := c.pop()
		if hole {
			return c.history(ctx, next)
		}
		parts := make([]sinks.GroupPart, 0, len(records))
		for _, r := range records {
			if r.Offset < next {
				continue
			}
			p, err := c.part(ctx, r, open && changes)
			if err != nil {
				return err
			}
			next = r.Offset + 1
			switch {
			case p.Some:
				open, changes = !p.Part.TxEnd, p.Part.Kind == listeners.Changes
			case p.Complete:
				open = false
			}
			parts = append(parts, p)
		}
		if len(parts) > 0 {
			if err := take(parts); err != nil {
				return err
			}
			linger.Reset(lingerComplete)
			continue
		}
		select {
		case <-c.filled:
		case <-linger.C:
			if open && changes && next >= stable {
				open = false
				if err := take([]sinks.GroupPart{{Next: uint64(next), Complete: true}}); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// seek has the client fetch from somewhere else. The session does it between two
// polls, so that nothing fetched before comes after it.
func (c *groupClaim) seek(from sinks.GroupMark) {
	c.mu.Lock()
	c.records, c.bytes, c.hole, c.seeking, c.sought = nil, 0, false, true, int64(from.Next)
	c.mu.Unlock()
	c.session.wantSeek(c)
}

// seekNow is called by the session.
func (c *groupClaim) seekNow() {
	c.mu.Lock()
	at := c.sought
	c.mu.Unlock()
	c.session.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{c.topic: {c.partition: {Epoch: -1, Offset: at}}})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seeking = false
}

// history says what is left when the partition does not hold what is next.
func (c *groupClaim) history(ctx context.Context, next int64) error {
	e := &sinks.GroupHistoryError{Group: c.session.member.Group, Partition: c.Partition(), Wanted: uint64(next)}
	starts, err := c.session.admin.ListStartOffsets(ctx, c.topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", c.topic, err)
	}
	start, _ := starts.Lookup(c.topic, c.partition)
	e.Oldest = sinks.GroupMark{Next: uint64(max(start.Offset, 0))}
	e.Replaced = start.Offset <= next // then the topic ends before it
	return e
}

// part decodes a record. A mark of a Kafka transaction ends the transaction under
// way.
func (c *groupClaim) part(ctx context.Context, r *kgo.Record, open bool) (sinks.GroupPart, error) {
	p := sinks.GroupPart{Next: uint64(r.Offset) + 1}
	if r.Attrs.IsControl() {
		p.Complete = open && committed(r)
		return p, nil
	}
	attribute := func(name string) string {
		for _, h := range r.Headers {
			if rest, ok := strings.CutPrefix(h.Key, attributePrefix); ok && rest == name {
				return string(h.Value)
			}
		}
		return ""
	}
	if attribute("sequence") == "" {
		c.session.member.Logger.WarnContext(ctx, "a record is no event and is left out", "topic", c.topic, "partition", c.partition, "offset", r.Offset)
		return p, nil
	}
	var err error
	// The topic is the address without its last two tokens.
	p.Part, err = c.decoder.Decode(c.topic+"._._", attribute, r.Value)
	if parked, ok := errors.AsType[*sinks.ParkedError](err); ok {
		var body []byte
		groups := c.session.groups
		if body, err = unparkPatiently(ctx, slices.Concat(groups.brokers.options, groups.opts.Client), parked.Ref); err == nil {
			p.Part, err = c.decoder.Decode(c.topic+"._._", attribute, body)
		}
	}
	if err != nil {
		return p, fmt.Errorf("topic %s, partition %d, offset %d: %w", c.topic, c.partition, r.Offset, err)
	}
	p.Some = true
	return p, nil
}

// committed reports whether a control record says that a transaction was
// committed: its key holds a version and a type, of two bytes each (Kafka, Message Format, Control Batches).
func committed(r *kgo.Record) bool { return len(r.Key) >= 4 && r.Key[2] == 0 && r.Key[3] == 1 }

// Commit implements [sinks.GroupClaim].
func (c *groupClaim) Commit(ctx context.Context, at sinks.GroupMark) error {
	if c.held.Err() != nil {
		return context.Cause(c.held)
	}
	ctx = kgo.PreCommitFnContext(ctx, func(r *kmsg.OffsetCommitRequest) error {
		for i := range r.Topics {
			for j := range r.Topics[i].Partitions {
				r.Topics[i].Partitions[j].Metadata = new(markText(at))
			}
		}
		return nil
	})
	var failed error
	c.session.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{c.topic: {c.partition: {Epoch: -1, Offset: int64(at.Next)}}},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, r *kmsg.OffsetCommitResponse, err error) {
			if failed = err; err != nil {
				return
			}
			for i := range r.Topics {
				for j := range r.Topics[i].Partitions {
					failed = errors.Join(failed, kerr.ErrorForCode(r.Topics[i].Partitions[j].ErrorCode))
				}
			}
		})
	if failed != nil {
		return fmt.Errorf("topic %s, partition %d: commit offset %d: %w", c.topic, c.partition, at.Next, failed)
	}
	return nil
}

// markText is what of a checkpoint is no offset, for the metadata of a commit.
func markText(m sinks.GroupMark) string {
	text := m.Position.String()
	if m.Snapshot {
		text += " snapshot"
	}
	if m.Fresh {
		text += " fresh"
	}
	return text
}

func parseMark(offset int64, metadata string) (sinks.GroupMark, error) {
	m := sinks.GroupMark{Next: uint64(offset)}
	for i, word := range strings.Fields(metadata) {
		switch {
		case i == 0:
			position, err := listeners.ParsePosition(word)
			if err != nil {
				return m, err
			}
			m.Position = position
		case word == "snapshot":
			m.Snapshot = true
		case word == "fresh":
			m.Fresh = true
		}
	}
	return m, nil
}
