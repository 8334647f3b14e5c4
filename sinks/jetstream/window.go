package jetstream

import (
	"strconv"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// A window holds the batches that are not stored yet and counts the messages
// in flight. The publisher adds to it, the acknowledgements take from it.
//
// Invariants, under mu:
//   - stream sequences of retained messages are contiguous: an entry's first
//     is the one after the last of the entry before it, and what was acked is
//     gone except at the head;
//   - acked <= sent <= high; messages acked+1 … sent are in flight;
//   - an entry is retained until its last message is acked, and has at least
//     one message.
type window struct {
	mu sync.Mutex

	entries []entry // retained; entries[:head] are gone
	head    int
	high    uint64 // the sequence of the last retained message

	acked uint64 // the last sequence known to be stored
	sent  uint64 // the last one published
	// doubtful is the highest sequence that an interrupted attempt has sent
	// without learning its fate: up to there the stream may still move on
	// without an acknowledgement to us.
	doubtful uint64

	sizes []int32 // of the messages in flight, at sequence modulo length
	bytes int     // their sum

	// Of the present attempt: it ends at the first fault.
	reply               string // where its answers go; others are late
	attempt             int
	published, answered int
	broken              bool // answers are missing for good
	fault               error
	// strays are messages of ours that the server has stored behind one that it
	// refused, because a stranger's had taken its place. They must go, or the
	// stream's tail would hide the gap.
	strays []uint64

	stored listeners.Position

	wake    chan struct{} // capacity 1: tells the publisher to look again
	wakeAt  uint64        // when acked reaches this; 0: not waiting
	stalled chan struct{} // capacity 1
}

// An entry is the part of a batch that has to be stored.
type entry struct {
	batch *listeners.Batch
	start int    // its first message, as package sinks counts
	n     int    // how many
	first uint64 // the stream sequence of the first
	// after is the position that is reached with its last message.
	after listeners.Position
}

func (e *entry) last() uint64 { return e.first + uint64(e.n) - 1 }

// position returns that of the message with a sequence.
func (e *entry) position(seq uint64) listeners.Position {
	if marker(e.batch) {
		return e.batch.Position
	}
	return e.batch.Events[e.start+int(seq-e.first)].Position
}

func newWindow(pending int) *window {
	return &window{
		sizes:   make([]int32, pending),
		wake:    make(chan struct{}, 1),
		stalled: make(chan struct{}, 1),
	}
}

// add retains messages start to the last one of a batch, or notes that a batch
// without any has been taken. Runs of empty batches cost nothing.
func (w *window) add(b *listeners.Batch, start, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 {
		if w.head > len(w.entries)/2 && len(w.entries) == cap(w.entries) {
			kept := copy(w.entries, w.entries[w.head:])
			clear(w.entries[kept:])
			w.entries, w.head = w.entries[:kept], 0
		}
		w.entries = append(w.entries, entry{batch: b, start: start, n: n, first: w.high + 1, after: b.Position})
		w.high += uint64(n)
		return
	}
	if w.head < len(w.entries) {
		w.entries[len(w.entries)-1].after = b.Position
		return
	}
	w.reach(b.Position)
}

func (w *window) reach(p listeners.Position) {
	if p.Compare(w.stored) > 0 {
		w.stored = p
	}
}

// next returns the entry of the first message that was not sent, and the
// message's sequence.
func (w *window) next() (entry, uint64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seq := w.sent + 1
	if seq > w.high {
		return entry{}, 0, false
	}
	// Usually it is the newest one.
	for i := len(w.entries) - 1; i >= w.head; i-- {
		if e := &w.entries[i]; e.first <= seq {
			return *e, seq, true
		}
	}
	return entry{}, 0, false
}

// find returns the position of a retained message.
func (w *window) find(seq uint64) (listeners.Position, bool) {
	for i := w.head; i < len(w.entries); i++ {
		if e := &w.entries[i]; e.first <= seq && seq <= e.last() {
			return e.position(seq), true
		}
	}
	return listeners.Position{}, false
}

// advance notes that everything up to seq is stored.
func (w *window) advance(seq uint64) {
	for w.head < len(w.entries) {
		e := &w.entries[w.head]
		if e.first > seq {
			break
		}
		if e.last() > seq {
			w.reach(e.position(seq))
			break
		}
		w.reach(e.after)
		*e = entry{}
		w.head++
	}
	if w.head == len(w.entries) {
		w.entries, w.head = w.entries[:0], 0
	}
	w.acked = seq
}

// ack takes the answer to one message.
func (w *window) ack(reply string, seq uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reply != w.reply {
		return
	}
	w.answered++
	switch {
	case err != nil:
		w.fail(err)
	case seq == w.acked+1 && seq <= w.sent:
		w.bytes -= int(w.sizes[seq%uint64(len(w.sizes))])
		w.advance(seq)
	default:
		if refused(w.fault) {
			w.strays = append(w.strays, seq)
		}
		w.fail(errAckLost)
	}
	if w.wakeAt != 0 && (w.acked >= w.wakeAt || w.answered == w.published) {
		w.signal()
	}
}

// fail ends the attempt: nothing more is sent until the tail was read.
func (w *window) fail(err error) {
	if w.fault != nil {
		return
	}
	w.fault = err
	select {
	case w.stalled <- struct{}{}:
	default:
	}
	w.signal()
}

func (w *window) signal() {
	w.wakeAt = 0
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// interrupt is called from outside the publisher's goroutine when the server
// will not answer any more.
func (w *window) interrupt(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent > w.acked || w.fault != nil {
		w.broken = true
		w.fail(err)
		w.signal()
	}
}

// An admission is the answer to a message that wants to be sent.
type admission uint8

const (
	granted admission = iota
	full              // wake tells when to ask again
	over              // a fault ended the attempt
)

// admit counts a message of this size as sent and returns where its answer
// goes.
func (w *window) admit(size, maxBytes int) (reply string, answer admission) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		return "", over
	}
	inFlight := w.sent - w.acked
	if inFlight > 0 && (inFlight >= uint64(len(w.sizes)) || w.bytes+size > maxBytes) {
		// Half a window at a time saves a wake-up for each message.
		w.wakeAt = w.acked + (inFlight+1)/2
		return "", full
	}
	w.sent++
	w.published++
	w.sizes[w.sent%uint64(len(w.sizes))] = int32(min(size, 1<<30))
	w.bytes += int(w.sizes[w.sent%uint64(len(w.sizes))])
	return w.reply, granted
}

// withdraw takes back the last admitted message, which was never sent.
func (w *window) withdraw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes -= int(w.sizes[w.sent%uint64(len(w.sizes))])
	w.sent--
	w.published--
}

// settled reports whether every message of the attempt was answered, or none
// will be any more.
func (w *window) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken || w.answered >= w.published {
		return true
	}
	w.wakeAt = w.sent + 1 // only the last answer wakes
	return false
}

// done reports whether everything retained is stored, and the fault if there
// is one.
func (w *window) done() (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		return false, w.fault
	}
	if w.acked >= w.high {
		return true, nil
	}
	w.wakeAt = w.high
	return false, nil
}

// begin starts a new attempt behind the stream's last sequence, which the
// answers of an older one can not disturb.
func (w *window) begin(inbox string, seq uint64) {
	w.attempt++
	w.reply = inbox + "." + strconv.Itoa(w.attempt)
	w.acked, w.sent = seq, seq
	w.bytes, w.published, w.answered, w.broken, w.fault = 0, 0, 0, false, nil
	w.strays = nil
	select {
	case <-w.stalled:
	default:
	}
}

// skip drops retained messages up to a position and numbers the rest behind a
// sequence.
func (w *window) skip(seq uint64, upTo listeners.Position) {
	old := w.entries[w.head:]
	kept := make([]entry, 0, len(old))
	high := seq
	for _, e := range old {
		dropped := 0
		for dropped < e.n && e.position(e.first+uint64(dropped)).Compare(upTo) <= 0 {
			dropped++
		}
		e.start, e.n = e.start+dropped, e.n-dropped
		if e.n == 0 {
			if len(kept) == 0 {
				w.reach(e.after)
			} else {
				kept[len(kept)-1].after = e.after
			}
			continue
		}
		e.first = high + 1
		high = e.last()
		kept = append(kept, e)
	}
	w.entries, w.head, w.high = kept, 0, high
}

func (w *window) position() listeners.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stored
}

func (w *window) last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.high
}

// left returns how many messages are not acknowledged, and the fault.
func (w *window) left() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.high - w.acked, w.fault
}

// progress is compared to notice that there is none.
type progress struct {
	waiting  bool // for an answer
	attempt  int
	answered int
}

func (w *window) progress() progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	return progress{waiting: w.answered < w.published, attempt: w.attempt, answered: w.answered}
}

// stable returns the last sequence known to be stored.
func (w *window) stable() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

// deaf makes every further answer a late one: what is acked stays as it is,
// so that a tail read afterwards can not lie before it.
func (w *window) deaf() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reply = ""
}
