package cdc

import (
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// A tracker knows which LSN may be confirmed to the server. What is confirmed
// is never sent again, so it is always the end of a transaction that is stored
// together with everything before it (or a later point with nothing between):
// one byte more could skip the next transaction after a restart.
type tracker struct {
	mu        sync.Mutex
	pending   []pendingCommit    // delivered to the feed, not known to be stored; oldest first
	received  LSN                // the last position that the server told
	confirmed LSN                // but for what is held
	last      listeners.Position // of the last transaction that is stored
	open      bool               // inside a transaction
	held      map[uint32]LSN     // of prepared transactions: what is behind their PREPARE
	spans     []span             // of those that committed, until they are confirmed
}

type pendingCommit struct {
	last listeners.Position // of the transaction's last event
	end  LSN                // may be confirmed once that is stored
	held bool               // until release says what last is
	ends []resolution       // of prepared transactions, in effect once this is stored
}

func (t *tracker) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = true
}

// abandon forgets a transaction whose rest will not come on this connection.
func (t *tracker) abandon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = false
}

// commit is called when the transaction's last batch is in the feed.
func (t *tracker) commit(last listeners.Position, end LSN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = false
	t.received = max(t.received, end)
	t.pending = append(t.pending, pendingCommit{last: last, end: end})
}

// nothing is called with an LSN up to which there is nothing to store beyond
// what is pending: the end of a transaction without events, or a keepalive's
// position. Inside a transaction a keepalive says nothing about it.
func (t *tracker) nothing(upTo LSN, endsTransaction bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if endsTransaction {
		t.open = false
	}
	t.received = max(t.received, upTo)
	switch {
	case t.open:
	case len(t.pending) == 0:
		t.confirmed = max(t.confirmed, upTo)
	default:
		last := &t.pending[len(t.pending)-1]
		last.end = max(last.end, upTo)
	}
}

// passed takes the position up to which every subscription has stored
// everything, and returns up to where everything that has committed is stored.
func (t *tracker) passed(upTo listeners.Position) LSN {
	t.stored(upTo)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.confirmed
}

// stored takes the position up to which every subscription has stored
// everything, and returns what was received and what may be confirmed.
func (t *tracker) stored(upTo listeners.Position) (received, confirmed LSN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.pending) && !t.pending[n].held && t.pending[n].last.Compare(upTo) <= 0 {
		t.confirmed = max(t.confirmed, t.pending[n].end)
		t.last = t.pending[n].last
		for _, r := range t.pending[n].ends {
			t.resolve(r)
		}
		n++
	}
	t.pending = t.pending[n:]
	if len(t.pending) == 0 {
		t.pending = nil // or the array would keep growing at its end
	}
	return max(t.received, t.confirmed), t.outsidePrepared()
}

// standing takes what stored does, and returns what may be confirmed, and
// whether that is all that was received.
func (t *tracker) standing(upTo listeners.Position) (confirmed LSN, all bool) {
	received, confirmed := t.stored(upTo)
	t.mu.Lock()
	defer t.mu.Unlock()
	return confirmed, confirmed == received && !t.open
}

// lastStored returns the position of the last transaction that was confirmed or
// may be, the zero Position if there was none yet.
func (t *tracker) lastStored() listeners.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// reset forgets everything: positions of another slot come.
func (t *tracker) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending, t.held, t.spans = nil, nil, nil
	t.received, t.confirmed, t.open, t.last = 0, 0, false, listeners.Position{}
}

// start is called with the slot's confirmed position before streaming.
func (t *tracker) start(confirmed LSN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.confirmed = max(t.confirmed, confirmed)
}
