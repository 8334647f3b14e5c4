package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

const (
	// sweepRecords is how many records are looked at at a time.
	sweepRecords = 512
	// graveBytes is about how much memory keys take that wait for their tombstones.
	graveBytes = 1 << 20
	// graveEstimate is about what one takes besides its text.
	graveEstimate = 200
)

// A grave is the [listeners.Row] of a tombstone for what a topic holds.
type grave struct {
	schema *listeners.Schema
	key    []byte // text, escaped already
	lane   *sinks.FirehoseLane
}

func (g *grave) Schema() *listeners.Schema           { return g.schema }
func (g *grave) State(int) listeners.State           { return listeners.Present }
func (g *grave) Text(int) []byte                     { return g.key }
func (g *grave) AppendJSON(dst []byte, _ int) []byte { return append(dst, "null"...) } // a tombstone has no body
func (g *grave) Scan(int, any) error                 { return errors.ErrUnsupported }

// graveOf returns the grave of a message, nil if it has none.
func graveOf(m *sinks.FirehoseMessage) *grave {
	g, _ := m.Batch.Events[m.Index].Before.Row().(*grave)
	return g
}

// A sweep stores tombstones for what is in topics, in the course of storing a
// batch.
type sweep struct {
	*latest
	batch *listeners.Batch
	store func(context.Context, *listeners.Batch) error
	flush func(context.Context) error
}

// A remnant is what is to be read of a partition.
type remnant struct {
	end    int64
	lane   *sinks.FirehoseLane
	topic  *topic
	schema *listeners.Schema
}

// truncate sweeps the topic of a table. It returns false if there is none.
func (s *sweep) truncate(ctx context.Context, e *listeners.Event) (bool, error) {
	if e.Schema.Source != s.database || e.Schema.Namespace == "" {
		return false, fmt.Errorf("kafka: a truncate of %s of %s does not belong into the topics of %s", e.Schema.Collection(), e.Schema.Source, s.scope)
	}
	t, ok := s.topics[s.topicName(e.Schema)]
	if !ok {
		return false, nil // nothing was stored
	}
	return true, s.run(ctx, e.Position, []*topic{t})
}

// run stores a tombstone for each key that partitions of these topics hold, of which
// nothing behind a position is stored.
func (s *sweep) run(ctx context.Context, at listeners.Position, topics []*topic) error {
	// What comes before must be in the topics to be found there.
	if err := s.flush(ctx); err != nil {
		return err
	}
	left, from, err := s.remnants(ctx, at, topics)
	if err != nil || len(left) == 0 {
		return err
	}
	reader, err := kgo.NewClient(s.log.options(
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // what is gone needs no tombstone
		kgo.FetchMaxBytes(4<<20), kgo.FetchMaxPartitionBytes(1<<20))...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer reader.Close()
	found := newGraves()
	for len(left) > 0 {
		fetches, err := s.poll(ctx, reader)
		if err != nil {
			return err
		}
		for r := range fetches.RecordsAll() {
			at := topicPartition{r.Topic, r.Partition}
			m, wanted := left[at]
			if !wanted {
				continue
			}
			if r.Offset >= m.end-1 {
				delete(left, at)
				m.topic.swept[r.Partition] = m.end
			}
			if r.Offset < m.end && !r.Attrs.IsControl() && r.Key != nil {
				found.note(r, &m)
			}
		}
		if len(left) > 0 && found.bytes < graveBytes {
			continue
		}
		tombstones := &listeners.Batch{Kind: listeners.Changes, Source: s.database, Tx: s.batch.Tx, Position: justBefore(at), Size: found.bytes}
		for _, g := range found.list {
			if g != nil {
				tombstones.Events = append(tombstones.Events, listeners.Event{
					Op: listeners.Delete, Schema: g.schema, Position: at, Before: listeners.NewRecord(g),
				})
			}
		}
		found = newGraves()
		if err := s.store(ctx, tombstones); err != nil {
			return err
		}
	}
	return nil
}

// graves are the keys that were found lately to be alive. One that is found
// again later has a second tombstone.
type graves struct {
	list  []*grave // nil: deleted meanwhile
	at    map[string]int
	bytes int
}

func newGraves() *graves { return &graves{at: make(map[string]int)} }

func (g *graves) note(r *kgo.Record, m *remnant) {
	name := r.Topic + " " + string(r.Key)
	i, known := g.at[name]
	switch {
	case r.Value == nil && known:
		g.list[i] = nil
		delete(g.at, name)
	case r.Value != nil && !known:
		g.at[name] = len(g.list)
		g.list = append(g.list, &grave{schema: m.schema, key: slices.Clone(r.Key), lane: m.lane})
		g.bytes += 2*len(r.Key) + graveEstimate
	}
}

type topicPartition struct {
	topic     string
	partition int32
}

// remnants returns what has to be read.
func (s *sweep) remnants(ctx context.Context, at listeners.Position, topics []*topic) (map[topicPartition]remnant, map[string]map[int32]kgo.Offset, error) {
	infos := make(map[string]topicInfo)
	for _, t := range topics {
		if slices.ContainsFunc(t.lanes, func(l *sinks.FirehoseLane) bool { return l.Tail.Compare(at) < 0 }) {
			infos[t.name] = topicInfo{partitions: int32(len(t.lanes))}
		}
	}
	var starts, ends kadm.ListedOffsets
	err := s.log.persist(ctx, "ask what the topics hold", func(ctx context.Context) error {
		var err error
		if starts, err = offsets(ctx, infos, s.admin.ListStartOffsets); err != nil {
			return err
		}
		// The end of what is committed may not have moved yet behind what was
		// committed last. The reader waits until it has.
		ends, err = offsets(ctx, infos, s.admin.ListEndOffsets)
		return err
	})
	if lost, ok := errors.AsType[*sinks.HistoryError](err); ok {
		err = &sinks.PlaceError{Place: "topics " + s.prefix + "*", Reason: "a topic is gone: somebody has deleted it; start again to make a new one", Err: lost}
	}
	if err != nil {
		return nil, nil, err
	}
	left := make(map[topicPartition]remnant)
	from := make(map[string]map[int32]kgo.Offset)
	for _, t := range topics {
		if _, asked := infos[t.name]; !asked {
			continue
		}
		schema := listeners.NewSchema(s.database, t.namespace, t.table, []listeners.Column{{Name: "key", Type: "text", Key: true}})
		for i, lane := range t.lanes {
			p := int32(i)
			start, _ := starts.Lookup(t.name, p)
			end, _ := ends.Lookup(t.name, p)
			begin := max(start.Offset, t.swept[p])
			if begin >= end.Offset || lane.Tail.Compare(at) >= 0 {
				continue
			}
			left[topicPartition{t.name, p}] = remnant{end: end.Offset, lane: lane, topic: t, schema: schema}
			put(from, t.name, p, kgo.NewOffset().At(begin))
		}
	}
	return left, from, nil
}

// poll returns some records.
func (s *sweep) poll(ctx context.Context, reader *kgo.Client) (fetches kgo.Fetches, err error) {
	err = s.log.persist(ctx, "read what the topics hold", func(ctx context.Context) error {
		fetches = reader.PollRecords(ctx, sweepRecords)
		if fetches.NumRecords() > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, e := range fetches.Errors() {
			return explain(e.Topic, e.Err)
		}
		return nil
	})
	return fetches, err
}
