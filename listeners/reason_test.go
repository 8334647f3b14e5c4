package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/listeners/listenertest"
)

func TestReasonOfASubscriptionsEnd(t *testing.T) {
	broken := errors.New("broken")
	moved := fmt.Errorf("the source has moved: %w", listeners.ErrClosed)
	nothing := listeners.ListenerFunc(func(context.Context, *listeners.Batch) error { return nil })
	for name, tc := range map[string]struct {
		listener listeners.Listener
		end      func(*listeners.Feed, *listeners.Subscription)
		want     error
		fails    bool
	}{
		"the subscription was closed": {nothing, func(_ *listeners.Feed, s *listeners.Subscription) { s.Close() }, listeners.ErrClosed, false},
		"the feed was closed":         {nothing, func(f *listeners.Feed, _ *listeners.Subscription) { f.Close() }, listeners.ErrClosed, false},
		"the feed was closed for a reason": {nothing, func(f *listeners.Feed, _ *listeners.Subscription) {
			f.CloseFor(moved)
			f.Close()
		}, moved, false},
		"the listener failed": {&listenertest.Recorder{Err: func(*listeners.Batch) error { return broken }}, func(f *listeners.Feed, _ *listeners.Subscription) {
			put(t, f, 1)
		}, broken, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := listeners.NewFeed(nil)
			s := subscribe(t, f, "s", tc.listener, nil, nil)
			if err := s.Reason(); err != nil {
				t.Errorf("Reason() = %v while it runs, want nil", err)
			}
			tc.end(f, s)
			<-s.Done()
			if err := s.Reason(); !errors.Is(err, tc.want) || (s.Err() != nil) != tc.fails {
				t.Errorf("Reason() = %v, Err() = %v; want %v, a failure %t", err, s.Err(), tc.want, tc.fails)
			}
		})
	}
}
