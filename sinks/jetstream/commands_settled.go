package jetstream

import (
	"sync"
	"time"
)

// settledMemory is how many commands a consumer remembers to be done with.
const settledMemory = 1 << 14

// settled remembers the last commands that workers of this process were done
// with: carried out, or buried. The server takes an acknowledgement down in the
// consumer first and removes the command from the stream then. If it stops in
// between, the command lies in the stream for ever, and looks like one that was
// given up.
type settled struct {
	mu    sync.Mutex
	times map[uint64]int64 // when a sequence was stored: a stream made anew has the same again
	order []uint64
	next  int // place in order, once it is full
}

func (s *settled) add(seq uint64, stored time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == nil {
		s.times = make(map[uint64]int64)
	}
	_, known := s.times[seq]
	s.times[seq] = stored.UnixNano()
	switch {
	case known:
	case len(s.order) < settledMemory:
		s.order = append(s.order, seq)
	default:
		delete(s.times, s.order[s.next])
		s.order[s.next] = seq
		s.next = (s.next + 1) % settledMemory
	}
}

func (s *settled) has(seq uint64, stored time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.times[seq]
	return ok && at == stored.UnixNano()
}
