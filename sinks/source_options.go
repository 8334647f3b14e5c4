package sinks

import (
	"log/slog"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A Start is a place in a log. At most one field is used, the first that is
// set, in this order. The zero Start is the end of the log: from now on.
type Start struct {
	// After is the position before the first event wanted, such as one that a
	// listener has stored. What it names must be in the log still, or the
	// reader begins with a Reset and the present state.
	After listeners.Position
	// Sequence is the number of the first message wanted, where the broker
	// numbers all messages of a log, as JetStream does; others refuse it. The
	// message must be in the log still, as After's.
	Sequence uint64
	// Time is when the broker had stored the first message wanted.
	Time time.Time
	// Oldest asks for all that the log holds.
	Oldest bool
}

// IsNow reports whether nothing is set.
func (s Start) IsNow() bool { return s == Start{} }

// SourceOptions set up a [Source]. Nil and zero mean the defaults.
type SourceOptions struct {
	// Start is where subscriptions made before Run begin. It says nothing to
	// those that ask for [listeners.SubscribeOptions].Current: they are told the
	// present state first. Default: from now on.
	Start Start
	// UntilTip makes Run return when everything is handled that the log held
	// when it began. Default: Run goes on.
	UntilTip bool
	// Collections limits the source to these, each written as
	// [listeners.Schema.Collection] returns it, for all subscriptions together.
	// The whole log is read all the same. Default: all.
	Collections []string
	// MaxBytes is how much may be read and not yet handled by every
	// subscription, in estimated bytes. Then reading waits. Not counted is what
	// the broker's client has fetched ahead of that: with JetStream up to some
	// 2000 messages. Default [listeners.DefaultFeedBytes].
	MaxBytes int64
	// MaxTxBytes is how much of one transaction is held before it arrives in
	// parts. Default [DefaultMaxTxBytes].
	MaxTxBytes int
	// StopTimeout is how long Run waits for listeners at its end. Default
	// [DefaultStopTimeout].
	StopTimeout time.Duration
	// Logger hears of interruptions, of resets, and of messages that are no
	// events. Default: none.
	Logger *slog.Logger
}

// DefaultStopTimeout is how long a source waits for its listeners.
const DefaultStopTimeout = 10 * time.Second

func (o *SourceOptions) withDefaults() SourceOptions {
	var c SourceOptions
	if o != nil {
		c = *o
	}
	if c.MaxTxBytes == 0 {
		c.MaxTxBytes = DefaultMaxTxBytes
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (o *SourceOptions) validate() []string {
	var faults []string
	if o.MaxBytes < 0 || o.MaxTxBytes < 0 || o.StopTimeout < 0 {
		faults = append(faults, "MaxBytes, MaxTxBytes and StopTimeout must not be negative")
	}
	return faults
}
