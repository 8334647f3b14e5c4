package jetstream

import (
	"context"
	"strings"
)

// A batch is one of fast ingest: its messages are numbered from 1, and
// message n is the stream's base+n.
type batch struct {
	base   uint64
	whole  bool // it is stored at its end, see wholes, and answered then
	heard  int  // answers
	ending bool // its end is on its way
	over   bool // the server takes no more of it, after a fault
	told   bool // and has said how much of it is stored
}

// beginBatch begins a batch when nothing is in flight. Answers go to addresses
// below reply.
func (f *flight) beginBatch(reply string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reply, f.batch = reply, &batch{base: f.sent}
}

// beginWhole is beginBatch for a whole.
func (f *flight) beginWhole(reply string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reply, f.batch = reply, &batch{base: f.sent, whole: true}
}

// reopenBatch takes back that the end is on its way.
func (f *flight) reopenBatch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.batch != nil {
		f.batch.ending = false
	}
}

// giveUp notes that nothing of a whole is or will be stored, as its end was not sent.
func (f *flight) giveUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.batch; b != nil {
		b.over, b.told = true, true
	}
}

// endBatch notes that the batch's end is on its way; an empty one is over.
func (f *flight) endBatch(empty bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.batch == nil:
	case empty:
		f.closeBatch()
	default:
		f.batch.ending = true
	}
}

func (f *flight) closeBatch() {
	f.batch, f.reply = nil, f.single
	f.tell()
}

// ackBatch takes an answer to a batch.
func (f *flight) ackBatch(subject string, a ingestAnswer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.batch
	if b == nil || f.reply == "" || !strings.HasPrefix(subject, f.reply) {
		return
	}
	b.heard++
	upTo := b.base + a.count
	switch {
	case a.err != nil:
		b.over, b.told = b.over || a.over, b.told || a.none
		f.broken = f.broken || a.lost
		f.fail(a.err)
	case upTo > f.sent || a.final && (upTo < f.acked || a.seq != upTo):
		b.over = b.over || a.final
		f.fail(errAckLost) // known is false: what is stored must be looked up
	default:
		if upTo > f.acked {
			f.acked = upTo
			f.acks.Stored(upTo - f.base)
		}
		switch {
		case !a.final:
		case b.ending && upTo == f.sent && f.fault == nil:
			f.closeBatch()
			return
		default:
			b.over, b.told = true, true
			f.fail(errBatchEnded)
		}
	}
	if b.over || f.broken {
		f.settle()
	}
	f.tell()
}

// batched reports whether a batch is open.
func (f *flight) batched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.batch != nil
}

// reach returns the last sequences that were sent and acknowledged.
func (f *flight) reach() (sent, acked uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent, f.acked
}

// await waits until nothing is in flight and no batch is open. It returns the
// fault that ended the attempt before.
func (f *flight) await(ctx context.Context) error {
	for {
		f.mu.Lock()
		fault, done := f.fault, f.batch == nil && f.sent == f.acked
		f.waits = fault == nil && !done
		f.mu.Unlock()
		if fault != nil || done {
			return fault
		}
		select {
		case <-f.empty:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tell wakes await when it has something to see.
func (f *flight) tell() {
	if !f.waits || f.fault == nil && (f.batch != nil || f.sent > f.acked) {
		return
	}
	f.waits = false
	select {
	case f.empty <- struct{}{}:
	default:
	}
}
