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

// DefaultGroupBucket is the KV bucket of groups unless options say otherwise.
const DefaultGroupBucket = "rowcall-groups"

// GroupsOptions set up [Groups]. Nil and zero mean the defaults.
type GroupsOptions struct {
	// Stream is the stream's name. Default: see [StreamName] and
	// [RegionStreamName].
	Stream string
	// Partitions is the number of partitions that the firehose has, see
	// [Options].Partitions. Default [sinks.DefaultPartitions].
	Partitions int
	// Bucket is the KV bucket in which groups keep their leases and checkpoints.
	// Default [DefaultGroupBucket].
	Bucket string
	// Replicas is the number of servers that store the bucket when it is
	// created. Default 1.
	Replicas int
}

// Groups lets the processes of a [sinks.Group] share the partitions of a stream
// that a [sinks.Firehose] writes. It needs NATS 2.11.
//
// Each partition has an entry in a KV bucket, which names its owner and its
// checkpoint and is written anew all the time. Who finds it unchanged for the
// time of a lease, by the own clock, takes it. The owner's clock is never
// compared with others: it stops when it has not been able to write for as long,
// counted from before its last write, so before anybody else begins. All writes
// name the entry's revision: a stale owner cannot move a checkpoint.
//
// Two members may have the same partition at a time only if the listener of
// the stale one does not return when its context ends, or if its process stands still for
// longer than the lease and then goes on, until its timer runs.
//
// A batch holds what of a transaction lies in the partition, whole, unless that is larger than
// MaxTxBytes. Where the transaction's last event is in another partition, the
// member asks the server whether it is stored.
type Groups struct {
	nc    *nats.Conn
	js    natsjs.JetStream
	scope scope
	opts  GroupsOptions
}

var _ sinks.GroupBroker = (*Groups)(nil)

// NewGroups returns the groups of a database's stream. It starts nothing and
// talks to nobody. The connection stays the caller's.
func NewGroups(nc *nats.Conn, database string, opts *GroupsOptions) (*Groups, error) {
	return newGroups(nc, scope{FirehoseScope: sinks.FirehoseScope{Source: database}}, opts)
}

// NewRegionGroups returns the groups of a region's stream, as [NewGroups] says.
func NewRegionGroups(nc *nats.Conn, grid, region string, opts *GroupsOptions) (*Groups, error) {
	if region == "" {
		return nil, fmt.Errorf("jetstream: the region of grid %q must have a name", grid)
	}
	return newGroups(nc, scope{FirehoseScope: sinks.FirehoseScope{Source: grid, Region: region}}, opts)
}

func newGroups(nc *nats.Conn, s scope, opts *GroupsOptions) (*Groups, error) {
	var o GroupsOptions
	if opts != nil {
		o = *opts
	}
	faults := s.Faults()
	if nc == nil {
		faults = append(faults, "there must be a connection")
	}
	if o.Partitions < 0 || o.Partitions > sinks.MaxPartitions {
		faults = append(faults, fmt.Sprintf("Partitions must be between 1 and %d", sinks.MaxPartitions))
	}
	if o.Replicas < 0 {
		faults = append(faults, "Replicas must not be negative")
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("jetstream: %s", strings.Join(faults, "; "))
	}
	if o.Stream == "" {
		o.Stream = s.stream()
	}
	if o.Partitions == 0 {
		o.Partitions = sinks.DefaultPartitions
	}
	if o.Bucket == "" {
		o.Bucket = DefaultGroupBucket
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	return &Groups{nc: nc, js: js, scope: s, opts: o}, nil
}

// filters returns the subjects of a partition.
func (g *Groups) filters(partition int) []string {
	all := g.scope.address() + ".*.*.*." // schema, table, operation
	if g.scope.Region != "" {
		all = g.scope.address() + ".*."
	}
	return []string{all + sinks.PartitionToken(partition), all + sinks.PartitionToken(sinks.All)}
}

// bucket opens the bucket, and creates it if it is missing.
func (g *Groups) bucket(ctx context.Context) (natsjs.KeyValue, error) {
	kv, err := g.js.KeyValue(ctx, g.opts.Bucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		kv, err = g.js.CreateKeyValue(ctx, natsjs.KeyValueConfig{
			Bucket: g.opts.Bucket, Description: "leases and checkpoints of consumer groups", Replicas: g.opts.Replicas,
		})
		if errors.Is(err, natsjs.ErrBucketExists) { // somebody else was faster
			kv, err = g.js.KeyValue(ctx, g.opts.Bucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", g.opts.Bucket, err)
	}
	return kv, nil
}

// checkPartitions reports that the stream has partitions that the group has not,
// and so would never read.
func (g *Groups) checkPartitions(ctx context.Context) error {
	s, err := g.js.Stream(ctx, g.opts.Stream)
	if err != nil {
		return err
	}
	info, err := s.Info(ctx, natsjs.WithSubjectFilter(g.scope.address()+".>"))
	if err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		token := subject[strings.LastIndexByte(subject, '.')+1:]
		p := 0
		if n, err := fmt.Sscanf(token, "%d", &p); n != 1 || err != nil || p < g.opts.Partitions {
			continue
		}
		return &sinks.PlaceError{Place: "stream " + g.opts.Stream, Reason: fmt.Sprintf(
			"it has messages in partition %s, such as %s, but the group reads %d partitions; set Partitions to what its firehose has, for a new group", token, subject, g.opts.Partitions)}
	}
	return nil
}

// A groupStart is where a group began. It is in the bucket, so that all its partitions begin there.
type groupStart struct {
	Partitions int       `json:"partitions"`
	Mark       groupMark `json:"start"`
}

// A groupMark is a [sinks.GroupMark] in the bucket.
type groupMark struct {
	Next     uint64 `json:"next"`
	Stream   int64  `json:"stream"`
	Position string `json:"position,omitempty"`
	Snapshot bool   `json:"snapshot,omitempty"`
	Fresh    bool   `json:"fresh,omitempty"`
}

// start returns where a new group begins.
func (g *Groups) start(ctx context.Context, at sinks.GroupStart) (groupMark, error) {
	s, err := g.js.Stream(ctx, g.opts.Stream)
	if err != nil {
		return groupMark{}, err
	}
	info := s.CachedInfo()
	if c := info.Cluster; c != nil && c.Leader == "" {
		return groupMark{}, errNoLeader // the answer is a follower's and may be an old one
	}
	m := groupMark{Stream: info.Created.UnixNano()}
	switch {
	case !at.After.IsZero():
		m.Position = at.After.String()
		m.Next, err = sequenceAfter(ctx, s, at.After)
	case !at.Time.IsZero():
		m.Next, err = sequenceAt(ctx, s, at.Time)
	case at.Oldest:
		m.Next = info.State.FirstSeq
	default:
		m.Next = info.State.LastSeq + 1
	}
	m.Next = max(m.Next, 1)
	m.Fresh = m.Next <= origin(info)
	return m, err
}

// sequenceAt returns the sequence of the first message that was stored at or after a
// time.
func sequenceAt(ctx context.Context, s natsjs.Stream, at time.Time) (uint64, error) {
	low, high := max(s.CachedInfo().State.FirstSeq, 1), s.CachedInfo().State.LastSeq+1
	for low < high {
		middle := low + (high-low)/2
		m, err := s.GetMsg(ctx, middle, natsjs.WithGetMsgSubject(">")) // or the next one that is left
		switch {
		case errors.Is(err, natsjs.ErrMsgNotFound):
			high = middle
		case err != nil:
			return 0, fmt.Errorf("message %d: %w", middle, err)
		case m.Sequence < high && m.Time.Before(at):
			low = m.Sequence + 1
		default:
			high = middle
		}
	}
	return low, nil
}
