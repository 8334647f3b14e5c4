package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	// burstRecords is how many messages are handed out at once at most.
	burstRecords = 512
	// surveyEvery is how long nothing is heard before the reader looks for new
	// topics, and whether the old ones are still the same.
	surveyEvery = time.Second
)

// A reader reads all topics of a log in the order of the source.
type reader struct {
	log    *topicsLog
	client *kgo.Client
	admin  *kadm.Client
	topics map[string]topicInfo
	merge  *merge

	waits   bool      // it was said that there is no topic yet
	started bool      // the client fetches
	asked   bool      // the brokers were asked since something was heard, which is enough
	active  time.Time // when something was heard, or the brokers were asked
	tip     listeners.Position
	tipSeen bool // tip is known
	// Of the latest state: the last tombstone of which a marker is to tell, and the last
	// marker. In between a topic lacks rows that are not gone yet.
	graves, marked listeners.Position

	tipTold bool // the caller was told that nothing more is stored

	// skipping leaves out what does not add up to a whole state: all before a
	// full reset behind which nothing is gone.
	skipping bool

	messages []sinks.LogMessage

	// Lag looks at these and at merge; they are changed under mu.
	mu     sync.Mutex
	handed uint64  // how many messages were handed out
	list   []taken // the last of them
}

var _ sinks.LogReader = (*reader)(nil)

// Next implements [sinks.LogReader].
func (r *reader) Next(ctx context.Context) ([]sinks.LogMessage, error) {
	for {
		list, err := r.hand()
		if err != nil || len(list) > 0 {
			return list, err
		}
		if r.tipSeen && !r.tipTold && r.merge.told.Compare(r.tip) >= 0 {
			if r.skipping {
				return nil, r.lost("")
			}
			r.tipTold = true
			return nil, nil
		}
		if err := r.more(ctx); err != nil {
			return nil, err
		}
	}
}

// hand returns the next messages that are sure to be the next.
func (r *reader) hand() ([]sinks.LogMessage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.list)
	clear(r.messages)
	r.messages = r.messages[:0]
	all := r.merge.take(r.list[:0], r.merge.bound(), burstRecords)
	kept := all[:0]
	for _, t := range all {
		if r.skipping {
			whole, err := r.wholeFrom(&t)
			if err != nil {
				return nil, err
			}
			if !whole {
				continue
			}
			r.skipping = false
		}
		kept = append(kept, t)
		tip := r.tipSeen && t.position.Compare(r.tip) >= 0
		r.tipTold = r.tipTold || tip
		m := sinks.LogMessage{Place: r.handed + uint64(len(kept)), Attribute: attributes(t.record), Tip: tip}
		if r.log.compacted() {
			var err error
			if m.Address, m.Body, err = r.log.message(&t); err != nil {
				return nil, err
			}
		} else {
			m.Address, m.Body = t.lane.address(t.record), bytes.Clone(t.record.Value) // which would keep the whole fetch
		}
		r.messages = append(r.messages, m)
	}
	clear(all[len(kept):])
	r.list = kept
	r.handed += uint64(len(kept))
	return r.messages, nil
}

// wholeFrom reports whether a record is a reset of everything behind which no
// partition has lost anything.
func (r *reader) wholeFrom(t *taken) (bool, error) {
	attribute := attributes(t.record)
	if attribute("type") != resetType {
		return false, nil
	}
	reset, err := sinks.Decode(attribute, t.record.Value)
	if err != nil {
		return false, fmt.Errorf("%s: %w", describe(t.record), err)
	}
	if !reset.Reset || reset.Collections != nil {
		return false, nil
	}
	for _, l := range r.merge.all {
		if l.cut && (!l.begun || l.first.Compare(t.position) > 0) {
			return false, nil
		}
	}
	return true, nil
}

const resetType = "rowcall.reset.v1"

// more reads on. It returns when something may have changed.
func (r *reader) more(ctx context.Context) error {
	reached, idle := r.merge.reached(), time.Since(r.active)
	switch {
	case reached && !r.tipSeen && r.graves.Compare(r.marked) <= 0:
		r.tip, r.tipSeen = r.merge.last(), true
		return nil
	case reached && r.merge.count > 0 && !r.asked, idle >= surveyEvery:
		r.asked = r.log.compacted() // what waits may wait for what a writer has not stored yet
		return r.survey(ctx)
	}
	return r.poll(ctx, surveyEvery-idle)
}

// poll takes what the client has fetched, or waits for it.
func (r *reader) poll(ctx context.Context, wait time.Duration) error {
	r.throttle()
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fetches := r.client.PollRecords(limited, 4*burstRecords)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, e := range fetches.Errors() {
		if err := r.explain(ctx, e); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for it := fetches.RecordIter(); !it.Done(); {
		if err := r.put(ctx, it.Next()); err != nil {
			return err
		}
		r.active, r.asked = time.Now(), false
	}
	return nil
}

// put takes a record that was fetched.
func (r *reader) put(ctx context.Context, record *kgo.Record) error {
	l := r.merge.lane(record.Topic, record.Partition)
	if l == nil {
		return nil
	}
	if record.Offset < l.next {
		return &sinks.HistoryError{Log: r.log.Name(), Held: r.held(), Replaced: true}
	}
	if record.Attrs.IsControl() {
		l.next = record.Offset + 1
		return nil
	}
	at, err := positionOf(record)
	if err != nil {
		r.log.log.WarnContext(ctx, "a message is no event and is left out", "log", r.log.Name(), "message", describe(record), "error", err)
		l.next = record.Offset + 1
		return nil
	}
	if !record.Attrs.IsTransactional() {
		return &TopicError{Place: "topic " + record.Topic, Reason: fmt.Sprintf(
			"record %d of partition %d was stored without a Kafka transaction, so nobody can say what comes before it in other partitions; write without NoTransactions, and read from a start behind what was written with it",
			record.Offset, record.Partition)}
	}
	reached := r.log.reached(record, at)
	switch {
	case r.log.grave(record):
		l.next, l.begun = record.Offset+1, true
		r.merge.pass(l, reached)
		r.graves = later(r.graves, at)
		return nil
	case record.Topic == r.log.markers:
		r.marked = later(r.marked, at)
	}
	return r.merge.put(l, record, at, reached)
}

func later(a, b listeners.Position) listeners.Position {
	if b.Compare(a) > 0 {
		return b
	}
	return a
}

// explain returns nil for what passes.
func (r *reader) explain(ctx context.Context, e kgo.FetchError) error {
	var lost *kgo.ErrDataLoss
	switch {
	case errors.Is(e.Err, context.DeadlineExceeded), errors.Is(e.Err, context.Canceled):
		return nil
	case errors.Is(e.Err, kgo.ErrClientClosed):
		return e.Err
	case errors.Is(e.Err, kerr.OffsetOutOfRange):
		next := int64(0)
		if l := r.merge.lane(e.Topic, e.Partition); l != nil {
			next = l.next
		}
		return r.lost(fmt.Sprintf("records of topic %s, partition %d, from %d on", e.Topic, e.Partition, next))
	case errors.As(e.Err, &lost):
		return &sinks.HistoryError{Log: r.log.Name(), Held: r.held(), Replaced: true}
	case errors.Is(e.Err, kerr.TopicAuthorizationFailed), errors.Is(e.Err, kerr.ClusterAuthorizationFailed):
		return &TopicError{Place: "topic " + e.Topic, Reason: "this user may not do that; allow it to describe and read the topic", Err: e.Err}
	}
	r.log.log.DebugContext(ctx, "reading interrupted", "topic", e.Topic, "partition", e.Partition, "error", e.Err)
	return nil
}

func (r *reader) lost(wanted string) *sinks.HistoryError {
	return &sinks.HistoryError{Log: r.log.Name(), Wanted: wanted, Held: r.held()}
}

// held says what the topics hold, as far as the reader knows.
func (r *reader) held() string {
	cut := 0
	for _, l := range r.merge.all {
		if l.cut {
			cut++
		}
	}
	return fmt.Sprintf("%d topics with %d partitions, of which %d have lost their first records", len(r.topics), len(r.merge.all), cut)
}

// throttle lets the client fetch nothing more of partitions that wait for
// others, when too much waits. Those that hold the others back go on.
func (r *reader) throttle() {
	full := r.merge.bytes > r.log.maxBytes
	room := r.merge.bytes <= r.log.maxBytes/2
	pause, resume := make(map[string][]int32), make(map[string][]int32)
	for _, l := range r.merge.all {
		waits := l.head < len(l.queue)
		switch {
		case full && waits && !l.paused:
			l.paused = true
			pause[l.topic] = append(pause[l.topic], l.partition)
		case l.paused && (room || !waits):
			l.paused = false
			resume[l.topic] = append(resume[l.topic], l.partition)
		}
	}
	if len(pause) > 0 {
		r.client.PauseFetchPartitions(pause)
	}
	if len(resume) > 0 {
		r.client.ResumeFetchPartitions(resume)
	}
}

// Describe implements [sinks.LogReader].
func (r *reader) Describe(place uint64) string {
	if i := place + uint64(len(r.list)) - r.handed - 1; i < uint64(len(r.list)) {
		return describe(r.list[i].record)
	}
	return fmt.Sprintf("message %d", place)
}

func describe(r *kgo.Record) string {
	return fmt.Sprintf("topic %s, partition %d, offset %d", r.Topic, r.Partition, r.Offset)
}

// Close implements [sinks.LogReader].
func (r *reader) Close() { r.client.CloseAllowingRebalance() }

// address returns the dotted name of a record.
func (l *lane) address(r *kgo.Record) string {
	kind := attributes(r)("type")
	if a, ok := l.addresses[kind]; ok {
		return a
	}
	op := strings.TrimSuffix(strings.TrimPrefix(kind, "rowcall."), ".v1")
	a := fmt.Sprintf("%s.%s.%03d", l.topic, op, l.partition)
	l.addresses[strings.Clone(kind)] = a
	return a
}

// attributes returns what [sinks.Decode] reads headers with.
func attributes(r *kgo.Record) func(string) string {
	return func(name string) string {
		for i := range r.Headers {
			h := &r.Headers[i]
			if len(h.Key) == len(attributePrefix)+len(name) && strings.EqualFold(h.Key[:len(attributePrefix)], attributePrefix) && strings.EqualFold(h.Key[len(attributePrefix):], name) {
				return string(h.Value)
			}
		}
		return ""
	}
}
