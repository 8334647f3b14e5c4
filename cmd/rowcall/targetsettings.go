package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowcall/rowcall/internal/tablename"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// targetOptions are what a file says of one place that events go to.
type targetOptions struct {
	at place
	// writerAt is where the transactional id is, or at.
	writerAt place

	target string // as --to has it
	name   string
	where  whereFlag
	tables []tablename.Pattern // none for all

	// keyAt says where the value of each key is.
	keyAt map[string]place
	login targetLogin
	// latest has a place keep the latest state of each key instead of the history,
	// with NATS in this bucket.
	latest bool
	bucket string

	// skipGap has a place go on with what the journal holds when it has lost
	// what the place needs.
	skipGap bool

	jetstream jetstream.Options
	kafka     kafka.Options
	rabbitmq  rabbitmq.PublisherOptions
}

// The kinds of places, as the settings' table names them.
const (
	kindNATS  = "nats"
	kindKafka = "kafka"
)

// targetKind returns what kind of place a target is: the word or the scheme.
func targetKind(target string) string {
	kind, _, _ := strings.Cut(target, "://")
	if kind == kindAMQPS {
		return kindAMQP
	}
	return kind
}

// A targetSetting is a key of one place in a file.
type targetSetting struct {
	key     string
	of      []string // kinds of places; nil for all
	kind    valueKind
	example string
	help    string
	set     func(*targetOptions, string) error
}

const (
	keyTarget = "target" // which each place has
	keyWriter = "transactional-id"
)

func targetSettings() []targetSetting {
	all := []targetSetting{
		{
			key: "name", example: "orders", help: "what logs call it; two places of a kind need names (default: the kind, with -latest for the latest state)",
			set: func(o *targetOptions, text string) error {
				o.name = text
				return checkTargetName(text)
			},
		},
		{
			key: "where", example: "op != \"read\"", help: "only the events for which this condition holds, besides the one of the whole file",
			set: func(o *targetOptions, text string) error { return o.where.Set(text) },
		},
		{
			key: "tables", kind: valueList, example: "[public.seats]", help: "only the events of these, schema.table or schema.* (default: all that are read)",
			set: func(o *targetOptions, text string) error {
				p, err := parseTable(text)
				o.tables = append(o.tables, p)
				return err
			},
		},
		{
			key: "stream", of: []string{kindNATS}, example: "CDC_SHOP", help: "the stream (default: CDC_ and the database's name)",
			set: func(o *targetOptions, text string) error {
				o.jetstream.Stream = text
				if strings.ContainsAny(text, " \t.*>/\\") {
					return errors.New("the name of a stream has no spaces, dots, slashes, * and >")
				}
				return nil
			},
		},
		{
			key: "partitions", of: []string{kindNATS, kindKafka, kindAMQP}, kind: valueNumber, example: "16",
			help: "the number of partitions; it must stay as it is (default 16)",
			set: func(o *targetOptions, text string) error {
				n, err := between(text, 1, sinks.MaxPartitions)
				o.jetstream.Partitions, o.kafka.Partitions, o.rabbitmq.Partitions = n, n, n
				return err
			},
		},
		{
			key: "replicas", of: []string{kindNATS, kindKafka}, kind: valueNumber, example: "3",
			help: "how many servers store what is created (default: 1 for NATS, the brokers' for Kafka)",
			set: func(o *targetOptions, text string) error {
				most := map[bool]int{true: 5, false: 1000}[targetKind(o.target) == kindNATS]
				n, err := between(text, 1, most)
				o.jetstream.Replicas, o.kafka.Replicas = n, n
				return err
			},
		},
		{
			key: "retention", of: []string{kindNATS, kindKafka}, kind: valueDuration, example: "720h",
			help: "how long events are kept in what is created (default: for ever for NATS, the brokers' for Kafka)",
			set: func(o *targetOptions, text string) error {
				d, err := positive(text)
				o.jetstream.MaxAge, o.kafka.Retention = d, d
				return err
			},
		},
		{
			key: "max-bytes", of: []string{kindNATS}, kind: valueSize, example: "100GB", help: "how much a stream that is created keeps (default: any)",
			set: func(o *targetOptions, text string) error {
				var size byteSize
				err := size.Set(text)
				o.jetstream.MaxBytes = int64(size)
				return err
			},
		},
		{
			key: "max-messages", of: []string{kindNATS}, kind: valueNumber, example: "1000000000", help: "how many messages a stream that is created keeps (default: any)",
			set: func(o *targetOptions, text string) error {
				n, err := between(text, 1, math.MaxInt)
				o.jetstream.MaxMsgs = int64(n)
				return err
			},
		},
		{
			key: "cluster", of: []string{kindNATS}, example: "east", help: "the cluster where what is created is placed (default: the server chooses)",
			set: func(o *targetOptions, text string) error { o.jetstream.Cluster = text; return nil },
		},
		{
			key: "tags", of: []string{kindNATS}, kind: valueList, example: "[ssd]", help: "tags of the servers where what is created is placed (default: any server)",
			set: func(o *targetOptions, text string) error {
				o.jetstream.Tags = append(o.jetstream.Tags, text)
				return nil
			},
		},
		{
			key: "latest", of: []string{kindNATS, kindKafka}, kind: valueBool, example: "false",
			help: "keep the latest state of each key instead of the history, in a KV bucket or in compacted topics (default false)",
			set: func(o *targetOptions, text string) (err error) {
				o.latest, err = trueOrFalse(text)
				return err
			},
		},
		{
			key: "bucket", of: []string{kindNATS}, example: "LATEST_SHOP", help: "the bucket for that (default: LATEST_ and the database's name)",
			set: func(o *targetOptions, text string) error {
				o.bucket = text
				return checkTargetName(text)
			},
		},
		{
			key: "message-ids", of: []string{kindNATS}, kind: valueBool, example: "false", help: "set Nats-Msg-Id to the event's id, for mirrors and readers that look for it (default false)",
			set: func(o *targetOptions, text string) (err error) {
				o.jetstream.MsgID, err = trueOrFalse(text)
				return err
			},
		},
		{
			key: "atomic", of: []string{kindNATS}, kind: valueBool, example: "false",
			help: "readers see all messages of a transaction or none, up to 1,000 of them, for a round trip each (NATS 2.12; default false)",
			set: func(o *targetOptions, text string) (err error) {
				o.jetstream.Atomic, err = trueOrFalse(text)
				return err
			},
		},
		{
			key: "fast-ingest", of: []string{kindNATS}, kind: valueChoice, example: "auto",
			help: "messages in batches that NATS 2.14 answers every hundred of, where the stream allows it: auto, under load; off; always (default auto)",
			set: func(o *targetOptions, text string) error {
				for _, f := range []jetstream.FastIngest{jetstream.FastIngestAuto, jetstream.FastIngestOff, jetstream.FastIngestAlways} {
					if text == f.String() {
						o.jetstream.FastIngest = f
					}
				}
				return newChoice("", "auto", "off", "always").Set(text)
			},
		},
		{
			key: "too-large", of: []string{kindNATS, kindKafka}, kind: valueChoice, example: "park",
			help: "an event that is larger than the place takes ends the place (fail), or its body is parked beside, and the message says where (park) (default fail)",
			set: func(o *targetOptions, text string) error {
				if text == "park" {
					o.jetstream.TooLarge, o.kafka.TooLarge = sinks.TooLargePark, sinks.TooLargePark
				}
				return newChoice("", "fail", "park").Set(text)
			},
		},
		{
			key: "on-gap", of: []string{kindKafka, kindAMQP}, kind: valueChoice, example: "fail",
			help: "when the journal no longer holds what this place needs: fail, or skip to the oldest event that it holds (default fail)",
			set: func(o *targetOptions, text string) error {
				o.skipGap = text == "skip"
				return newChoice("", "fail", "skip").Set(text)
			},
		},
		{
			key: "compression", of: []string{kindNATS, kindKafka}, kind: valueChoice, example: "none",
			help: "of a stream or bucket that is created none or s2 (default none), of records in Kafka none, gzip, snappy, lz4 or zstd (default snappy)",
			set: func(o *targetOptions, text string) error {
				o.kafka.Compression, o.jetstream.Compression = text, text == "s2"
				if targetKind(o.target) == kindNATS {
					return newChoice("", "none", "s2").Set(text)
				}
				return newChoice("", "none", "gzip", "snappy", "lz4", "zstd").Set(text)
			},
		},
		{
			key: "transactions", of: []string{kindKafka}, kind: valueBool, example: "true", help: "write in Kafka transactions, which fence a predecessor (default true)",
			set: func(o *targetOptions, text string) error {
				on, err := trueOrFalse(text)
				o.kafka.NoTransactions = !on
				return err
			},
		},
		{
			key: keyWriter, of: []string{kindKafka}, example: "rowcall-shop", help: "the writer's name there (default: rowcall- and the database's name)",
			set: func(o *targetOptions, text string) error { o.kafka.TransactionalID = text; return nil },
		},
		{
			key: "transaction-timeout", of: []string{kindKafka}, kind: valueDuration, example: "1m", help: "when the brokers give up a transaction whose writer is gone (default 1m)",
			set: func(o *targetOptions, text string) (err error) {
				o.kafka.TransactionTimeout, err = positive(text)
				return err
			},
		},
		{
			key: "max-message-bytes", of: []string{kindKafka}, kind: valueSize, example: "1MB", help: "the largest record that is sent (default 1MB)",
			set: func(o *targetOptions, text string) error {
				var size byteSize
				err := size.Set(text)
				o.kafka.MaxMessageBytes = int(size)
				return err
			},
		},
		{
			key: "max-pending-bytes", of: []string{kindNATS, kindKafka, kindAMQP}, kind: valueSize, example: "8MiB",
			help: "how much may be on its way there, and not stored for certain, before reading waits (default 8MiB, 4MiB for Kafka)",
			set: func(o *targetOptions, text string) error {
				var size byteSize
				if err := size.Set(text); err != nil || size == 0 {
					return cmp.Or(err, errors.New("want a size above zero such as 8MiB"))
				}
				o.jetstream.MaxPendingBytes, o.kafka.MaxPendingBytes, o.rabbitmq.MaxPendingBytes = int(size), int(size), int(size)
				return nil
			},
		},
		{
			key: "ack-timeout", of: []string{kindNATS, kindAMQP}, kind: valueDuration, example: "10s",
			help: "how long the server may acknowledge nothing before it is asked what it has, or sent the rest again (default 10s, 5s for RabbitMQ)",
			set: func(o *targetOptions, text string) error {
				d, err := positive(text)
				o.jetstream.AckTimeout, o.rabbitmq.ConfirmTimeout = d, d
				return err
			},
		},
		{
			key: "open-timeout", of: []string{kindKafka}, kind: valueDuration, example: "30s", help: "how long brokers may be away at the start (default 30s)",
			set: func(o *targetOptions, text string) (err error) {
				o.kafka.OpenTimeout, err = positive(text)
				return err
			},
		},
		{
			key: "exchange", of: []string{kindAMQP}, example: "rowcall", help: "the topic exchange, which is created if need be (default rowcall)",
			set: func(o *targetOptions, text string) error { o.rabbitmq.Exchange = text; return nil },
		},
		{
			key: "mandatory", of: []string{kindAMQP}, kind: valueBool, example: "false",
			help: "wait until a queue is bound that takes an event; otherwise RabbitMQ drops it (default false)",
			set: func(o *targetOptions, text string) (err error) {
				o.rabbitmq.Mandatory, err = trueOrFalse(text)
				return err
			},
		},
	}
	return append(all, loginSettings()...)
}

func (o *targetOptions) jetstreamOptions(log *slog.Logger) *jetstream.Options {
	opts := o.jetstream
	opts.Logger = log
	return &opts
}

// kafkaOptions returns the options, and the URL with what else is to be in it.
func (o *targetOptions) kafkaOptions(brokers string, log *slog.Logger) (*kafka.Options, string, error) {
	opts := o.kafka
	opts.Logger = log
	brokers, err := o.login.url(brokers)
	if err != nil {
		return nil, "", err
	}
	opts.Client, err = o.login.client()
	return &opts, brokers, err
}

// fits reports whether a kind of place has the setting.
func (s *targetSetting) fits(kind string) bool { return s.of == nil || slices.Contains(s.of, kind) }

func between(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
	}
	return n, nil
}

func positive(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, errors.New("want a duration above zero such as 90s or 720h")
	}
	return d, nil
}

func trueOrFalse(text string) (bool, error) {
	if text != "true" && text != "false" {
		return false, errors.New("want true or false")
	}
	return text == "true", nil
}

func checkTargetName(name string) error {
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", r) {
			return errors.New("a name has letters, digits, - and _")
		}
	}
	return nil
}
