package grid_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rowcall/rowcall/listeners"
)

// A line is a source at the far end of a connection that breaks. It goes on where
// it was if the near end still has that history, and is else told the state anew.
// It has one subscriber, who begins with it.
type line struct {
	src         listeners.Source
	feed        *listeners.Feed
	collections []string
	draw        func(int) int

	mu   sync.Mutex
	last listeners.Position
	torn bool // within a snapshot, so there is no position to go on from
}

func newLine(src listeners.Source, draw func(int) int) *line {
	return &line{src: src, feed: listeners.NewFeed(&listeners.FeedOptions{MaxBytes: int64(1 + draw(3000))}), draw: draw, torn: true}
}

func (l *line) Subscribe(name string, hears listeners.Listener, opts *listeners.SubscribeOptions) (*listeners.Subscription, error) {
	own := *opts
	own.Current = false // it begins with the state
	l.collections = opts.Collections
	return l.feed.Subscribe(name, hears, &own, nil)
}

// run connects again and again until breaks is closed, then once more until ctx
// ends. The source is open until then.
func (l *line) run(ctx context.Context, breaks <-chan struct{}) error {
	defer l.feed.Close()
	for steady := false; ; {
		opts := &listeners.SubscribeOptions{Current: true, Collections: l.collections}
		l.mu.Lock()
		if !l.torn {
			opts.From = l.last
		}
		l.mu.Unlock()
		sub, err := l.src.Subscribe("line", listeners.ListenerFunc(l.forward), opts)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		var breaking <-chan time.Time
		if !steady {
			breaking = time.After(time.Duration(l.draw(30)) * time.Millisecond)
		}
		select {
		case <-breaking:
		case <-sub.Done():
		case <-ctx.Done():
		}
		sub.Close()
		<-sub.Done()
		if err := sub.Err(); err != nil && !errors.Is(err, listeners.ErrClosed) {
			return fmt.Errorf("the connection ended by itself: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-breaks:
			steady = true
		case <-time.After(time.Duration(l.draw(10)) * time.Millisecond):
		}
	}
}

func (l *line) forward(ctx context.Context, b *listeners.Batch) error {
	if err := l.feed.Reserve(ctx); err != nil {
		return err
	}
	own := *b
	l.feed.Append(&own)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = b.Position
	switch b.Kind {
	case listeners.Reset:
		l.torn = true
	case listeners.Live:
		l.torn = false
	case listeners.Snapshot, listeners.Changes:
	}
	return nil
}
