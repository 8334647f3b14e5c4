package kafka

import (
	"context"
	"sync"
	"time"
)

// A queue lies between Send, which fills chunks, and the sender. The firehose
// bounds what is in it.
type queue struct {
	mu     sync.Mutex
	chunks []*chunk
	flush  bool          // the sender is to commit, even in the middle of a transaction
	ends   bool          // no transaction of the source is open behind the last chunk
	filled chan struct{} // capacity 1: wakes the sender
}

func newQueue() *queue { return &queue{filled: make(chan struct{}, 1)} }

// put adds a chunk, nil for none, and what is known of it.
func (q *queue) put(c *chunk, ends, flush bool) {
	q.mu.Lock()
	if c != nil {
		q.chunks = append(q.chunks, c)
	}
	q.ends = ends
	q.flush = q.flush || flush
	q.mu.Unlock()
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// A lot is what the sender takes at once.
type lot struct {
	chunks      []*chunk
	ends, flush bool
}

// take hands over all that waits, or only flush when it is due.
func (q *queue) take(ctx context.Context, due <-chan time.Time) (lot, error) {
	select {
	case <-q.filled:
	case <-due:
		return lot{flush: true}, nil
	case <-ctx.Done():
		return lot{}, context.Cause(ctx)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := lot{chunks: q.chunks, ends: q.ends, flush: q.flush}
	q.chunks, q.flush = nil, false
	return l, nil
}
