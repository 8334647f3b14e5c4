package sinks

import "sync/atomic"

// FirehoseStats are figures of a [Firehose] since it was made.
type FirehoseStats struct {
	Sent     uint64 // messages handed to the broker; one that is sent again counts again
	Bytes    uint64 // of their bodies
	Skipped  uint64 // messages that were not sent, as they were stored already
	Retries  uint64 // faults after which it went on
	Parked   uint64 // messages that were too large for their place
	InFlight uint64 // sent and not known to be stored, at this moment
	// LastError is the last fault, also when it has passed; nil if there was
	// none.
	LastError error
}

type firehoseCounters struct {
	skipped, retries, parked atomic.Uint64

	lastError atomic.Pointer[error]
}

func (c *firehoseCounters) failed(err error) { c.lastError.Store(&err) }

// Stats returns the figures. They are read one after the other. It may be
// called from anywhere.
func (f *Firehose) Stats() FirehoseStats {
	s := FirehoseStats{
		Skipped: f.counters.skipped.Load(), Retries: f.counters.retries.Load(), Parked: f.counters.parked.Load(),
	}
	s.Sent, s.Bytes, s.InFlight = f.w.figures()
	if err := f.counters.lastError.Load(); err != nil {
		s.LastError = *err
	}
	return s
}
