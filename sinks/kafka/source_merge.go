package kafka

import (
	"container/heap"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/listeners"
)

// A merge brings the records of all partitions into the order of the source,
// which is that of their positions. It talks to nobody.
//
// In one partition positions only grow, so of a partition that was read up to
// some record it is known that what follows comes later. But a partition of a table
// that nobody writes says nothing for ever. For these there is another rule. In
// each round it is asked
//
//   - first, how far each partition is decided (its last stable offset),
//   - then, where each partition ends (its high watermark).
//
// Let B be the greatest position of a record that lies before its partition's
// stable offset. The Kafka transaction of that record has been committed, so its
// writer, which is the only one, had stored all of the transaction and of those before
// it in every partition; that was before the second question. Hence what a
// partition does not hold before the end that it had then comes later than B. So
// a partition that was read up to that end cannot hold back what is at or before
// B.
//
// The rule needs Kafka transactions. Without them, records of one lot become
// readable one after the other, and a lot whose writer is killed is completed
// much later.
type merge struct {
	lanes map[string]map[int32]*lane
	all   []*lane

	// compacted says that two records may have one position, which take joins, and that a writer
	// may have stored again what compaction has removed.
	compacted bool

	floor listeners.Position // nothing at or before it is wanted
	told  listeners.Position // the last that was taken
	below listeners.Position // B
	count int                // records that wait
	bytes int                // what they take
}

// A lane is a partition.
type lane struct {
	topic     string
	partition int32
	addresses map[string]string // by the type of the event

	next   int64              // the offset up to which it was read
	stable int64              // up to which it was decided when asked
	end    int64              // where it ended, asked later
	last   listeners.Position // of the last record that was read
	cut    bool               // its first records are gone
	paused bool

	begun bool // a record was read
	first listeners.Position

	queue []queued // from head on
	head  int
}

type queued struct {
	record   *kgo.Record
	position listeners.Position
	reached  listeners.Position // everything up to it is stored in the partition
	bytes    int
}

func newMerge(floor listeners.Position) *merge {
	return &merge{lanes: make(map[string]map[int32]*lane), floor: floor, told: floor}
}

// add begins to read a partition at an offset. What lies before that is at or
// before the floor.
func (m *merge) add(topic string, partition int32, at int64, cut bool) {
	l := &lane{
		topic: topic, partition: partition, next: at, end: at, cut: cut, last: m.floor,
		addresses: make(map[string]string),
	}
	if m.lanes[topic] == nil {
		m.lanes[topic] = make(map[int32]*lane)
	}
	m.lanes[topic][partition] = l
	m.all = append(m.all, l)
}

func (m *merge) lane(topic string, partition int32) *lane { return m.lanes[topic][partition] }

// put takes the next record of a lane, with which everything up to reached is stored
// there.
func (m *merge) put(l *lane, r *kgo.Record, at, reached listeners.Position) error {
	l.next = r.Offset + 1
	if !l.begun {
		l.begun, l.first = true, at
	}
	if at.Compare(l.last) <= 0 {
		return nil // it was read before: the writer had lost its place and stored it again
	}
	m.pass(l, reached)
	if m.compacted && at.Compare(m.told) <= 0 {
		return nil // the writer had lost its place here alone
	}
	if at.Compare(m.told) < 0 {
		return fmt.Errorf("record %d of partition %d of topic %s, at position %s, was stored after others at %s: there is more than one writer, or one without Kafka transactions; stop the others",
			r.Offset, l.partition, l.topic, at, m.told)
	}
	if r.Offset < l.stable && reached.Compare(m.below) > 0 {
		m.below = reached
	}
	q := queued{record: r, position: at, reached: reached, bytes: size(r) + recordBytes}
	l.queue = append(l.queue, q)
	m.count++
	m.bytes += q.bytes
	return nil
}

// pass says that a lane was read up to a position.
func (m *merge) pass(l *lane, reached listeners.Position) {
	if reached.Compare(l.last) > 0 {
		l.last = reached
	}
}

// recordBytes is what a record takes besides its contents, roughly.
const recordBytes = 300

// round takes the answers to the two questions about a lane, the first of which
// was asked for all lanes before the second was for any.
func (m *merge) round(l *lane, stable, end int64) {
	l.stable, l.end = stable, end
	if l.head == len(l.queue) {
		if l.next <= stable && l.begun && l.last.Compare(m.below) > 0 {
			m.below = l.last
		}
		return
	}
	for i := len(l.queue) - 1; i >= l.head; i-- {
		if l.queue[i].record.Offset < stable {
			if at := l.queue[i].reached; at.Compare(m.below) > 0 {
				m.below = at
			}
			return
		}
	}
}

// reached reports whether everything up to the ends was read.
func (m *merge) reached() bool {
	for _, l := range m.all {
		if l.next < l.end {
			return false
		}
	}
	return true
}

// bound returns the position up to which everything was read. It is B at most,
// for what a topic holds that was made since the questions comes later than B,
// and nothing else is known of it.
func (m *merge) bound() listeners.Position {
	bound := m.below
	for _, l := range m.all {
		if l.next < l.end && l.last.Compare(bound) < 0 {
			bound = l.last
		}
	}
	return bound
}

// last returns the greatest position that was read.
func (m *merge) last() listeners.Position {
	last := m.floor
	for _, l := range m.all {
		if l.last.Compare(last) > 0 {
			last = l.last
		}
	}
	return last
}

// take appends at most n records up to a bound to list, in the order of their
// positions. What is in several partitions comes once.
func (m *merge) take(list []taken, bound listeners.Position, n int) []taken {
	var heads laneHeap
	for _, l := range m.all {
		if l.head < len(l.queue) && l.queue[l.head].position.Compare(bound) <= 0 {
			heads = append(heads, l)
		}
	}
	heap.Init(&heads)
	for len(heads) > 0 {
		l := heads[0]
		q := l.queue[l.head]
		if len(list) >= n && (!m.compacted || q.position != m.told) {
			break
		}
		l.queue[l.head] = queued{}
		l.head++
		m.count--
		m.bytes -= q.bytes
		if l.head == len(l.queue) || l.head >= 1024 && l.head > len(l.queue)/2 {
			n := copy(l.queue, l.queue[l.head:])
			clear(l.queue[n:])
			l.queue, l.head = l.queue[:n], 0
		}
		if l.head < len(l.queue) && l.queue[l.head].position.Compare(bound) <= 0 {
			heap.Fix(&heads, 0)
		} else {
			heap.Pop(&heads)
		}
		switch last := len(list) - 1; {
		case q.position != m.told:
			m.told = q.position
			list = append(list, taken{lane: l, record: q.record, position: q.position})
		case m.compacted && last >= 0 && list[last].position == q.position:
			list[last].join(l, q.record)
		}
	}
	return list
}

// A taken record is the next in the source's order.
type taken struct {
	lane     *lane
	record   *kgo.Record
	position listeners.Position
	old      *kgo.Record // the tombstone of the old key, if it was changed
}

// A laneHeap orders lanes by their first waiting record.
type laneHeap []*lane

func (h *laneHeap) Len() int { return len(*h) }

// Less implements [heap.Interface].
func (h *laneHeap) Less(i, j int) bool {
	a, b := (*h)[i], (*h)[j]
	return a.queue[a.head].position.Compare(b.queue[b.head].position) < 0
}

func (h *laneHeap) Swap(i, j int) { (*h)[i], (*h)[j] = (*h)[j], (*h)[i] }

// Push implements [heap.Interface].
func (h *laneHeap) Push(x any) { *h = append(*h, x.(*lane)) } //nolint:forcetypeassert,errcheck // there is nothing else

// Pop implements [heap.Interface].
func (h *laneHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	*h = (*h)[:last]
	return l
}
