package kafka

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// Defaults of [Options].
const (
	DefaultMaxPendingBytes    = 4 << 20
	DefaultMaxMessageBytes    = 1_000_000 // a broker allows 1,048,588 with its own framing
	DefaultTransactionTimeout = time.Minute
	DefaultOpenTimeout        = 30 * time.Second
)

// Options set up a firehose. Nil and zero mean the defaults.
type Options struct {
	// Partitions of each topic, between 1 and [sinks.MaxPartitions]. A topic
	// that exists must have as many. Default [sinks.DefaultPartitions].
	Partitions int
	// Replicas is the replication factor of topics that are created. Default:
	// the brokers' default.
	Replicas int
	// Retention is how long records of topics that are created are kept.
	// Default: the brokers' default; negative means for ever.
	Retention time.Duration
	// NoTransactions stores without Kafka transactions, which brokers need
	// not coordinate then; see the package's documentation for what is lost.
	NoTransactions bool
	// TransactionalID names the writer. A second firehose with the same one
	// fences the first. Default "rowcall-" and the escaped database.
	TransactionalID string
	// TransactionTimeout is when the brokers abort a transaction whose writer
	// is gone; until then, or until the writer is back, read_committed readers
	// wait. Brokers allow 15 minutes at most unless set otherwise. Default
	// [DefaultTransactionTimeout].
	TransactionTimeout time.Duration
	// Compression is none, gzip, snappy, lz4 or zstd. Default snappy.
	Compression string
	// MaxPendingBytes is how much waits to be sent, besides as much that is on
	// its way, before OnBatch blocks. Default [DefaultMaxPendingBytes].
	MaxPendingBytes int
	// MaxMessageBytes is the largest record that is sent. The topics'
	// max.message.bytes should be a little larger. Default
	// [DefaultMaxMessageBytes].
	MaxMessageBytes int
	// TooLarge is what becomes of a record that is larger than MaxMessageBytes,
	// or than the topic allows. With [sinks.TooLargePark] its body is stored in
	// pieces in the topic [ParkedTopic], and the record says where; one that only
	// the topic refuses ends the firehose all the same. Default: the firehose
	// ends with a [sinks.TooLargeError].
	TooLarge sinks.TooLargePolicy
	// OpenTimeout bounds [sinks.Firehose.Open]. Later on, brokers that are away are
	// waited for until the subscription ends, also to make a topic or to park.
	// Default [DefaultOpenTimeout].
	OpenTimeout time.Duration
	// Client are further options of the Kafka client, such as a dialer or TLS
	// certificates. They may not change how records are partitioned,
	// acknowledged and retried.
	Client []kgo.Opt
	// Logger gets what the firehose and its client have to say. Default: none.
	Logger *slog.Logger
}

var compressions = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func (o *Options) withDefaults(database string) Options {
	var c Options
	if o != nil {
		c = *o
	}
	if c.Partitions == 0 {
		c.Partitions = sinks.DefaultPartitions
	}
	if c.Replicas == 0 {
		c.Replicas = -1
	}
	if c.TransactionalID == "" {
		c.TransactionalID = "rowcall-" + sinks.EscapeToken(database)
	}
	if c.TransactionTimeout == 0 {
		c.TransactionTimeout = DefaultTransactionTimeout
	}
	if c.Compression == "" {
		c.Compression = "snappy"
	}
	if c.MaxPendingBytes == 0 {
		c.MaxPendingBytes = DefaultMaxPendingBytes
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if c.OpenTimeout == 0 {
		c.OpenTimeout = DefaultOpenTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (o *Options) validate() []string {
	var faults []string
	if o.Partitions < 1 || o.Partitions > sinks.MaxPartitions {
		faults = append(faults, fmt.Sprintf("Partitions must be between 1 and %d", sinks.MaxPartitions))
	}
	if o.Replicas < -1 || o.Replicas > 1000 {
		faults = append(faults, "Replicas must be between 1 and 1000, or 0 for the brokers' default")
	}
	if _, ok := compressions[o.Compression]; !ok {
		faults = append(faults, fmt.Sprintf("Compression %q is unknown: it must be none, gzip, snappy, lz4 or zstd", o.Compression))
	}
	if o.TransactionTimeout < time.Second {
		faults = append(faults, "TransactionTimeout must be a second at least")
	}
	if o.MaxPendingBytes < 1 || o.MaxMessageBytes < 1 || o.OpenTimeout < 0 {
		faults = append(faults, "MaxPendingBytes, MaxMessageBytes and OpenTimeout must not be negative")
	}
	if strings.TrimSpace(o.TransactionalID) != o.TransactionalID {
		faults = append(faults, "TransactionalID must not begin or end with a space")
	}
	return faults
}
