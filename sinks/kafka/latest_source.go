package kafka

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// NewLatestSource returns a source for the latest state that a firehose of [NewLatest]
// keeps, see [sinks.Source]: for a mirror in another process, say, or a cache. It
// reads the compacted topics of the database, and needs no history. The arguments are as
// for [NewSource].
//
// A subscription with [listeners.SubscribeOptions].Current is told what the topics hold, and
// then each change as it is stored. Transactions are whole, in the order of the
// database, and positions are those of the database. An event has no old row, only the old key;
// an update of the key is one event. A snapshot that the database is read with
// again is a reset, its rows, and Live.
//
// While it is behind, it hears of several changes of a key only those that compaction has
// left, the last one at least; so an update may be the first that it hears of
// a row, and a transaction may lack what was overwritten since.
//
// Where Start.After, or the position of a subscription, was stored longer ago than the
// topics keep tombstones for (delete.retention.ms, a day unless it is set), a delete
// may be gone: that is a [sinks.HistoryError], after which a reset and the present state
// follow. The same holds if a topic is deleted while it runs, and Run ends with a [TopicError]
// unless the firehose tells the present state again within seconds. So it does with
// records that were stored with [Options].NoTransactions.
func NewLatestSource(brokersURL, database string, opts *sinks.SourceOptions, client ...kgo.Opt) (*sinks.Source, error) {
	l := &topicsLog{client: client, prefix: LatestName(database) + ".", kind: latestTopics, memory: LatestTopics(database), markers: LatestMarkers(database)}
	var faults []error
	if database == "" {
		faults = append(faults, errors.New("kafka: the database must have a name"))
	}
	return l.source(brokersURL, opts, faults)
}

// compacted reports whether the log is the latest state.
func (l *topicsLog) compacted() bool { return l.markers != "" }

// recall makes sure that the topics are those that were remembered, without which they are
// not the whole state, and notes since when that is.
func (l *topicsLog) recall(ctx context.Context, r *reader, b *borders) error {
	known, since, err := remembered(ctx, r.admin, l.memory, l.options())
	if err != nil {
		return err
	}
	b.since = since
	for name, id := range known {
		info, found := b.topics[name]
		switch {
		case id == "":
		case !found:
			return fmt.Errorf("%w: %s: %w", errTopicMissing, name, errStateLost)
		case info.id != [16]byte{} && hex.EncodeToString(info.id[:]) != id:
			return fmt.Errorf("%w: there is another %s: %w", errTopicMissing, name, errStateLost)
		}
	}
	return nil
}

// sure returns nil if no tombstone behind a position can be gone, last being the last
// record that is not behind it.
func (l *topicsLog) sure(ctx context.Context, r *reader, b *borders, after listeners.Position, last *kgo.Record) error {
	stored := b.since
	if last != nil && last.Timestamp.After(stored) {
		stored = last.Timestamp
	}
	kept, err := l.tombstonesKept(ctx, r, b)
	if err != nil {
		return err
	}
	if !stored.IsZero() && time.Since(stored) < kept {
		return nil
	}
	return &sinks.HistoryError{
		Log: l.Name(), Wanted: fmt.Sprintf("tombstones behind %s, which are kept for %s,", after, kept), Held: fmt.Sprintf("%d topics", len(b.topics)),
	}
}

// tombstonesKept returns for how long all of the topics keep tombstones.
func (l *topicsLog) tombstonesKept(ctx context.Context, r *reader, b *borders) (time.Duration, error) {
	var names []string
	for name := range b.topics {
		names = append(names, name)
	}
	least := time.Duration(1<<63 - 1)
	configs, err := r.admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return 0, err
	}
	for _, c := range configs {
		if c.Err != nil {
			return 0, fmt.Errorf("configuration of topic %s: %w", c.Name, c.Err)
		}
		least = min(least, milliseconds(configured(c.Configs, "delete.retention.ms", 0)))
	}
	return least, nil
}

func milliseconds(n int64) time.Duration {
	return time.Duration(min(n, int64(1<<62)/int64(time.Millisecond))) * time.Millisecond
}

func configured(configs []kadm.Config, key string, otherwise int64) int64 {
	for _, c := range configs {
		if c.Key == key && c.Value != nil {
			var n int64
			if _, err := fmt.Sscan(*c.Value, &n); err == nil {
				return n
			}
		}
	}
	return otherwise
}

// reached returns up to which position everything is stored that a partition
// with this record holds: see [tailOf].
func (l *topicsLog) reached(r *kgo.Record, at listeners.Position) listeners.Position {
	if !l.compacted() || headerOf(r, headerPart) == nil {
		return at
	}
	return justBefore(at)
}

// grave reports whether a record is a tombstone of which a marker tells.
func (l *topicsLog) grave(r *kgo.Record) bool {
	return l.compacted() && bytes.Equal(headerOf(r, headerPart), isGrave)
}

// message returns the address of what was taken of a latest state, and its body as
// the firehose has it.
func (l *topicsLog) message(t *taken) (string, []byte, error) {
	r := t.record
	if r.Topic == l.markers {
		table, truncate := strings.CutPrefix(string(r.Key), markerTruncate)
		if !truncate {
			table = "_control.reset"
		}
		return l.history(l.prefix+table) + ".marker.all", bytes.Clone(r.Value), nil
	}
	address := l.history(r.Topic) + ".entry." + sinks.PartitionToken(int(r.Partition))
	if r.Value == nil {
		key, err := oldKey(r)
		if err != nil {
			return "", nil, err
		}
		return address, fmt.Appendf(nil, `{"op":"delete","key":%s,"before":null,"after":null}`, key), nil
	}
	if t.old == nil {
		return address, bytes.Clone(r.Value), nil
	}
	old, err := oldKey(t.old)
	if err != nil {
		return "", nil, err
	}
	var body struct{ Key, After json.RawMessage }
	if err := json.Unmarshal(r.Value, &body); err != nil {
		return "", nil, fmt.Errorf("%s: %w", describe(r), err)
	}
	return address, fmt.Appendf(nil, `{"op":"update","key":%s,"oldkey":%s,"before":null,"after":%s}`, body.Key, old, body.After), nil
}

// history returns the name of a topic as the history of the database has it.
func (l *topicsLog) history(topic string) string {
	return databaseTopics + strings.TrimPrefix(topic, latestTopics)
}

// oldKey returns the key's columns of a tombstone.
func oldKey(r *kgo.Record) ([]byte, error) {
	key := headerOf(r, headerKey)
	if key == nil {
		return nil, &TopicError{Place: place(r.Topic), Reason: fmt.Sprintf(
			"the tombstone %d of partition %d was not stored by a firehose, so its columns are not known; delete the topic, start the firehose, which tells the present state again, and see who else writes there", r.Offset, r.Partition)}
	}
	return key, nil
}

// join takes another record with the position of the last one that was taken: an update of
// the key is a tombstone of the old one and an entry of the new.
func (t *taken) join(l *lane, r *kgo.Record) {
	switch {
	case t.record.Value == nil && r.Value != nil:
		t.lane, t.record, t.old = l, r, t.record
	case t.record.Value != nil && r.Value == nil:
		t.old = r
	}
}
