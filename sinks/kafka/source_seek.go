package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// fetchBytes is what the client asks each broker for at once, as it is stored.
const fetchBytes = 4 << 20

// Seek implements [sinks.Log].
func (l *topicsLog) Seek(ctx context.Context, start sinks.Start) (sinks.LogReader, sinks.LogPlace, error) {
	return l.begin(ctx, start, func(ctx context.Context, r *reader, begin *borders) (sinks.LogPlace, error) {
		return l.place(ctx, r, begin, start)
	})
}

// SeekState implements [sinks.Log].
func (l *topicsLog) SeekState(ctx context.Context) (sinks.LogReader, sinks.LogPlace, error) {
	return l.begin(ctx, sinks.Start{}, func(_ context.Context, r *reader, begin *borders) (sinks.LogPlace, error) {
		r.skipping = begin.cut()
		return begin.oldest(), nil
	})
}

// begin makes a reader for which place has found where it begins.
func (l *topicsLog) begin(ctx context.Context, start sinks.Start, find func(context.Context, *reader, *borders) (sinks.LogPlace, error)) (sinks.LogReader, sinks.LogPlace, error) {
	var place sinks.LogPlace
	client, err := kgo.NewClient(l.options(kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchBytes/8))...)
	if err != nil {
		return nil, place, fmt.Errorf("kafka: %w", err)
	}
	r := &reader{log: l, client: client, admin: kadm.NewClient(client)}
	err = l.persist(ctx, "find where to begin", func(ctx context.Context) error {
		begin, err := l.borders(ctx, r)
		if err != nil {
			return err
		}
		if l.compacted() {
			if err := l.recall(ctx, r, begin); err != nil {
				return err
			}
		}
		if len(begin.topics) == 0 {
			if err := l.none(ctx, r, start); err != nil {
				return err
			}
		}
		r.topics, r.skipping = begin.topics, false
		if place, err = find(ctx, r, begin); err != nil {
			return err
		}
		floor := place.Position
		if begin.floor.Compare(floor) > 0 {
			floor = begin.floor
		}
		r.merge = newMerge(floor)
		r.merge.compacted = l.compacted()
		for name, spans := range begin.spans {
			for p, s := range spans {
				r.merge.add(name, p, s.from, s.cut(l))
			}
		}
		return r.ask(ctx)
	})
	if err != nil {
		client.Close()
		return nil, place, err
	}
	at := make(map[string]map[int32]kgo.Offset)
	for _, l := range r.merge.all {
		put(at, l.topic, l.partition, kgo.NewOffset().At(l.next))
	}
	client.AddConsumePartitions(at)
	r.active, r.started = time.Now(), true
	return r, place, nil
}

// borders are the spans of all partitions: what they hold that is decided, and
// where to begin.
type borders struct {
	log    *topicsLog
	topics map[string]topicInfo
	spans  map[string]map[int32]span
	floor  listeners.Position // nothing at or before it is wanted
	since  time.Time          // of the latest state: when the first topic was made, zero if that is not known
}

func (l *topicsLog) borders(ctx context.Context, r *reader) (*borders, error) {
	topics, err := l.topics(ctx, r.client)
	if err != nil {
		return nil, err
	}
	starts, err := offsets(ctx, topics, r.admin.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	ends, err := offsets(ctx, topics, r.admin.ListCommittedOffsets)
	if err != nil {
		return nil, err
	}
	b := &borders{log: l, topics: topics, spans: make(map[string]map[int32]span)}
	for name, info := range topics {
		for p := range info.partitions {
			start, _ := starts.Lookup(name, p)
			end, _ := ends.Lookup(name, p)
			put(b.spans, name, p, span{start: start.Offset, from: start.Offset, end: max(start.Offset, end.Offset)})
		}
	}
	return b, nil
}

// cut reports whether the first records of a partition are gone that a log needs:
// what compaction has removed is of no use.
func (s *span) cut(l *topicsLog) bool { return s.start > 0 && !l.compacted() }

// cut reports whether the first records of a partition are gone.
func (b *borders) cut() bool {
	for _, spans := range b.spans {
		for _, s := range spans {
			if s.cut(b.log) {
				return true
			}
		}
	}
	return false
}

func (b *borders) oldest() sinks.LogPlace { return sinks.LogPlace{Origin: !b.cut()} }

// place sets where to begin in each partition.
func (l *topicsLog) place(ctx context.Context, r *reader, b *borders, start sinks.Start) (sinks.LogPlace, error) {
	var before func(listeners.Position) bool
	switch {
	case !start.After.IsZero():
		before = func(p listeners.Position) bool { return p.Compare(start.After) <= 0 }
	case !start.Time.IsZero():
		first, err := l.firstAt(ctx, r, b, start.Time)
		if err != nil {
			return sinks.LogPlace{}, err
		}
		before = func(p listeners.Position) bool { return first.IsZero() || p.Compare(first) < 0 }
	case start.Oldest:
		return b.oldest(), nil
	default:
		before = func(listeners.Position) bool { return true }
	}
	lasts, err := l.bisect(ctx, b, before)
	if err != nil {
		return sinks.LogPlace{}, err
	}
	place := sinks.LogPlace{Origin: !b.cut()}
	var last *kgo.Record
	for _, records := range lasts {
		for _, record := range records {
			at, _ := positionOf(record)
			at = l.reached(record, at)
			if last == nil || at.Compare(place.Position) > 0 {
				place.Position, last = at, record
			}
		}
	}
	if last != nil {
		attribute := attributes(last)
		place.Open = attribute("txend") == "" && attribute("txid") != ""
		place.Origin = false
	}
	if start.After.IsZero() {
		return place, nil
	}
	if err := l.intact(ctx, r, b, lasts, last); err != nil {
		return place, err
	}
	if l.compacted() && len(b.topics) > 0 {
		if err := l.sure(ctx, r, b, start.After, last); err != nil {
			return place, err
		}
	}
	b.floor = start.After
	return place, nil
}

// intact returns a [sinks.HistoryError] if something behind the last record
// wanted no more may be gone from a partition.
func (l *topicsLog) intact(ctx context.Context, r *reader, b *borders, lasts map[string]map[int32]*kgo.Record, last *kgo.Record) error {
	doubtful := make(map[string]int32)
	for name, spans := range b.spans {
		for p, s := range spans {
			if s.cut(l) && lasts[name][p] == nil {
				doubtful[name] = p
			}
		}
	}
	if len(doubtful) == 0 {
		return nil
	}
	for name, p := range doubtful {
		lost := &sinks.HistoryError{
			Log: l.Name(), Wanted: fmt.Sprintf("records of topic %s, partition %d, before %d", name, p, b.spans[name][p].start),
			Held: fmt.Sprintf("%d topics", len(b.topics)),
		}
		if last == nil {
			return lost
		}
		configs, err := r.admin.DescribeTopicConfigs(ctx, name)
		if err != nil {
			return err
		}
		kept := time.Duration(0)
		for _, c := range configs {
			if c.Err != nil {
				return fmt.Errorf("configuration of topic %s: %w", name, c.Err)
			}
			kept = retention(c.Configs)
		}
		if kept >= 0 && time.Since(last.Timestamp) >= kept {
			return lost
		}
	}
	return nil
}

// retention returns how long records are kept for sure, negative if for ever.
func retention(configs []kadm.Config) time.Duration {
	if configured(configs, "retention.bytes", -1) >= 0 {
		return 0
	}
	ms := configured(configs, "retention.ms", 0)
	if ms < 0 {
		return -1
	}
	return milliseconds(ms)
}

// firstAt returns the position of the first record that was stored at or after
// a time, zero if there is none.
func (l *topicsLog) firstAt(ctx context.Context, r *reader, b *borders, t time.Time) (listeners.Position, error) {
	var first listeners.Position
	at, err := offsets(ctx, b.topics, func(ctx context.Context, names ...string) (kadm.ListedOffsets, error) {
		return r.admin.ListOffsetsAfterMilli(ctx, t.UnixMilli(), names...)
	})
	if err != nil {
		return first, err
	}
	want := make(map[string]map[int32]span)
	for name, spans := range b.spans {
		for p, s := range spans {
			if o, _ := at.Lookup(name, p); o.Offset >= 0 && o.Offset < s.end {
				put(want, name, p, span{from: max(o.Offset, s.start), end: s.end})
			}
		}
	}
	found, err := l.probe(ctx, want)
	if err != nil {
		return first, err
	}
	for _, records := range found {
		for _, record := range records {
			if p, _ := positionOf(record); first.IsZero() || p.Compare(first) < 0 {
				first = p
			}
		}
	}
	return first, nil
}
