package kafka

import (
	"context"
	"sync"

	"github.com/rowcall/rowcall/listeners"
)

// A queue lies between OnBatch, which fills it, and the sender.
type queue struct {
	max int // bytes that wait before put blocks

	mu      sync.Mutex
	chunks  []*chunk
	bytes   int
	flush   bool // the sender is to commit, even in the middle of a transaction
	busy    bool // the sender holds chunks, or a Kafka transaction is open
	stored  listeners.Position
	dead    error
	changed chan struct{} // closed at each change that somebody may wait for
	filled  chan struct{} // capacity 1: wakes the sender
	stalled chan struct{} // capacity 1: the sender has failed
}

func newQueue(maxBytes int) *queue {
	return &queue{
		max: maxBytes, changed: make(chan struct{}),
		filled: make(chan struct{}, 1), stalled: make(chan struct{}, 1),
	}
}

func (q *queue) changedLocked() {
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *queue) wakeSender() {
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// put adds a chunk when there is room.
func (q *queue) put(ctx context.Context, c *chunk) error {
	for {
		q.mu.Lock()
		if q.dead != nil {
			defer q.mu.Unlock()
			return q.dead
		}
		if q.bytes < q.max {
			q.chunks = append(q.chunks, c)
			q.bytes += c.bytes
			q.busy = true
			q.mu.Unlock()
			q.wakeSender()
			return nil
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take hands over all that waits, and whether a flush was asked for.
func (q *queue) take(ctx context.Context) (chunks []*chunk, flush bool, err error) {
	for {
		q.mu.Lock()
		if len(q.chunks) > 0 || q.flush {
			chunks, flush = q.chunks, q.flush
			q.chunks, q.bytes, q.flush = nil, 0, false
			q.changedLocked()
			q.mu.Unlock()
			return chunks, flush, nil
		}
		q.mu.Unlock()
		select {
		case <-q.filled:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// committed says that everything up to a position is stored.
func (q *queue) committed(at listeners.Position) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at.Compare(q.stored) > 0 {
		q.stored = at
	}
	q.busy = len(q.chunks) > 0
	q.changedLocked()
}

// fail ends it.
func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dead != nil {
		return
	}
	q.dead = err
	q.changedLocked()
	select {
	case q.stalled <- struct{}{}:
	default:
	}
}

func (q *queue) failed() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dead
}

func (q *queue) position() listeners.Position {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stored
}

// drain returns nil when nothing is on its way any more.
func (q *queue) drain(ctx context.Context) error {
	for {
		q.mu.Lock()
		if q.dead != nil || !q.busy {
			defer q.mu.Unlock()
			return q.dead
		}
		q.flush = true
		changed := q.changed
		q.mu.Unlock()
		q.wakeSender()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
