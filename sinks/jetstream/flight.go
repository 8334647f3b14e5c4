package jetstream

import (
	"strconv"
	"sync"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

// A flight follows the messages of one attempt, from the publish to the
// server's answer.
//
// Invariants, under mu: the messages acked+1 … sent of the stream are in flight,
// base is the stream's last sequence when the attempt began, and a message has
// the number of its sequence less base.
type flight struct {
	mu   sync.Mutex
	acks *sinks.FirehoseAcks

	reply               string // where answers go; those to others are late
	single              string // reply, of messages that are answered one by one
	attempt             int
	base, acked, sent   uint64
	published, answered int  // that are answered one by one
	broken              bool // answers are missing for good
	fault               error

	// doubtful is the highest sequence that an interrupted attempt has sent
	// without learning its fate: up to there the stream may still move on
	// without an acknowledgement to us.
	doubtful uint64
	// own begins the sequences that hold messages of ours, and positions has those
	// of the last ones, at the sequence modulo length.
	own       uint64
	positions []listeners.Position
	// strays are messages of ours that the server has stored behind one that it
	// refused. If a stranger's has taken the place of that, they must go, or the
	// stream's tail would hide the gap. If an earlier attempt's has, which came
	// late, it is the same message, and they are in their places.
	strays []uint64

	settled chan struct{} // capacity 1: the last answer has come, or none will

	batch *batch        // of fast ingest; nil while messages are answered one by one
	waits bool          // somebody waits until nothing is in flight
	empty chan struct{} // capacity 1: that, or a fault
}

func newFlight(pending int) *flight {
	// One more than can be in flight: the last one that was acked counts too.
	return &flight{positions: make([]listeners.Position, pending+1), settled: make(chan struct{}, 1), empty: make(chan struct{}, 1)}
}

// begin starts an attempt behind the stream's last sequence. Answers of an older
// one do not count any more.
func (f *flight) begin(inbox string, seq uint64) {
	f.attempt++
	f.single = inbox + "." + strconv.Itoa(f.attempt)
	f.reply, f.batch = f.single, nil
	f.base, f.acked, f.sent = seq, seq, seq
	f.published, f.answered, f.broken, f.fault = 0, 0, false, nil
	f.strays = nil
	select {
	case <-f.settled:
	default:
	}
}

// forget says that nothing up to a sequence is ours.
func (f *flight) forget(seq uint64) { f.own, f.doubtful = seq+1, 0 }

// find returns the position of the message of ours that a sequence holds, or
// would if the server took it.
func (f *flight) find(seq uint64) (listeners.Position, bool) {
	if seq < f.own || seq > max(f.sent, f.doubtful) || seq+uint64(len(f.positions)) <= max(f.sent, f.doubtful) {
		return listeners.Position{}, false
	}
	return f.positions[seq%uint64(len(f.positions))], true
}

// next counts a message as sent and returns its sequence and where its answer
// goes.
func (f *flight) next(p listeners.Position) (reply string, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent++
	if f.batch == nil {
		f.published++
	}
	f.positions[f.sent%uint64(len(f.positions))] = p
	return f.reply, f.sent
}

// withdraw takes back the last message, which was never sent.
func (f *flight) withdraw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent--
	if f.batch == nil {
		f.published--
	}
}

// ack takes the answer to one message.
func (f *flight) ack(reply string, seq uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reply != f.reply {
		return
	}
	f.answered++
	switch {
	case err != nil:
		f.fail(err)
	case seq == f.acked+1 && seq <= f.sent:
		f.acked = seq
		f.acks.Stored(seq - f.base)
	default:
		if refused(f.fault) {
			f.strays = append(f.strays, seq)
		}
		f.fail(errAckLost)
	}
	if f.answered == f.published {
		f.settle()
	}
	f.tell()
}

func (f *flight) fail(err error) {
	if f.fault == nil {
		f.fault = err
		f.acks.Fail(err)
	}
	f.tell()
}

func (f *flight) settle() {
	select {
	case f.settled <- struct{}{}:
	default:
	}
}

// interrupt is called when the server will not answer any more.
func (f *flight) interrupt(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sent > f.acked || f.batch != nil && f.batch.ending || f.fault != nil {
		f.broken = true
		f.fail(err)
		f.settle()
	}
}

// over reports whether every message of the attempt was answered, or none will
// be any more.
func (f *flight) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken || f.answered >= f.published && (f.batch == nil || f.batch.over)
}

// known reports whether the server has said of every message what became of it.
func (f *flight) known() bool {
	return f.answered >= f.published && (f.batch == nil || f.batch.told)
}

// deaf makes every further answer a late one: what is acked stays as it is,
// so that a tail read afterwards can not lie before it.
func (f *flight) deaf() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reply = ""
}

// stable returns the last sequence known to be stored.
func (f *flight) stable() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.acked
}

// progress is compared to notice that there is none.
type progress struct {
	waiting  bool // for an answer
	attempt  int
	answered int
	acked    uint64
}

func (f *flight) progress() progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := progress{waiting: f.answered < f.published, attempt: f.attempt, answered: f.answered, acked: f.acked}
	if b := f.batch; b != nil {
		p.waiting, p.answered = b.ending || !b.whole && f.sent > f.acked, f.answered+b.heard
	}
	return p
}
