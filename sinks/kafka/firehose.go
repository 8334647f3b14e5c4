package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A Firehose stores a database's events in topics, one for each table. It is a
// [listeners.Durable]: its subscription calls OnBatch and Flush, on one
// goroutine; Stored and Stalled may be called from anywhere.
//
// OnBatch returns when the batch is taken into memory. It blocks while too much
// waits there, for as long as the brokers are away.
type Firehose struct {
	brokers  *brokers
	database string
	opts     Options
	encoder  *sinks.Encoder
	queue    *queue

	client *kgo.Client
	admin  *kadm.Client
	topics map[string]*topic
	// Of the subscription's goroutine: the topic of the last schema.
	schema *listeners.Schema
	topic  *topic

	stop   context.CancelFunc
	wg     sync.WaitGroup
	closed sync.Once
}

var _ listeners.Durable = (*Firehose)(nil)

// New returns a firehose for a database's events. It starts nothing and talks
// to nobody; [Firehose.Open] does. The URL is
//
//	kafka://[user:password@]host[:port][,host[:port]...][?tls=true&sasl=plain]
//
// where sasl may also be scram-sha-256 or scram-sha-512. The error names every
// option that is wrong, and never the password.
func New(brokersURL, database string, opts *Options) (*Firehose, error) {
	o := opts.withDefaults(database)
	faults := o.validate()
	if database == "" {
		faults = append(faults, "the database must have a name")
	}
	b, err := parseURL(brokersURL)
	if err != nil {
		faults = append(faults, err.Error())
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("kafka: %s", strings.Join(faults, "; "))
	}
	return &Firehose{
		brokers: b, database: database, opts: o, encoder: sinks.NewEncoder(o.Partitions),
		queue: newQueue(o.MaxPendingBytes), topics: make(map[string]*topic),
	}, nil
}

// base are the client's options for reading and writing.
func (f *Firehose) base() []kgo.Opt {
	return append(append([]kgo.Opt{kgo.ClientID("rowcall"), kgo.WithLogger(clientLog{f.opts.Logger})},
		f.brokers.options...), f.opts.Client...)
}

// Open connects, takes over from a predecessor, checks the topics that exist,
// and reads where they end. It tries for [Options].OpenTimeout. Its errors are
// an [UnreachableError], a [TopicError], and what a broker says. Open is called
// once; [Firehose.Close] ends what it started.
func (f *Firehose) Open(ctx context.Context) error {
	if f.client != nil {
		return errors.New("kafka: the firehose is open already")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.opts.OpenTimeout, fmt.Errorf("no answer within %s", f.opts.OpenTimeout))
	defer cancel()
	opts := append(f.base(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ManualFlushing(),
		kgo.MaxBufferedRecords(1<<30), // the queue is the limit
		kgo.UnknownTopicRetries(10),
		kgo.MetadataMinAge(250*time.Millisecond), // how long a leader that has moved is not found
		kgo.ProducerBatchMaxBytes(int32(f.opts.MaxMessageBytes+batchOverhead)),
		kgo.ProducerBatchCompression(compressions[f.opts.Compression]),
		kgo.StopProducerOnDataLossDetected(),
	)
	s := &sender{queue: f.queue, half: f.opts.TransactionTimeout / 2}
	if !f.opts.NoTransactions {
		s.txID = f.opts.TransactionalID
		opts = append(opts, kgo.TransactionalID(s.txID), kgo.TransactionTimeout(f.opts.TransactionTimeout))
	}
	// Brokers may be away for long. Nothing is given up but by a context.
	opts = append(opts, kgo.RequestRetries(math.MaxInt32), kgo.RetryTimeout(0))
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	s.client = client
	if err := f.begin(ctx, s); err != nil {
		client.Close()
		return err
	}
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	f.stop = func() { stop(listeners.ErrClosed) }
	f.wg.Go(func() { s.run(running) })
	f.opts.Logger.InfoContext(ctx, "firehose open", "brokers", f.brokers.String(), "topics", len(f.topics))
	return nil
}

func (f *Firehose) begin(ctx context.Context, s *sender) error {
	if err := s.client.Ping(ctx); err != nil {
		return &UnreachableError{Brokers: f.brokers.String(), Err: err}
	}
	if s.txID != "" {
		// Now, and not with the first record: it ends what the predecessor has
		// open, and the look at the topics comes after it.
		if _, _, err := s.client.ProducerID(ctx); err != nil {
			return fmt.Errorf("kafka: take over transactional id %q: %w; without a coordinator of transactions (a single broker needs transaction.state.log.replication.factor=1), set NoTransactions", s.txID, err)
		}
	}
	f.admin = kadm.NewClient(s.client)
	if err := f.loadTopics(ctx); err != nil {
		return err
	}
	f.client = s.client
	return nil
}

// Close ends what Open started and waits for it. It waits for no
// acknowledgement: Flush does. Close may be called any number of times, but not
// during OnBatch or Flush.
func (f *Firehose) Close() {
	if f.client == nil {
		return
	}
	f.closed.Do(func() {
		f.stop()
		f.wg.Wait()
		f.client.Close()
	})
}

// Brokers returns the addresses of the URL, without user and password.
func (f *Firehose) Brokers() string { return f.brokers.String() }

// Stored returns the position up to which everything is stored by this
// firehose; zero until something is.
func (f *Firehose) Stored() listeners.Position { return f.queue.position() }

// Stalled implements [listeners.Durable].
func (f *Firehose) Stalled() <-chan struct{} { return f.queue.stalled }

// Flush returns nil when everything taken is stored. A transaction that has
// arrived in part is committed in part.
func (f *Firehose) Flush(ctx context.Context) error {
	if f.client == nil {
		return errNotOpen
	}
	return f.queue.drain(ctx)
}

// batchOverhead is room for the framing of a batch with one record.
const batchOverhead = 4 << 10

var errNotOpen = errors.New("kafka: the firehose is not open")

// OnBatch takes what the topics do not hold yet of a batch. It is not to be
// called concurrently with itself or Flush. An error is final, unless ctx ended.
func (f *Firehose) OnBatch(ctx context.Context, b *listeners.Batch) error {
	if f.client == nil {
		return errNotOpen
	}
	if err := f.queue.failed(); err != nil {
		return err
	}
	n := sinks.Len(b)
	if b.Kind == listeners.Reset {
		n = f.opts.Partitions * len(f.topics)
	}
	l := newLoader(ctx, f, n)
	for i := range sinks.Len(b) {
		if err := f.load(l, b, i); err != nil {
			if ctx.Err() == nil {
				f.queue.fail(err)
			}
			return err
		}
	}
	return l.finish(b.Position, b.Kind != listeners.Changes || b.Last)
}

// load hands message i of a batch to the loader, for each topic that it goes to.
func (f *Firehose) load(l *loader, b *listeners.Batch, i int) error {
	frame := f.encoder.Encode(b, i)
	if b.Kind == listeners.Reset {
		if err := f.ours(b.Source, "a reset"); err != nil {
			return err
		}
		for _, t := range f.topics {
			if b.Collections == nil || slices.Contains(b.Collections, t.collection) {
				if err := l.load(frame, t, nil, b.Position); err != nil {
					return err
				}
			}
		}
		return nil
	}
	e := &b.Events[i]
	if e.Schema != f.schema {
		if e.Schema.Namespace == "" {
			return fmt.Errorf("kafka: region %s of %s does not belong into the firehose of a database", e.Schema.Name, e.Schema.Source)
		}
		if err := f.ours(e.Schema.Source, "table "+e.Schema.Collection()); err != nil {
			return err
		}
		t, err := f.ensureTopic(l.ctx, topicOf(frame.Address))
		if err != nil {
			return err
		}
		f.schema, f.topic = e.Schema, t
	}
	return l.load(frame, f.topic, e, e.Position)
}

// ours checks that what is to be stored belongs to the firehose's database.
func (f *Firehose) ours(source, what string) error {
	if source == f.database {
		return nil
	}
	return fmt.Errorf("kafka: %s of source %q does not belong into the firehose of database %q", what, source, f.database)
}
