package sinks

import "sync/atomic"

// CommandStats count what a [Commands] has done since it was made.
type CommandStats struct {
	Sent        uint64 // confirmed as stored
	SendRetries uint64 // sendings after the first one
	Received    uint64 // deliveries
	Done        uint64 // carried out and acknowledged
	Repeated    uint64 // acknowledged because the inbox knew them
	Retried     uint64 // failed, and given back for another attempt
	Dead        uint64 // buried
	GivenBack   uint64 // not finished when the drain was over
	Panics      uint64 // attempts that ended in one
	LeasesLost  uint64 // attempts whose worker lost the broker for too long
	AckFailures uint64 // ends that the broker did not confirm: it delivers them again
	Running     int64  // handlers at this moment
}

type commandCounters struct {
	sent, sendRetries, received, done, repeated, retried, dead, givenBack, panics, leasesLost, ackFailures atomic.Uint64

	running atomic.Int64
}

// Stats returns the counters. They are read one after the other.
func (c *Commands) Stats() CommandStats {
	n := &c.counters
	return CommandStats{
		Sent: n.sent.Load(), SendRetries: n.sendRetries.Load(), Received: n.received.Load(),
		Done: n.done.Load(), Repeated: n.repeated.Load(), Retried: n.retried.Load(), Dead: n.dead.Load(),
		GivenBack: n.givenBack.Load(), Panics: n.panics.Load(), LeasesLost: n.leasesLost.Load(),
		AckFailures: n.ackFailures.Load(), Running: n.running.Load(),
	}
}
