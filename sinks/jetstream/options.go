package jetstream

import (
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

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
	// MaxAge, MaxBytes and MaxMsgs limit what a stream keeps when it is
	// created; the oldest goes first. An existing stream's limits are left
	// alone. Default: no limit.
	MaxAge   time.Duration
	MaxBytes int64
	MaxMsgs  int64
	// Compression has the server compress what it stores, when the stream is
	// created (S2; server 2.10). Default: none.
	Compression bool
	// Cluster and Tags say on which servers the stream is to be when it is
	// created. Default: the server chooses.
	Cluster string
	Tags    []string
	// Domain is the JetStream domain, and APIPrefix the prefix of JetStream's
	// API, such as "JS.accounting.API", of streams that are in another account
	// or behind a leaf node. At most one is set. What the firehose publishes
	// has to get there under its own subjects. Default: those of the connection's account.
	Domain    string
	APIPrefix string
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
	// Atomic stores each transaction as a whole: readers see all of its messages
	// or none (server 2.12). One of more than 1,000 messages, or one that is
	// larger than the window that MaxPending and MaxPendingBytes allow, a
	// snapshot, and one that the server has refused as a whole five times become
	// visible message by message all the same. The stream must allow it
	// (allow_atomic), as one that is created does. A transaction of several
	// messages then waits for the one before it, and costs a round trip. A bucket has no
	// transactions, and Atomic does nothing there. Default: messages are visible as they are stored, in order.
	Atomic bool
	// FastIngest says when messages go in batches of the server's fast ingest.
	// Default [FastIngestAuto].
	FastIngest FastIngest
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
	if o.FastIngest > FastIngestAlways {
		faults = append(faults, "FastIngest must be one of its constants")
	}
	if o.AckTimeout < 0 || o.MaxAge < 0 || o.MaxBytes < 0 || o.MaxMsgs < 0 {
		faults = append(faults, "AckTimeout, MaxAge, MaxBytes and MaxMsgs must not be negative")
	}
	return append(faults, wrongPlace(o.Domain, o.APIPrefix)...)
}

// wrongPlace returns what is wrong with a domain and a prefix of the API.
func wrongPlace(domain, apiPrefix string) (faults []string) {
	if domain != "" && apiPrefix != "" {
		faults = append(faults, "Domain and APIPrefix are two ways to say one thing: set one")
	}
	if strings.ContainsAny(domain, " .*>\t\r\n") || strings.ContainsAny(apiPrefix, " *>\t\r\n") {
		faults = append(faults, "Domain must not contain spaces, dots or wildcards, and APIPrefix no spaces or wildcards")
	}
	return faults
}

// api returns what the subjects of JetStream's API begin with.
func (o *Options) api() string {
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	return "$JS.API."
}

// elsewhere returns the JetStream of a domain or with a prefix.
func elsewhere(nc *nats.Conn, domain, apiPrefix string, opts ...natsjs.JetStreamOpt) (natsjs.JetStream, error) {
	return (&Options{Domain: domain, APIPrefix: apiPrefix}).open(nc, opts...)
}

func (o *Options) open(nc *nats.Conn, opts ...natsjs.JetStreamOpt) (natsjs.JetStream, error) {
	if o.Domain == "" && o.APIPrefix == "" {
		return natsjs.New(nc, opts...)
	}
	return natsjs.NewWithAPIPrefix(nc, strings.TrimSuffix(o.api(), "."), opts...)
}
