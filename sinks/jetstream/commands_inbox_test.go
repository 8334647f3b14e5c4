package jetstream_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func openInbox(t *testing.T, nc *nats.Conn, opts *jetstream.InboxOptions) *jetstream.Inbox {
	t.Helper()
	i, err := jetstream.OpenInbox(t.Context(), nc, opts)
	if err != nil {
		t.Fatalf("OpenInbox: %v", err)
	}
	return i
}

func TestInboxRemembersWithTheReply(t *testing.T) {
	t.Parallel()
	i := openInbox(t, connect(t, natstest.Run(t)), nil)
	calls := 0
	do := func(context.Context) ([]byte, error) {
		if calls++; calls == 1 {
			return nil, errors.New("not yet")
		}
		return []byte("done"), nil
	}
	for n, want := range []struct {
		reply    string
		repeated bool
		fail     bool
	}{{"", false, true}, {"done", false, false}, {"done", true, false}} {
		reply, repeated, err := i.Once(t.Context(), "fleet", "postgres/shop/1/add", do)
		if string(reply) != want.reply || repeated != want.repeated || (err != nil) != want.fail {
			t.Errorf("Once, call %d = %q, %t, %v; want %+v", n+1, reply, repeated, err, want)
		}
	}
	if calls != 2 {
		t.Errorf("the handler was called %d times, want 2", calls)
	}
}

func TestInboxLetsOneWorkerAtATime(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	var running, calls atomic.Int64
	var wg sync.WaitGroup
	for range 6 {
		i := openInbox(t, connect(t, s), &jetstream.InboxOptions{Claim: 15 * time.Second})
		wg.Go(func() {
			reply, _, err := i.Once(t.Context(), "fleet", "a", func(context.Context) ([]byte, error) {
				if running.Add(1) != 1 {
					t.Error("two workers run the same command")
				}
				calls.Add(1)
				timer := time.NewTimer(16 * time.Second) // longer than the claim
				<-timer.C
				running.Add(-1)
				return []byte("done"), nil
			})
			if string(reply) != "done" || err != nil {
				t.Errorf("Once = %q, %v; want done", reply, err)
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("the handler was called %d times, want once", n)
	}
}

// The worker dies between the beginning of its handler and the memory of its
// end.
func TestInboxAfterAWorkerDied(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup // they wait most of the time
	defer wg.Wait()
	for name, stop := range map[string]bool{"again": false, "stop at unclear": true} {
		wg.Go(func() {
			t.Run(name, func(t *testing.T) {
				s := natstest.Run(t)
				opts := &jetstream.InboxOptions{Claim: 15 * time.Second, StopAtUnclear: stop}
				victim := connect(t, s)
				i := openInbox(t, victim, opts)
				_, _, err := i.Once(t.Context(), "fleet", "a", func(context.Context) ([]byte, error) {
					victim.Close()
					return nil, nil
				})
				if err == nil {
					t.Fatal("Once without a connection = nil, want an error")
				}
				_, repeated, err := openInbox(t, connect(t, s), opts).Once(t.Context(), "fleet", "a", func(context.Context) ([]byte, error) { return nil, nil })
				if stop != errors.Is(err, sinks.ErrUnclear) || !stop && (err != nil || repeated) {
					t.Errorf("Once after a death = repeated %t, %v; want unclear: %t", repeated, err, stop)
				}
			})
		})
	}
}

// A worker that was out of reach for longer than its claim does not report
// success: somebody else may have begun.
func TestInboxNoticesALostClaim(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	opts := &jetstream.InboxOptions{Claim: 15 * time.Second}
	victim := connect(t, s)
	_, _, err := openInbox(t, victim, opts).Once(t.Context(), "fleet", "a", func(ctx context.Context) ([]byte, error) {
		victim.Close()
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), sinks.ErrLeaseLost) {
			t.Errorf("the handler's context ended with %v, want ErrLeaseLost", context.Cause(ctx))
		}
		return nil, nil
	})
	if !errors.Is(err, sinks.ErrLeaseLost) {
		t.Errorf("Once = %v, want ErrLeaseLost", err)
	}
}

func TestOpenInboxWithoutAConnection(t *testing.T) {
	t.Parallel()
	if _, err := jetstream.OpenInbox(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), "connection") {
		t.Errorf("OpenInbox without a connection = %v, want an error that says so", err)
	}
}
