package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// batchOverhead is room for the framing of a batch with one record.
	batchOverhead = 4 << 10
	// chunkRecords is how many records share memory at most.
	chunkRecords = 512
	// wrongBroker is what may be wrong where nobody answers.
	wrongBroker = "check the address, that a broker runs there, and that the security settings (tls, sasl) are those of its listener"
	// maxPending is how many records wait at most. MaxPendingBytes are reached
	// earlier.
	maxPending = 1 << 16
	// keptWindows times MaxPendingBytes is what is kept until it is committed, to be
	// sent again by a new producer.
	keptWindows = 4
)

// New returns a firehose for a database's events. It starts nothing and talks
// to nobody; [sinks.Firehose.Open] does. The URL is
//
//	kafka://[user:password@]host[:port][,host[:port]...][?tls=true&sasl=plain]
//
// where sasl may also be scram-sha-256 or scram-sha-512. The error names every
// option that is wrong, and never the password.
func New(brokersURL, database string, opts *Options) (*sinks.Firehose, error) {
	w, err := newWriter(brokersURL, database, opts.withDefaults(database))
	if err != nil {
		return nil, err
	}
	return sinks.NewFirehose(w, w.config()), nil
}

// newWriter returns a writer, or an error that names these faults and those of the options.
func newWriter(brokersURL, database string, o Options, faults ...string) (*writer, error) {
	scope := sinks.FirehoseScope{Source: database}
	faults = append(append(faults, o.validate()...), scope.Faults()...)
	b, err := parseURL(brokersURL)
	if err != nil {
		faults = append(faults, err.Error())
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("kafka: %s", strings.Join(faults, "; "))
	}
	return &writer{
		url: brokersURL, brokers: b, database: database, scope: scope, prefix: scope.Address() + ".",
		opts: o, queue: newQueue(), topics: make(map[string]*topic),
	}, nil
}

func (w *writer) config() sinks.FirehoseConfig {
	o := &w.opts
	return sinks.FirehoseConfig{
		Scope: w.scope, Partitions: o.Partitions, Logger: o.Logger, MaxPending: maxPending, TooLarge: o.TooLarge,
		MaxPendingBytes: 2 * o.MaxPendingBytes, // one half gathers while the other is on its way
		Keep:            !o.NoTransactions, KeepBytes: keptWindows * o.MaxPendingBytes,
	}
}

// A writer is the [sinks.FirehoseBroker] of a database's topics.
type writer struct {
	url      string // with the password
	brokers  *brokers
	database string
	scope    sinks.FirehoseScope
	prefix   string                              // of the topics' names, with the last dot
	compacts bool                                // the topics keep the latest record of each key alone
	made     func(context.Context, *topic) error // is told of topics that were made; nil: nobody
	opts     Options
	queue    *queue

	client *kgo.Client
	admin  *kadm.Client

	// Of the firehose's goroutine.
	topics  map[string]*topic
	schema  *listeners.Schema // the last one
	topic   *topic            // its topic
	lane    [1]*sinks.FirehoseLane
	resets  []*sinks.FirehoseLane
	chunk   *chunk      // being filled; nil: none
	parking *kgo.Client // made when it is needed

	acks  *sinks.FirehoseAcks
	claim *producer // what start has begun with, until it is through

	stop context.CancelFunc
	wg   sync.WaitGroup
}

var (
	_ sinks.FirehoseParker = (*writer)(nil)
	_ sinks.FirehoseReader = (*writer)(nil)
)

// Name returns what the names of the topics begin with.
func (w *writer) Name() string { return strings.TrimSuffix(w.prefix, ".") }

func (w *writer) Where() string { return w.brokers.String() }

func (w *writer) Source(opts *sinks.SourceOptions) (*sinks.Source, error) {
	return NewSource(w.url, w.database, opts, w.opts.Client...)
}

// base are the client's options for reading and writing.
func (w *writer) base() []kgo.Opt {
	return append(append([]kgo.Opt{kgo.ClientID("rowcall"), kgo.WithLogger(clientLog{w.opts.Logger})},
		w.brokers.options...), w.opts.Client...)
}

// Open connects, takes over from a predecessor, checks the topics that exist,
// and reads where they end. It tries for [Options].OpenTimeout.
func (w *writer) Open(ctx context.Context, acks *sinks.FirehoseAcks) (listeners.Position, error) {
	none := listeners.Position{}
	ctx, cancel := context.WithTimeoutCause(ctx, w.opts.OpenTimeout, fmt.Errorf("no answer within %s: %w", w.opts.OpenTimeout, context.DeadlineExceeded))
	defer cancel()
	if err := w.ping(ctx); err != nil {
		return none, err
	}
	w.acks = acks
	return none, w.start(ctx)
}

// start makes a producer, takes over from the one before, and starts its sender. After an
// error nothing runs.
func (w *writer) start(ctx context.Context) error {
	opts := append(w.base(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ManualFlushing(),
		kgo.MaxBufferedRecords(1<<30), // the firehose's window is the limit
		kgo.UnknownTopicRetries(10),
		kgo.MetadataMinAge(250*time.Millisecond), // how long a leader that has moved is not found
		kgo.ProducerBatchMaxBytes(int32(w.opts.MaxMessageBytes+batchOverhead)),
		kgo.ProducerBatchCompression(compressions[w.opts.Compression]),
		kgo.StopProducerOnDataLossDetected(),
		// Brokers may be away for long, and hang up as they start or end. Nothing is
		// given up but by a context.
		kgo.RequestRetries(math.MaxInt32), kgo.RetryTimeout(0), kgo.AlwaysRetryEOF(),
	)
	s := &sender{queue: w.queue, acks: w.acks, half: w.opts.TransactionTimeout / 2, producer: producer{id: -1}}
	if !w.opts.NoTransactions {
		s.txID = w.opts.TransactionalID
		opts = append(opts, kgo.TransactionalID(s.txID), kgo.TransactionTimeout(w.opts.TransactionTimeout))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	s.client = client
	if err := w.begin(ctx, s); err != nil {
		client.Close()
		return w.unready(err)
	}
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	w.stop = func() { stop(listeners.ErrClosed) }
	w.wg.Go(func() { s.run(running) })
	w.claim = nil
	return nil
}

// ping finds out whether the brokers can be talked to: one that hangs up does not
// like how it is talked to.
func (w *writer) ping(ctx context.Context) error {
	client, err := kgo.NewClient(append(w.base(), kgo.RequestRetries(math.MaxInt32), kgo.RetryTimeout(0))...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return &sinks.UnreachableError{Broker: "Kafka", Servers: w.brokers.seeds, Err: err, Remedy: wrongBroker}
	}
	return nil
}

// unready makes what brokers answer while they start or elect leaders, and a
// connection to those that have gone since they answered the ping, an
// [sinks.UnreachableError], which says that it may pass.
func (w *writer) unready(err error) error {
	_, final := errors.AsType[*sinks.PlaceError](err)
	_, gone := errors.AsType[*net.OpError](err)
	if final || !gone && !kerr.IsRetriable(err) && !kgo.IsRetryableBrokerErr(err) {
		return err
	}
	return &sinks.UnreachableError{Broker: "Kafka", Servers: w.brokers.seeds, Err: err}
}

func (w *writer) begin(ctx context.Context, s *sender) error {
	if s.txID != "" {
		// Now, and not with the first record: it ends what the predecessor has
		// open, and the look at the topics comes after it.
		id, epoch, err := s.client.ProducerID(ctx)
		if err != nil {
			return fmt.Errorf("kafka: take over transactional id %q: %w; without a coordinator of transactions (a single broker needs transaction.state.log.replication.factor=1), set NoTransactions", s.txID, err)
		}
		w.claim = &producer{id, epoch}
	}
	w.admin = kadm.NewClient(s.client)
	w.topics = make(map[string]*topic)
	if err := w.loadTopics(ctx); err != nil {
		return err
	}
	w.client = s.client
	return nil
}

func (w *writer) Close() {
	w.quit()
	if w.parking != nil {
		w.parking.Close()
	}
}

// Lanes returns one partition, or all for what concerns the whole table; for a
// reset, those of every topic that it concerns. A live marker has none.
func (w *writer) Lanes(ctx context.Context, m *sinks.FirehoseMessage) ([]*sinks.FirehoseLane, error) {
	if m.Marker() {
		w.resets = w.resets[:0]
		if m.Batch.Kind == listeners.Reset {
			for _, name := range slices.Sorted(maps.Keys(w.topics)) {
				if t := w.topics[name]; m.Batch.Collections == nil || slices.Contains(m.Batch.Collections, t.collection) {
					w.resets = append(w.resets, t.lanes...)
				}
			}
		}
		return w.resets, nil
	}
	if schema := m.Batch.Events[m.Index].Schema; schema != w.schema {
		t, err := w.ensureTopic(ctx, w.topicOf(m.Frame.Address))
		if err != nil {
			return nil, err
		}
		w.schema, w.topic = schema, t
	}
	if m.Frame.Partition == sinks.All {
		return w.topic.lanes, nil
	}
	w.lane[0] = w.topic.lanes[m.Frame.Partition]
	return w.lane[:], nil
}

// Send copies a message; Push hands the copies to the sender.
func (w *writer) Send(_ context.Context, m *sinks.FirehoseMessage) error {
	return w.send(m, func(*kgo.Record) {})
}

// send sends what shape makes of a message's record.
func (w *writer) send(m *sinks.FirehoseMessage, shape func(*kgo.Record)) error {
	if w.chunk != nil && w.chunk.full() {
		w.put(false, false)
	}
	if w.chunk == nil {
		n := len(m.Batch.Events) - m.Index
		if m.Frame.Partition == sinks.All {
			n += w.opts.Partitions
		}
		w.chunk = newChunk(min(max(n, 1), chunkRecords))
	}
	r := w.chunk.add(m.Frame, m.Lane.Topic, m.Lane.Partition)
	shape(r)
	if n := size(r); n > w.opts.MaxMessageBytes {
		w.chunk.drop()
		return &sinks.TooLargeError{
			Place: m.Lane.Place, Size: int64(n), Limit: int64(w.opts.MaxMessageBytes),
			Remedy: "raise MaxMessageBytes and the topic's max.message.bytes, or leave the large column out of the publication",
		}
	}
	w.chunk.last = m.Number
	return nil
}

func (w *writer) Push(why sinks.FirehosePush) {
	w.put(why == sinks.PushWhole, why == sinks.PushFlush)
}

func (w *writer) put(ends, flush bool) {
	c := w.chunk
	w.chunk = nil
	if c != nil && len(c.records) == 0 {
		c = nil
	}
	w.queue.put(c, ends, flush)
}
