package sinks_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks"
)

func TestCommandValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		cmd  sinks.Command
		want []string // in the error; none: valid
	}{
		"plain":                {sinks.Command{Queue: "fleet", Name: "add-carriage"}, nil},
		"digits":               {sinks.Command{Queue: "fleet-2", Name: "add-2-seats"}, nil},
		"a state":              {sinks.Command{Queue: "orders", Name: "mark-order-paid"}, nil},
		"a state in -ed":       {sinks.Command{Queue: "orders", Name: "mark-order-shipped"}, nil},
		"need and embed":       {sinks.Command{Queue: "feed", Name: "embed-feed"}, nil},
		"an event":             {sinks.Command{Queue: "fleet", Name: "carriage-added"}, []string{"say what to do"}},
		"a short event":        {sinks.Command{Queue: "fleet", Name: "created"}, []string{"say what to do"}},
		"an event, verb first": {sinks.Command{Queue: "fleet", Name: "created-seat"}, []string{"say what to do"}},
		"all at once": {
			sinks.Command{Queue: "Fleet", Name: "add.carriage", ID: "a b", Headers: map[string]string{"Nats-X": "1", "y": "a\nb"}},
			[]string{`queue "Fleet"`, `name "add.carriage"`, "ID", `"Nats-X"`, `"y"`},
		},
		"wildcard":    {sinks.Command{Queue: "*", Name: ">"}, []string{`queue "*"`, `name ">"`}},
		"empty":       {sinks.Command{}, []string{`queue ""`, `name ""`}},
		"long id":     {sinks.Command{Queue: "q", Name: "do", ID: strings.Repeat("x", sinks.MaxCommandID+1)}, []string{"more than"}},
		"digit first": {sinks.Command{Queue: "q", Name: "2-do"}, []string{`name "2-do"`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.cmd.Validate()
			if (err == nil) != (len(tc.want) == 0) {
				t.Fatalf("Validate(%+v) = %v, want faults with %q", tc.cmd, err, tc.want)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Validate(%+v) = %v, want %q in it", tc.cmd, err, want)
				}
			}
		})
	}
}

// A failing is a broker that injects faults into sending; it can do nothing
// else.
type failing struct {
	sinks.CommandBroker

	mu    sync.Mutex
	fails int // publishings that fail first
	err   error
	tries []time.Duration // since start
	start time.Time
	got   []sinks.CommandEnvelope
}

func (f *failing) OpenQueue(context.Context, string) error                          { return nil }
func (f *failing) Close()                                                           {}
func (f *failing) Queues(context.Context) ([]sinks.QueueStatus, error)              { return nil, nil }
func (f *failing) Dead(context.Context, string) iter.Seq2[sinks.DeadCommand, error] { return nil }

func (f *failing) Publish(_ context.Context, envelopes []sinks.CommandEnvelope) []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, time.Since(f.start))
	errs := make([]error, len(envelopes))
	if len(f.tries) <= f.fails {
		errs[len(errs)-1] = f.err // the others are stored
		f.got = append(f.got, envelopes[:len(envelopes)-1]...)
		return errs
	}
	f.got = append(f.got, envelopes...)
	return nil
}

func TestSendTriesAgainAndOnlyWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{fails: 4, err: errors.New("away"), start: time.Now()}
		c, err := sinks.NewCommands(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.SendAll(t.Context(), []sinks.Command{{Queue: "q", Name: "do", ID: "1"}, {Queue: "q", Name: "do", ID: "2"}})
		if err != nil {
			t.Fatalf("SendAll = %v", err)
		}
		var ids []string
		for _, e := range f.got {
			ids = append(ids, e.ID)
		}
		if got := strings.Join(ids, " "); got != "1 2" {
			t.Errorf("stored %s, want each once: 1 2", got)
		}
		if len(f.tries) != 5 {
			t.Fatalf("%d tries, want 5", len(f.tries))
		}
		for i, least := range []time.Duration{15 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond, 120 * time.Millisecond} {
			if gap := f.tries[i+1] - f.tries[i]; gap < least || gap > least*5/3 {
				t.Errorf("try %d came %s after the one before, want %s to %s", i+2, gap, least, least*5/3)
			}
		}
		if s := c.Stats(); s.Sent != 2 || s.SendRetries != 4 {
			t.Errorf("Stats = %+v, want 2 sent, 4 retries", s)
		}
	})
}

func TestSendEnds(t *testing.T) {
	away := errors.New("away")
	for name, tc := range map[string]struct {
		err    error
		within time.Duration // of the context; 0: none
		check  func(error) bool
	}{
		"at SendTimeout":   {away, 0, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) && errors.Is(err, away) }},
		"at its deadline":  {away, time.Second, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"full, at the end": {sinks.ErrQueueFull, 0, func(err error) bool { return errors.Is(err, sinks.ErrQueueFull) }},
		"at once when final": {&sinks.QueueError{Queue: "q", Reason: "gone"}, 0, func(err error) bool {
			_, ok := errors.AsType[*sinks.QueueError](err)
			return ok
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := sinks.Command{Queue: "q", Name: "do", ID: "1"}
			endsAsItShould(t, "Send", tc.err, tc.within, tc.check, func(ctx context.Context, c *sinks.Commands) error { return c.Send(ctx, cmd) })
			endsAsItShould(t, "Resend", tc.err, tc.within, tc.check, func(ctx context.Context, c *sinks.Commands) error {
				return c.Resend(ctx, &sinks.DeadCommand{Ref: "7", Envelope: sinks.CommandEnvelope{Command: cmd}})
			})
		})
	}
}

func endsAsItShould(t *testing.T, call string, cause error, within time.Duration, check func(error) bool, send func(context.Context, *sinks.Commands) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &failing{fails: 1 << 30, err: cause, start: time.Now()}
		c, err := sinks.NewCommands(f, &sinks.CommandsOptions{SendTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, want := t.Context(), 5*time.Second
		if within > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, within)
			defer cancel()
			want = within
		}
		err = send(ctx, c)
		if !check(err) {
			t.Errorf("%s = %v, not what it should be", call, err)
		}
		if _, final := errors.AsType[*sinks.QueueError](err); final {
			want = 0
		} else if e, ok := errors.AsType[*sinks.SendError](err); !ok || e.ID != "1" || e.Tries < 3 {
			t.Errorf("%s = %#v, want a SendError with the id and its tries", call, err)
		}
		if took := time.Since(f.start); took != want {
			t.Errorf("%s took %s, want %s", call, took, want)
		}
	})
}

// While the broker is away, a listener waits as long as its subscription lives:
// SendTimeout is not for it.
func TestCommandsForWaitsForItsBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{fails: 100, err: errors.New("away"), start: time.Now()}
		c, err := sinks.NewCommands(f, &sinks.CommandsOptions{SendTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l := sinks.CommandsFor(c, func(e *listeners.Event) (*sinks.Command, error) {
			return &sinks.Command{Queue: "q", Name: "do"}, nil
		})
		b := changes("shop", 7, listeners.Event{Op: listeners.Delete, Schema: seats, OldKey: record(seats, 7, unsent, unsent)})
		if err := l.OnBatch(t.Context(), b); err != nil {
			t.Fatalf("OnBatch = %v", err)
		}
		if time.Since(f.start) < time.Minute {
			t.Errorf("OnBatch took %s for 100 failures, want more than a minute", time.Since(f.start))
		}
		want := sinks.EventID(&b.Events[0]) + "/do"
		if len(f.got) != 1 || f.got[0].ID != want {
			t.Errorf("sent %+v, want one with the id %s", f.got, want)
		}
		if f := sinks.NewEncoder(0).Encode(b, 0); f.ID+"/do" != want {
			t.Errorf("EventID is %s, the message's id is %s; want the same", want, f.ID)
		}
		broken := errors.New("no such train")
		l = sinks.CommandsFor(c, func(*listeners.Event) (*sinks.Command, error) { return nil, broken })
		if err := l.OnBatch(t.Context(), b); !errors.Is(err, broken) || !strings.Contains(err.Error(), sinks.EventID(&b.Events[0])) {
			t.Errorf("OnBatch = %v, want the function's error with the event", err)
		}
	})
}

func TestCommandsReportAllFaults(t *testing.T) {
	_, err := sinks.NewCommands(nil, &sinks.CommandsOptions{Owner: "a b", SendTimeout: -1})
	for _, want := range []string{"no broker", "owner", "SendTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewCommands = %v, want %q in it", err, want)
		}
	}
	c, err := sinks.NewCommands(&failing{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Serve(t.Context(), "q", nil, &sinks.ServePolicy{MaxAttempts: -1, Lease: time.Millisecond, MaxDelay: time.Second, FirstDelay: time.Minute})
	for _, want := range []string{"handler", "MaxAttempts", "lease", "MaxDelay"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Serve = %v, want %q in it", err, want)
		}
	}
}
