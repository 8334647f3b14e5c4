package sinks

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// What a [GroupOptions] that does not say otherwise does.
const (
	DefaultGroupLease      = 10 * time.Second
	DefaultGroupDrain      = 20 * time.Second
	DefaultGroupCheckpoint = 500 * time.Millisecond
	DefaultGroupBytes      = 2 << 20
)

// GroupOptions set up a member of a group. Nil and zero mean the defaults. All
// members should have the same.
type GroupOptions struct {
	// Start is where the group begins when it is new; then it goes on from its
	// checkpoints. Default: from now on.
	Start GroupStart
	// ResetOnLoss tells the listener of a partition a Reset when history behind the
	// checkpoint is gone, and goes on with the oldest that is left. No state
	// follows the Reset, unless the firehose has stored one. Default: Run ends
	// with a [GroupHistoryError].
	ResetOnLoss bool

	// Collections and Filter are as in [listeners.SubscribeOptions].
	Collections []string
	Filter      func(*listeners.Event) bool
	// Retry says what happens when the listener fails. Default: the member leaves the
	// group and Run returns the error. What is parked holds back the checkpoint
	// and is told again by whoever has the partition next.
	Retry *listeners.RetryPolicy
	// Batches hands several batches over at once, see
	// [listeners.SubscribeOptions].Group. Default: one at a time.
	Batches *listeners.GroupPolicy
	// Workers is how many goroutines handle one partition, see
	// [listeners.SubscribeOptions].Workers. Default: one.
	Workers int

	// Lease is how long a partition stays with a member that gives no sign of
	// life. Shorter means that others take over sooner, and more traffic. Default
	// [DefaultGroupLease].
	Lease time.Duration
	// DrainTimeout is how long a listener may go on with the batch in hand when
	// its partition is to be given up, before its context ends; then it has as
	// long again to return. Default [DefaultGroupDrain].
	DrainTimeout time.Duration
	// Checkpoint is the time between two checkpoints. What was handled since the last
	// one is handled again after a crash. Default [DefaultGroupCheckpoint].
	Checkpoint time.Duration
	// MaxBytes is how much of a partition may be read and not yet handled.
	// Not counted is what the broker's client has fetched ahead of that: with
	// JetStream up to some 600 messages of a partition. Default [DefaultGroupBytes].
	MaxBytes int64
	// MaxTxBytes is how much of a transaction's part is held before it arrives in
	// several batches. Default [DefaultMaxTxBytes].
	MaxTxBytes int
	// Member begins this member's name in logs and at the broker. Default: the name of the host.
	Member string
	// Logger hears of partitions that come and go. Default: none.
	Logger *slog.Logger
}

func (o *GroupOptions) withDefaults() GroupOptions {
	var c GroupOptions
	if o != nil {
		c = *o
	}
	if c.Lease == 0 {
		c.Lease = DefaultGroupLease
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultGroupDrain
	}
	if c.Checkpoint == 0 {
		c.Checkpoint = DefaultGroupCheckpoint
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultGroupBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (o *GroupOptions) check(broker GroupBroker, name string) error {
	var faults []error
	if broker == nil {
		faults = append(faults, errors.New("there must be a broker"))
	}
	if name == "" || len(name) > 100 {
		faults = append(faults, errors.New("the group must have a name of at most 100 bytes"))
	}
	if o.Lease < 100*time.Millisecond {
		faults = append(faults, fmt.Errorf("the lease is %s, but must be 100ms at least", o.Lease))
	}
	if o.DrainTimeout < 0 || o.Checkpoint < 0 || o.MaxBytes < 0 || o.MaxTxBytes < 0 || o.Workers < 0 {
		faults = append(faults, errors.New("DrainTimeout, Checkpoint, MaxBytes, MaxTxBytes and Workers must not be negative"))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("sinks: group %q: %w", name, err)
	}
	return nil
}

// subscribe returns what a partition's subscription asks for.
func (o *GroupOptions) subscribe() *listeners.SubscribeOptions {
	return &listeners.SubscribeOptions{
		Collections: o.Collections, Filter: o.Filter, Retry: o.Retry, Group: o.Batches, Workers: o.Workers,
	}
}
