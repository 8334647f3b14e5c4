package sinktest

import (
	"context"
	"slices"
	"sync"

	"github.com/rowcall/rowcall/sinks"
)

// An Inbox remembers in memory, for ever. The zero Inbox is ready for use, by
// any number of workers.
type Inbox struct {
	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	turn  chan struct{} // holds one while the command runs
	done  bool
	reply []byte
}

var _ sinks.Inbox = (*Inbox)(nil)

// Once implements [sinks.Inbox].
func (i *Inbox) Once(ctx context.Context, queue, id string, do func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	i.mu.Lock()
	if i.entries == nil {
		i.entries = make(map[string]*entry)
	}
	key := queue + "/" + id
	e := i.entries[key]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1)}
		i.entries[key] = e
	}
	i.mu.Unlock()

	select {
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	case e.turn <- struct{}{}:
	}
	defer func() { <-e.turn }()
	if e.done {
		return slices.Clone(e.reply), true, nil
	}
	reply, err := do(ctx)
	if err != nil {
		return nil, false, err
	}
	e.done, e.reply = true, slices.Clone(reply)
	return reply, false, nil
}
