package jetstream

import (
	"log/slog"
	"strings"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

const (
	// DefaultMaxPending is the number of messages that may wait for their
	// acknowledgement.
	DefaultMaxPending = 4096
	// DefaultMaxPendingBytes is their size.
	DefaultMaxPendingBytes = 8 << 20
	// DefaultAckTimeout is how long the server may be silent.
	DefaultAckTimeout = 10 * time.Second
)

// Options set up a firehose. Nil and zero mean the defaults.
type Options struct {
	// Stream is the stream's name. Default: see [StreamName] and
	// [RegionStreamName].
	Stream string
	// Partitions is the number of partitions, at most
	// [sinks.MaxPartitions]. Default [sinks.DefaultPartitions]. It must stay
	// the same as long as the stream lives, or keys change their partition.
	Partitions int
	// Replicas is the number of servers that store the stream when it is
	// created. Default 1.
	Replicas int
	// MsgID sets Nats-Msg-Id to the CloudEvents id, for a mirror or a reader
	// that looks for duplicates, and leaves the duplicate window of a new
	// stream at the server's default. It costs memory and adds nothing to what
	// is promised. Default: a short id, of no use to others.
	MsgID bool
	// MaxAge and MaxBytes limit what a stream keeps when it is created. An
	// existing stream's limits are left alone. Default: no limit.
	MaxAge   time.Duration
	MaxBytes int64
	// MaxPending and MaxPendingBytes bound the messages that are sent and not
	// acknowledged, in number and in bytes. A single larger message is sent
	// alone. Defaults [DefaultMaxPending] and [DefaultMaxPendingBytes].
	MaxPending      int
	MaxPendingBytes int
	// AckTimeout is how long the server may go without acknowledging anything
	// before the firehose asks what is stored and sends the rest again.
	// Default [DefaultAckTimeout].
	AckTimeout time.Duration
	// TooLarge is what becomes of a message that is larger than the server or
	// the stream allows. With [sinks.TooLargePark] its body is stored in the object
	// store [ParkedName], and the message says where. Default: the firehose ends
	// with a [sinks.TooLargeError].
	TooLarge sinks.TooLargePolicy
	// Logger gets a line when publishing is interrupted and when it goes on.
	// Default: none.
	Logger *slog.Logger
}

// StreamName returns the name of the stream that holds a database's events
// unless options say otherwise: "CDC_" and the escaped name in upper case.
func StreamName(database string) string {
	return "CDC_" + strings.ToUpper(sinks.EscapeToken(database))
}

func (o *Options) withDefaults(from scope) Options {
	var c Options
	if o != nil {
		c = *o
	}
	if c.Stream == "" {
		c.Stream = from.stream()
	}
	if c.Partitions == 0 {
		c.Partitions = sinks.DefaultPartitions
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.MaxPending == 0 {
		c.MaxPending = DefaultMaxPending
	}
	if c.MaxPendingBytes == 0 {
		c.MaxPendingBytes = DefaultMaxPendingBytes
	}
	if c.AckTimeout == 0 {
		c.AckTimeout = DefaultAckTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (o *Options) validate() []string {
	var faults []string
	if o.Partitions < 1 || o.Partitions > sinks.MaxPartitions {
		faults = append(faults, "Partitions must be between 1 and 1000")
	}
	if strings.ContainsAny(o.Stream, " .*>/\\\t\r\n") {
		faults = append(faults, "Stream must not contain spaces, dots, wildcards or slashes")
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		faults = append(faults, "Replicas must be between 1 and 5")
	}
	if o.MaxPending < 1 || o.MaxPendingBytes < 1 {
		faults = append(faults, "MaxPending and MaxPendingBytes must not be negative")
	}
	if o.AckTimeout < 0 || o.MaxAge < 0 || o.MaxBytes < 0 {
		faults = append(faults, "AckTimeout, MaxAge and MaxBytes must not be negative")
	}
	return faults
}
