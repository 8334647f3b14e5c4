package sinks

import (
	"slices"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// A window holds the batches that are not stored yet and counts the messages
// in flight. The firehose adds to it, the acknowledgements take from it.
//
// Messages are numbered from 1 in each attempt, which ends at the first fault.
//
// Invariants, under mu:
//   - entries[:head] are gone, entries[head:next] are sent, of entries[next] a
//     part may be;
//   - acked <= taken <= sent; taken+1 … sent fill the window, acked+1 … sent
//     are not known to be stored;
//   - an entry is retained until its last message and all before it are acked.
type window struct {
	mu sync.Mutex

	entries    []entry
	head, next int
	keepMost   int // bytes of batches that are kept once they are sent; 0: no bound
	kept       int // bytes of those that are

	sent, taken, acked uint64

	sizes []int32 // of the messages that fill it, at number modulo length
	bytes int     // their sum

	fault   error
	stored  listeners.Position
	gained  uint64 // grows when something is stored
	count   uint64 // messages of all attempts
	payload uint64 // bytes of their bodies

	wake    chan struct{} // capacity 1: tells the firehose to look again
	wakeAt  uint64        // when taken reaches this; 0: nobody waits for room
	drain   bool          // somebody waits for everything
	stalled chan struct{} // capacity 1
}

// An entry is a batch that has to be stored.
type entry struct {
	batch   *listeners.Batch // nil if it is sent and will not be sent again
	kept    int              // bytes that count as kept
	live    bool             // a live marker that is a message
	filling filling          // of changes
	last    uint64           // the number of its last message, or of the one before it if it has none; set when it is sent
	after   listeners.Position
}

// A filling says whether changes come while a snapshot is not complete.
type filling uint8

const (
	complete   filling = iota
	incomplete         // a snapshot was begun in this run
	asTail             // as [FirehoseLane].Filling says
)

func newWindow(pending, keepMost int) *window {
	return &window{
		keepMost: keepMost,

		sizes:   make([]int32, pending),
		wake:    make(chan struct{}, 1),
		stalled: make(chan struct{}, 1),
	}
}

// add retains a batch. Runs of batches without messages cost nothing.
func (w *window) add(b *listeners.Batch, live bool, fills filling) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.entries); Len(b) == 0 && !live {
		if w.head < n {
			w.entries[n-1].after = b.Position
			return
		}
		w.reach(b.Position)
		return
	}
	if w.head > len(w.entries)/2 && len(w.entries) == cap(w.entries) {
		kept := copy(w.entries, w.entries[w.head:])
		clear(w.entries[kept:])
		w.entries, w.next, w.head = w.entries[:kept], w.next-w.head, 0
	}
	w.entries = append(w.entries, entry{batch: b, live: live, filling: fills, after: b.Position})
}

func (w *window) reach(p listeners.Position) {
	if p.Compare(w.stored) > 0 {
		w.stored = p
	}
}

// current returns the entry that is to be sent next, or the fault that keeps
// it.
func (w *window) current() (e entry, ok bool, fault error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil || w.next == len(w.entries) {
		return entry{}, false, w.fault
	}
	return w.entries[w.next], true, nil
}

// finish notes that the current entry is sent. Without keep it is not sent
// again, whatever happens.
func (w *window) finish(keep bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &w.entries[w.next]
	e.last = w.sent
	switch n := e.batch.Size; {
	case !keep, e.kept == 0 && w.keepMost > 0 && w.kept+n > w.keepMost:
		e.batch = nil
	case e.kept == 0: // otherwise it was sent before
		e.kept = n
		w.kept += n
	}
	w.next++
	w.release()
}

// release lets go of entries that are stored.
func (w *window) release() {
	for w.head < w.next {
		e := &w.entries[w.head]
		if e.last > w.acked {
			break
		}
		w.reach(e.after)
		w.kept -= e.kept
		*e = entry{}
		w.head++
	}
	if w.head == len(w.entries) {
		w.entries, w.head, w.next = w.entries[:0], 0, 0
	}
}

func (w *window) takeLocked(number uint64) {
	for n := w.taken + 1; n <= min(number, w.sent); n++ {
		w.bytes -= int(w.sizes[n%uint64(len(w.sizes))])
		w.taken = n
	}
	if w.wakeAt != 0 && w.taken >= w.wakeAt {
		w.signal()
	}
}

func (w *window) take(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.takeLocked(number)
}

func (w *window) ack(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.takeLocked(number)
	if number = min(number, w.sent); number > w.acked {
		w.gained += number - w.acked
		w.acked = number
		w.release()
	}
	if w.drain && w.acked == w.sent {
		w.signal()
	}
}

// fail ends the attempt.
func (w *window) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
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
	w.wakeAt, w.drain = 0, false
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// An admission is the answer to a message that wants to be sent.
type admission uint8

const (
	granted admission = iota
	full              // wake tells when to ask again
	over              // a fault ended the attempt
)

// admit counts a message of this size as sent.
func (w *window) admit(size, body, maxBytes int) (number uint64, answer admission) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		return 0, over
	}
	waiting := w.sent - w.taken
	if waiting > 0 && (waiting >= uint64(len(w.sizes)) || w.bytes+size > maxBytes) {
		// Half a window at a time saves a wake-up for each message.
		w.wakeAt = w.taken + (waiting+1)/2
		return 0, full
	}
	w.sent++
	w.sizes[w.sent%uint64(len(w.sizes))] = int32(min(size, 1<<30))
	w.bytes += min(size, 1<<30)
	w.count++
	w.payload += uint64(body)
	return w.sent, granted
}

// withdraw takes back the last admitted message, which was never sent.
func (w *window) withdraw(body int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes -= int(w.sizes[w.sent%uint64(len(w.sizes))])
	w.sent--
	w.count--
	w.payload -= uint64(body)
}

// done reports whether everything retained is stored, and the fault if there
// is one.
func (w *window) done() (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		return false, w.fault
	}
	if w.head == len(w.entries) {
		return true, nil
	}
	w.drain = true
	return false, nil
}

// begin starts a new attempt with everything that is retained, behind what is
// stored up to a position.
func (w *window) begin(stored listeners.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.taken, w.acked, w.bytes, w.fault = 0, 0, 0, 0, nil
	w.next = w.head
	if stored.Compare(w.stored) > 0 {
		w.stored = stored
		w.gained++
	}
	select {
	case <-w.stalled:
	default:
	}
}

// whole reports whether begin would send everything again that is not stored.
func (w *window) whole() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.entries[w.head:w.next], func(e entry) bool { return e.batch == nil })
}

// find returns the retained message at a position.
func (w *window) find(at listeners.Position) (b *listeners.Batch, i int, found bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries[w.head:] {
		if e.batch == nil || e.after.Compare(at) < 0 {
			continue
		}
		if isMarker(e.batch) {
			return e.batch, 0, e.batch.Position == at
		}
		for i := range e.batch.Events {
			if e.batch.Events[i].Position == at {
				return e.batch, i, true
			}
		}
	}
	return nil, 0, false
}

func (w *window) position() listeners.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stored
}

// progress grows when something is stored.
func (w *window) progress() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gained
}

// left returns how many messages are in flight and how many batches are not
// sent whole, and the fault.
func (w *window) left() (messages uint64, batches int, fault error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent - w.acked, len(w.entries) - w.next, w.fault
}

func (w *window) figures() (count, payload, inFlight uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count, w.payload, w.sent - w.acked
}
