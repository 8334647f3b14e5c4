package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A span is what of a partition has to be looked at: [from, end).
type span struct{ start, from, end int64 }

// readTails finds the position of the last record of every partition of these
// topics. Behind that record may be the marks of transactions, and records of
// transactions that were aborted. So it looks further back where it finds none.
func (w *writer) readTails(ctx context.Context, topics map[string]*topic) error {
	if len(topics) == 0 {
		return nil
	}
	names := make([]string, 0, len(topics))
	for name := range topics {
		names = append(names, name)
	}
	starts, err := w.admin.ListStartOffsets(ctx, names...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("ask where the topics begin: %w", err)
	}
	ends, err := w.admin.ListCommittedOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("ask where the topics end: %w", err)
	}
	open := make(map[string]map[int32]span)
	for name := range topics {
		for p := range int32(w.opts.Partitions) {
			start, _ := starts.Lookup(name, p)
			end, _ := ends.Lookup(name, p)
			if end.Offset > start.Offset {
				if open[name] == nil {
					open[name] = make(map[int32]span)
				}
				open[name][p] = span{start: start.Offset, from: end.Offset, end: end.Offset}
			}
		}
	}
	for back := int64(16); len(open) > 0; back *= 16 {
		for _, spans := range open {
			for p, s := range spans {
				s.from = max(s.start, s.end-back)
				spans[p] = s
			}
		}
		if err := w.lookBack(ctx, topics, open); err != nil {
			return fmt.Errorf("read the ends of the topics: %w", err)
		}
		for name, spans := range open {
			for p, s := range spans {
				if s.from == s.start || !topics[name].lanes[p].Tail.IsZero() {
					delete(spans, p)
				}
			}
			if len(spans) == 0 {
				delete(open, name)
			}
		}
	}
	return nil
}

// lookBack reads these spans once.
func (w *writer) lookBack(ctx context.Context, topics map[string]*topic, open map[string]map[int32]span) error {
	left := 0
	at := make(map[string]map[int32]kgo.Offset)
	for name, spans := range open {
		at[name] = make(map[int32]kgo.Offset)
		for p, s := range spans {
			at[name][p] = kgo.NewOffset().At(s.from)
			left++
		}
	}
	reader, err := kgo.NewClient(append(w.base(),
		kgo.ConsumePartitions(at),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // so that the last offset is always seen
		kgo.FetchMaxWait(100*time.Millisecond),
	)...)
	if err != nil {
		return err
	}
	defer reader.Close()
	for left > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, e := range fetches.Errors() {
			return explain(e.Topic, e.Err)
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			s := open[r.Topic][r.Partition]
			if r.Offset == s.end-1 {
				left--
			}
			if failed != nil || r.Offset >= s.end || r.Attrs.IsControl() {
				return
			}
			position, err := tailOf(r)
			if err != nil {
				failed = &sinks.PlaceError{Place: place(r.Topic), Reason: fmt.Sprintf(
					"record %d of partition %d was not stored by a firehose, so nothing says where to go on; delete it or the topic, and see who writes there", r.Offset, r.Partition), Err: err}
				return
			}
			lane := topics[r.Topic].lanes[r.Partition]
			lane.Tail, lane.Begun = position, true
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

func positionOf(r *kgo.Record) (listeners.Position, error) {
	for _, h := range r.Headers {
		if strings.EqualFold(h.Key, headerSequence) {
			return listeners.ParsePosition(string(h.Value))
		}
	}
	return listeners.Position{}, errors.New("it has no header " + headerSequence)
}
