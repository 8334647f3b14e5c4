package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// NewSource returns a source for a database's events, see [sinks.Source]. It
// reads what is committed in all topics of the database, also those that are
// made while it runs, and brings the transactions into their order. It starts
// nothing and talks to nobody. The URL is as for [New]; client are further
// options of the Kafka client, such as a dialer or TLS certificates. The error
// names every option that is wrong, and never the password.
//
// It needs a firehose with Kafka transactions. Without them nobody can say when
// what is to come first has come; then Run ends with a [TopicError].
//
// A database without topics, which may be none at all, ends Run with a [TopicError] that
// says which databases there are topics of; with UntilTip, that is. Otherwise the source
// waits for the topics, which a firehose makes with the first events, and only
// Start.After is something that is gone.
//
// Start may not be a sequence. Start.Time is looked up by the timestamps of
// records. Start.Oldest begins each partition where it begins, which differs
// when retention has removed something. Retention takes what is to be read behind
// Start.After, or may have taken it, if a partition has lost records and holds
// none from before; but not if the last record before is younger than the
// topic's retention.ms, and retention.bytes is unlimited.
//
// The present state is added up from the beginning of the topics, or, where
// some of that is gone, from the first full snapshot behind the gap.
//
// Besides what waits for the listeners, records of as many bytes as
// [sinks.SourceOptions].MaxBytes may wait for others that come before them, and the client
// holds one fetch of each broker, 4 MiB as they are compressed. A lag counts the marks of transactions as
// messages.
func NewSource(brokersURL, database string, opts *sinks.SourceOptions, client ...kgo.Opt) (*sinks.Source, error) {
	_, s, err := newSource(brokersURL, database, opts, client)
	return s, err
}

func newSource(brokersURL, database string, opts *sinks.SourceOptions, client []kgo.Opt) (*topicsLog, *sinks.Source, error) {
	l := &topicsLog{client: client, prefix: sinks.DatabaseAddress(database) + ".", kind: databaseTopics}
	var faults []error
	if database == "" {
		faults = append(faults, errors.New("kafka: the database must have a name"))
	}
	s, err := l.source(brokersURL, opts, faults)
	return l, s, err
}

// Newest returns the position of the last event that is stored in the topics of
// a database, zero if there is none. Its epoch is what an LSN lacks to be a
// [sinks.Start]. The arguments are as for [NewSource]. It blocks until the brokers
// have answered, or ctx ends, whose cause it then returns: in an
// [UnreachableError] if that is a deadline.
func Newest(ctx context.Context, brokersURL, database string, client ...kgo.Opt) (listeners.Position, error) {
	l, _, err := newSource(brokersURL, database, nil, client)
	if err != nil {
		return listeners.Position{}, err
	}
	reader, place, err := l.Seek(ctx, sinks.Start{})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return listeners.Position{}, &sinks.UnreachableError{Broker: "Kafka", Servers: l.brokers.seeds, Err: err, Remedy: wrongBroker}
	case err != nil:
		return listeners.Position{}, fmt.Errorf("kafka: the last event in %s: %w", l.Name(), err)
	}
	reader.Close()
	return place.Position, nil
}

func (l *topicsLog) source(brokersURL string, opts *sinks.SourceOptions, faults []error) (*sinks.Source, error) {
	b, err := parseURL(brokersURL)
	if err != nil {
		faults = append(faults, fmt.Errorf("kafka: %w", err))
	}
	l.brokers, l.log, l.maxBytes = b, slog.New(slog.DiscardHandler), listeners.DefaultFeedBytes
	if opts != nil {
		if opts.Logger != nil {
			l.log = opts.Logger
		}
		l.ends = opts.UntilTip
		if opts.MaxBytes > 0 {
			l.maxBytes = int(min(opts.MaxBytes, math.MaxInt))
		}
		if opts.Start.After.IsZero() && opts.Start.Sequence > 0 {
			faults = append(faults, errors.New("kafka: Start.Sequence is for streams that number all messages; use After, Time or Oldest"))
		}
	}
	s, err := sinks.NewSource(l, opts)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return s, nil
}

// A topicsLog is the topics of a database as a [sinks.Source] reads them.
type topicsLog struct {
	brokers  *brokers
	client   []kgo.Opt
	prefix   string // of the topics' names, with the last dot
	kind     string // with which it begins
	memory   string // of the latest state: the topic that remembers the others; "" otherwise
	markers  string // of the latest state: the topic of its markers; "" otherwise
	ends     bool   // it is read up to the tip
	log      *slog.Logger
	maxBytes int
	sayEvery time.Duration // 0 means sayEvery
}

var _ sinks.Log = (*topicsLog)(nil)

// Name implements [sinks.Log].
func (l *topicsLog) Name() string { return "topics " + l.prefix + "*" }

// has reports whether a topic is one of the log's.
func (l *topicsLog) has(topic string) bool {
	rest, ok := strings.CutPrefix(topic, l.prefix)
	return ok && strings.Count(rest, ".") == 1
}

func (l *topicsLog) options(more ...kgo.Opt) []kgo.Opt {
	opts := append([]kgo.Opt{
		kgo.ClientID("rowcall"), kgo.WithLogger(clientLog{l.log}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // so that the last offset is always seen
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.MetadataMinAge(250 * time.Millisecond), // how long a leader that has moved is not found
	}, l.brokers.options...)
	return append(append(opts, l.client...), more...)
}

const (
	// firstAsk and lastAsk bound what is asked of the brokers at once.
	firstAsk = 5 * time.Second
	lastAsk  = time.Minute
	// goneAfter is how long a topic that is not found may be on its way back.
	goneAfter = 5 * time.Second
	// sayEvery is how often the log says that brokers are waited for.
	sayEvery = time.Minute
)

// errTopicMissing is passing for goneAfter.
var errTopicMissing = errors.New("a topic is not there")

// errStateLost goes with errTopicMissing where the other topics are of no use.
var errStateLost = errors.New("it was deleted since the firehose wrote to it")

// persist calls ask until it succeeds, or fails for good.
func (l *topicsLog) persist(ctx context.Context, what string, ask func(context.Context) error) error {
	retry := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(10*time.Millisecond), backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(0))
	var missing time.Time
	begun := time.Now()
	said := begun
	for timeout := firstAsk; ; timeout = min(2*timeout, lastAsk) {
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := ask(limited)
		cancel()
		var lost *sinks.HistoryError
		var wrong *TopicError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &lost), errors.As(err, &wrong):
			return err
		case errors.Is(err, kgo.ErrClientClosed):
			return fmt.Errorf("%s: %w", what, err)
		case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.UnsupportedVersion):
			return fmt.Errorf("%s: %w", what, err)
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return &TopicError{Place: l.Name(), Reason: "this user may not do that; allow it to describe and read the topics", Err: err}
		case errors.Is(err, errTopicMissing):
			if missing.IsZero() {
				missing = time.Now()
			}
			if time.Since(missing) > goneAfter && errors.Is(err, errStateLost) {
				return &TopicError{Place: l.Name(), Reason: "they do not hold the whole state any more; start their firehose, which tells the present state again, and then read", Err: err}
			}
			if time.Since(missing) > goneAfter {
				return &sinks.HistoryError{Log: l.Name(), Held: err.Error(), Replaced: true}
			}
		}
		if time.Since(said) >= cmp.Or(l.sayEvery, sayEvery) {
			said = time.Now()
			l.log.WarnContext(ctx, "the brokers do not answer; they are waited for", "what", what, "log", l.Name(), "waited", time.Since(begun).Round(time.Second), "error", err)
		} else {
			l.log.DebugContext(ctx, "the brokers do not answer yet", "what", what, "log", l.Name(), "error", err)
		}
		wait := time.NewTimer(retry.NextBackOff())
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

// offsets asks something about all partitions of some topics.
func offsets(ctx context.Context, topics map[string]topicInfo, ask func(context.Context, ...string) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	names := make([]string, 0, len(topics))
	for name := range topics {
		names = append(names, name)
	}
	listed, err := ask(ctx, names...)
	if err == nil {
		err = listed.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return nil, fmt.Errorf("%w: %w", errTopicMissing, err)
	}
	if err != nil {
		return nil, err
	}
	for name, info := range topics {
		for p := range info.partitions {
			if _, ok := listed.Lookup(name, p); !ok {
				return nil, fmt.Errorf("no answer for partition %d of topic %s", p, name)
			}
		}
	}
	return listed, nil
}
