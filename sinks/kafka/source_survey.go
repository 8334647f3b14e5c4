package kafka

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks"
)

// survey begins a round: see [merge]. New topics are found between the two
// questions, since a transaction that was decided at the first has made its
// topics before.
func (r *reader) survey(ctx context.Context) error {
	for _, l := range r.merge.all {
		if l.next < l.end {
			r.log.log.DebugContext(ctx, "a partition is waited for", "topic", l.topic, "partition", l.partition, "next", l.next, "decided", l.stable, "end", l.end)
		}
	}
	err := r.log.persist(ctx, "ask how far the topics go", r.ask)
	r.active = time.Now()
	return err
}

func (r *reader) ask(ctx context.Context) error {
	stable, err := offsets(ctx, r.topics, r.admin.ListCommittedOffsets)
	if err != nil {
		return err
	}
	now, err := r.log.topics(ctx, r.client)
	if err != nil {
		return err
	}
	fresh := make(map[string]topicInfo)
	for name, info := range now {
		if known, ok := r.topics[name]; !ok || known.partitions < info.partitions {
			fresh[name] = info
		}
	}
	for name, known := range r.topics {
		info, ok := now[name]
		if !ok {
			return fmt.Errorf("%w: %s", errTopicMissing, name)
		}
		if info.id != known.id {
			return &sinks.HistoryError{Log: r.log.Name(), Held: r.held(), Replaced: true}
		}
	}
	starts, err := offsets(ctx, fresh, r.admin.ListStartOffsets)
	if err != nil {
		return err
	}
	ends, err := offsets(ctx, now, r.admin.ListEndOffsets)
	if err != nil {
		return err
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	begin := make(map[string]map[int32]kgo.Offset)
	for name, info := range fresh {
		for p := r.topics[name].partitions; p < info.partitions; p++ {
			start, _ := starts.Lookup(name, p)
			if start.Offset > 0 && !r.log.compacted() {
				return r.lost(fmt.Sprintf("records of the new topic %s, partition %d, before %d", name, p, start.Offset))
			}
			r.merge.add(name, p, start.Offset, false)
			if begin[name] == nil {
				begin[name] = make(map[int32]kgo.Offset)
			}
			begin[name][p] = kgo.NewOffset().At(start.Offset)
		}
	}
	maps.Copy(r.topics, fresh)
	if len(begin) > 0 && r.started {
		r.client.AddConsumePartitions(begin)
	}
	for _, l := range r.merge.all {
		end, _ := ends.Lookup(l.topic, l.partition)
		decided := l.stable
		if s, ok := stable.Lookup(l.topic, l.partition); ok {
			decided = s.Offset
		}
		r.merge.round(l, decided, end.Offset)
	}
	return nil
}

// Lag implements [sinks.LogReader].
func (r *reader) Lag(ctx context.Context, place uint64) (sinks.SourceLag, error) {
	ctx, cancel := context.WithTimeout(ctx, firstAsk)
	defer cancel()
	var lag sinks.SourceLag
	r.mu.Lock()
	topics := maps.Clone(r.topics)
	r.mu.Unlock()
	stable, err := offsets(ctx, topics, r.admin.ListCommittedOffsets)
	if err != nil {
		return lag, err
	}
	var oldest time.Time
	note := func(at time.Time) {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	unread := make(map[string]map[int32]span)
	r.mu.Lock()
	handed := r.handed - min(place, r.handed)
	for i := range r.list {
		if r.handed-uint64(len(r.list))+uint64(i) >= place {
			note(r.list[i].record.Timestamp)
			break
		}
	}
	lag.Messages = handed + uint64(r.merge.count)
	for _, l := range r.merge.all {
		if l.head < len(l.queue) {
			note(l.queue[l.head].record.Timestamp)
		}
		if s, ok := stable.Lookup(l.topic, l.partition); ok && s.Offset > l.next {
			lag.Messages += uint64(s.Offset - l.next)
			put(unread, l.topic, l.partition, span{from: l.next, end: s.Offset})
		}
	}
	r.mu.Unlock()
	if oldest.IsZero() && len(unread) > 0 {
		found, err := r.log.probe(ctx, unread)
		if err != nil {
			return lag, err
		}
		for _, records := range found {
			for _, record := range records {
				note(record.Timestamp)
			}
		}
	}
	if !oldest.IsZero() {
		lag.Age = max(0, time.Since(oldest))
	}
	return lag, nil
}

func put[T any](in map[string]map[int32]T, topic string, partition int32, v T) {
	if in[topic] == nil {
		in[topic] = make(map[int32]T)
	}
	in[topic][partition] = v
}
