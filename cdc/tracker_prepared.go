package cdc

import "slices"

// A resolution says that a prepared transaction committed, up to end, or was
// rolled back: then end is 0.
type resolution struct {
	xid uint32
	end LSN
}

// A span is a prepared transaction from its PREPARE to the end of its COMMIT
// PREPARED.
type span struct{ at, end LSN }

// prepared is called when a transaction was prepared whose record is at an LSN.
// The server sends a prepared transaction once. So that it does so again on the
// next connection, nothing behind the record is confirmed before the
// transaction is resolved. It may be prepared again in that way.
func (t *tracker) prepared(xid uint32, at LSN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.held[xid]; !known && at < t.confirmed {
		return // it comes again, and so does its end, which is stored
	}
	if t.held == nil {
		t.held = make(map[uint32]LSN)
	}
	t.held[xid] = at
}

// resolved is called when a prepared transaction has committed, up to end, and
// is in the feed, or was rolled back, with end 0. It is held until what is in
// the feed is stored.
func (t *tracker) resolved(xid uint32, end LSN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := resolution{xid: xid, end: end}
	if n := len(t.pending); n > 0 {
		t.pending[n-1].ends = append(t.pending[n-1].ends, r)
		return
	}
	t.resolve(r)
}

// onePhase is called when prepared transactions come as others do from now on.
func (t *tracker) onePhase() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held, t.spans = nil, nil
}

func (t *tracker) resolve(r resolution) {
	at, held := t.held[r.xid]
	delete(t.held, r.xid)
	if held && r.end > at {
		t.spans = append(t.spans, span{at: at, end: r.end})
	}
}

// outsidePrepared returns the last position to confirm that lies behind no
// PREPARE without its end. That may be before the oldest transaction that is
// prepared still: if another one was prepared before it and committed after
// it, a server that begins between would send that one's commit without it.
func (t *tracker) outsidePrepared() LSN {
	confirmed := t.confirmed
	for _, at := range t.held {
		confirmed = min(confirmed, at)
	}
	for moved := true; moved; {
		moved = false
		for _, s := range t.spans {
			if s.at < confirmed && confirmed < s.end {
				confirmed, moved = s.at, true
			}
		}
	}
	t.spans = slices.DeleteFunc(t.spans, func(s span) bool { return s.end <= confirmed })
	return confirmed
}
