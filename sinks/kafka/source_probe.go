package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
)

// bisect sets where to begin in each partition: behind the last record that is
// before the place wanted. It returns these records, nil where there is none.
// Most places are near the end, so it looks there first, and then farther and
// farther back.
func (l *topicsLog) bisect(ctx context.Context, b *borders, before func(listeners.Position) bool) (map[string]map[int32]*kgo.Record, error) {
	type search struct {
		low, high, back int64 // low is where to begin or before that, high is behind it or there
		last            *kgo.Record
	}
	searches := make(map[string]map[int32]*search)
	for name, spans := range b.spans {
		for p, s := range spans {
			put(searches, name, p, &search{low: s.start, high: s.end, back: 2})
		}
	}
	for {
		ask := make(map[string]map[int32]span)
		for name, of := range searches {
			for p, s := range of {
				if s.low >= s.high {
					continue
				}
				middle := s.low + (s.high-s.low)/2
				if s.last == nil {
					middle = max(s.low, s.high-s.back)
				}
				put(ask, name, p, span{start: s.low, from: middle, end: s.high})
			}
		}
		if len(ask) == 0 {
			break
		}
		found, err := l.probe(ctx, ask)
		if err != nil {
			return nil, err
		}
		for name, spans := range ask {
			for p, asked := range spans {
				s := searches[name][p]
				r := found[name][p]
				if r != nil {
					if at, _ := positionOf(r); before(at) {
						s.low, s.last = r.Offset+1, r
						continue
					}
				}
				s.high = asked.from
				s.back *= 8
			}
		}
	}
	lasts := make(map[string]map[int32]*kgo.Record)
	for name, of := range searches {
		for p, s := range of {
			at := b.spans[name][p]
			at.from = s.low
			b.spans[name][p] = at
			if s.last != nil {
				put(lasts, name, p, s.last)
			}
		}
	}
	return lasts, nil
}

// probe returns the first event of each span from its from on, and none where
// there is no event before its end.
func (l *topicsLog) probe(ctx context.Context, spans map[string]map[int32]span) (map[string]map[int32]*kgo.Record, error) {
	found := make(map[string]map[int32]*kgo.Record)
	at := make(map[string]map[int32]kgo.Offset)
	left := make(map[string]map[int32]int64) // ends
	n := 0
	for name, of := range spans {
		for p, s := range of {
			if s.from < s.end {
				put(at, name, p, kgo.NewOffset().At(s.from))
				put(left, name, p, s.end)
				n++
			}
		}
	}
	if n == 0 {
		return found, nil
	}
	reader, err := kgo.NewClient(l.options(kgo.ConsumePartitions(at), kgo.FetchMaxPartitionBytes(16<<10))...)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	for n > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for _, e := range fetches.Errors() {
			if e.Err == kerr.OffsetOutOfRange { //nolint:errorlint // never wrapped; see kgo
				return nil, e.Err // retention has moved on: ask again where the topics begin
			}
			return nil, explain(e.Topic, e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			end, open := left[r.Topic][r.Partition]
			if !open {
				continue
			}
			if !r.Attrs.IsControl() && r.Offset < end {
				if _, err := positionOf(r); err == nil {
					put(found, r.Topic, r.Partition, r)
					end = 0
				}
			}
			if r.Offset >= end-1 {
				delete(left[r.Topic], r.Partition)
				n--
			}
		}
	}
	return found, nil
}
