package sinks_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

// A memory is an inbox that fails on demand.
type memory struct {
	done bool
	// away is returned before anything else, lost after do.
	away, lost error
}

func (m *memory) Once(ctx context.Context, _, _ string, do func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	if m.away != nil {
		return nil, false, m.away
	}
	if m.done {
		return nil, true, nil
	}
	if _, err := do(ctx); err != nil {
		return nil, false, err
	}
	m.done = true
	return nil, false, m.lost
}

// What the inbox remembers, or may remember, is never made a dead letter.
func TestCommandThatIsRememberedIsNotBuried(t *testing.T) {
	const most = 3
	away := errors.New("the inbox is away")
	for name, tc := range map[string]struct {
		inbox   *memory
		attempt int
		expired bool
		want    string
		handled int
	}{
		"after the last attempt, done":                 {inbox: &memory{done: true}, attempt: most + 1, want: "acked"},
		"after the last attempt, not done":             {inbox: &memory{}, attempt: most + 1, want: "buried"},
		"after the last attempt, nobody knows":         {inbox: &memory{away: away}, attempt: most + 1, want: "retried"},
		"in the last attempt, nobody knows":            {inbox: &memory{away: away}, attempt: most, want: "retried"},
		"the memory of the last attempt was confirmed": {inbox: &memory{}, attempt: most, want: "acked", handled: 1},
		"the confirmation of the memory was lost":      {inbox: &memory{lost: away}, attempt: most, want: "acked", handled: 1},
		"expired, done":                                {inbox: &memory{done: true}, attempt: 2, expired: true, want: "acked"},
		"expired, not done":                            {inbox: &memory{}, attempt: 2, expired: true, want: "buried"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				p := &parcel{attempt: tc.attempt}
				if tc.expired {
					p.expires = time.Now().Add(-time.Second)
				}
				handled := 0
				c := serving(t, &handing{deliver: once(p, stop)})
				err := c.Serve(ctx, "q", func(context.Context, *sinks.Received) error {
					handled++
					return nil
				}, &sinks.ServePolicy{Inbox: tc.inbox, MaxAttempts: most})
				if err != nil {
					t.Fatalf("Serve = %v", err)
				}
				got := map[string]int64{"acked": p.acked.Load(), "retried": p.retried.Load(), "buried": p.buried.Load()}
				if got[tc.want] != 1 || got["acked"]+got["retried"]+got["buried"] != 1 || handled != tc.handled {
					t.Errorf("the command was settled as %v and handled %d times, want it %s once and handled %d times", got, handled, tc.want, tc.handled)
				}
			})
		})
	}
}
