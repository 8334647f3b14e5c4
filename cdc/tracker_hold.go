package cdc

import "github.com/rowcall/rowcall/listeners"

// hold keeps everything after at from being confirmed, until release.
func (t *tracker) hold(at LSN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received = max(t.received, at)
	t.pending = append(t.pending, pendingCommit{end: at, held: true})
}

// release ends the oldest hold: what it waited for is in the feed up to last.
func (t *tracker) release(last listeners.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.pending {
		if p := &t.pending[i]; p.held {
			p.held, p.last = false, last
			return
		}
	}
}
