package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

func newCommands(t testing.TB, nc *nats.Conn, opts *jetstream.CommandOptions) *sinks.Commands {
	t.Helper()
	b, err := jetstream.NewCommandBroker(nc, opts)
	if err != nil {
		t.Fatalf("NewCommandBroker: %v", err)
	}
	c, err := sinks.NewCommands(b, nil)
	if err != nil {
		t.Fatalf("NewCommands: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// serveWhile serves until do has returned.
func serveWhile(t testing.TB, c *sinks.Commands, h sinks.CommandHandler, p *sinks.ServePolicy, do func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, "fleet", h, p) }()
	do()
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func onlyDeadLetter(t testing.TB, c *sinks.Commands) sinks.DeadCommand {
	t.Helper()
	var found []sinks.DeadCommand
	eventually(t, "one dead letter", func() bool {
		found = nil
		for d, err := range c.Dead(t.Context(), "fleet") {
			if err == nil {
				found = append(found, d)
			}
		}
		return len(found) > 0
	})
	if len(found) != 1 {
		t.Fatalf("%d dead letters, want 1", len(found))
	}
	return found[0]
}

// Workers take a command and die before they can even say so: the server gives
// it up, and the safety net buries it.
func TestCommandsOfDyingWorkersAreBuried(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c := newCommands(t, nc, nil)
	policy := &sinks.ServePolicy{MaxAttempts: 1, Lease: time.Second}
	none := func(_ context.Context, r *sinks.Received) error {
		t.Errorf("%s was begun as attempt %d, want none after the server gave it up", r.ID, r.Attempt)
		return nil
	}
	serveWhile(t, c, none, policy, func() {
		eventually(t, "a consumer", func() bool {
			_, err := js.Consumer(t.Context(), "CMD_FLEET", "fleet")
			return err == nil
		})
	})
	if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage", ID: "poison"}); err != nil {
		t.Fatal(err)
	}
	consumer, err := js.Consumer(t.Context(), "CMD_FLEET", "fleet")
	if err != nil {
		t.Fatal(err)
	}
	for n := range consumer.CachedInfo().Config.MaxDeliver {
		var m natsjs.Msg
		eventually(t, fmt.Sprint("delivery ", n+1), func() bool { // a busy server may have no responder yet
			m, err = consumer.Next(natsjs.FetchMaxWait(10 * time.Second))
			return err == nil
		})
		if err := m.Nak(); err != nil {
			t.Fatal(err)
		}
	}
	// While nobody serves, the server finds out at the next delivery.
	if _, err := consumer.Next(natsjs.FetchMaxWait(time.Second)); err == nil {
		t.Fatal("the server delivers more often than it may")
	}
	serveWhile(t, c, none, policy, func() {
		d := onlyDeadLetter(t, c)
		if d.Dead.Reason != sinks.DeadUndeliverable || d.Envelope.ID != "poison" || d.Origin != "CMD_FLEET/1" || d.Dead.Attempts < 4 {
			t.Errorf("dead letter %+v of %+v, want poison as undeliverable after its 4 deliveries", d.Dead, d.Envelope)
		}
		eventually(t, "an empty queue", func() bool {
			all, err := c.Queues(t.Context())
			return err == nil && all[0].Waiting+all[0].Running == 0 && all[0].Dead == 1
		})
	})
	s, err := js.Stream(t.Context(), "CMD_FLEET")
	if err != nil || s.CachedInfo().State.Msgs != 0 {
		t.Errorf("the stream holds %d messages (%v), want none", s.CachedInfo().State.Msgs, err)
	}
}

// A program in any language sends a command with nothing but a subject.
func TestPlainMessagesAreCommands(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	c := newCommands(t, nc, nil)
	if err := c.Open(t.Context(), "fleet"); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("cmd.fleet.add-carriage", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("cmd.fleet.Bad_Name", []byte("bad")); err != nil {
		t.Fatal(err)
	}
	got := make(chan sinks.Received, 1)
	serveWhile(t, c, func(_ context.Context, r *sinks.Received) error {
		got <- *r
		return nil
	}, nil, func() {
		r := <-got
		if r.Name != "add-carriage" || string(r.Body) != "hello" || r.ID != "CMD_FLEET/1" {
			t.Errorf("received %+v, want add-carriage with the sequence as its id", r.Command)
		}
		if d := onlyDeadLetter(t, c); d.Dead.Reason != sinks.DeadUndecodable || string(d.Envelope.Body) != "bad" {
			t.Errorf("dead letter %+v, want the bad one as undecodable", d)
		}
	})
}

func TestQueuesThatCannotBe(t *testing.T) {
	t.Parallel()
	work := natsjs.StreamConfig{Name: "CMD_FLEET", Subjects: []string{"cmd.fleet.>"}, Retention: natsjs.WorkQueuePolicy}
	for name, tc := range map[string]struct {
		change func(c *natsjs.StreamConfig)
		want   string
	}{
		"drops when full":    {func(c *natsjs.StreamConfig) { c.MaxMsgs = 5 }, `discard`},
		"drops what is old":  {func(c *natsjs.StreamConfig) { c.MaxAge = time.Hour }, "max_age"},
		"other subjects":     {func(c *natsjs.StreamConfig) { c.Subjects = []string{"cmd.fleet.add"} }, "subjects"},
		"keeps what is done": {func(c *natsjs.StreamConfig) { c.Retention = natsjs.LimitsPolicy }, "retention"},
		"another stream": {func(c *natsjs.StreamConfig) {
			c.Name, c.Retention = "OTHER", natsjs.LimitsPolicy
		}, "belong to another stream"},
		"dead letters that vanish": {func(c *natsjs.StreamConfig) {
			c.Name, c.Subjects = "DLQ_FLEET", []string{"dlq.fleet"}
		}, "DLQ_FLEET"},
		"no advisories": {func(c *natsjs.StreamConfig) {
			c.Name, c.Subjects, c.Retention = "DLQ_FLEET", []string{"dlq.fleet"}, natsjs.LimitsPolicy
		}, "gave up"},
	} {
		t.Run(name, func(t *testing.T) {
			nc := connect(t, natstest.Run(t))
			config := work
			tc.change(&config)
			js, err := natsjs.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			err = newCommands(t, nc, nil).Open(t.Context(), "fleet")
			var e *sinks.QueueError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Open = %v, want a QueueError with %q", err, tc.want)
			}
		})
	}
	t.Run("must exist", func(t *testing.T) {
		err := newCommands(t, connect(t, natstest.Run(t)), &jetstream.CommandOptions{MustExist: true}).Open(t.Context(), "fleet")
		var e *sinks.QueueError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), "CMD_FLEET") {
			t.Errorf("Open = %v, want a QueueError that names the stream", err)
		}
	})
}

func TestStreamDeletedInUse(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c := newCommands(t, nc, nil)
	if err := c.Open(t.Context(), "fleet"); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- c.Serve(t.Context(), "fleet", func(context.Context, *sinks.Received) error { return nil }, nil)
	}()
	eventually(t, "a consumer", func() bool {
		_, err := js.Consumer(t.Context(), "CMD_FLEET", "fleet")
		return err == nil
	})
	if err := js.DeleteStream(t.Context(), "CMD_FLEET"); err != nil {
		t.Fatal(err)
	}
	var e *sinks.QueueError
	if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage"}); !errors.As(err, &e) {
		t.Errorf("Send without the stream = %v, want a QueueError", err)
	}
	if err := <-served; !errors.As(err, &e) {
		t.Errorf("Serve without the stream = %v, want a QueueError", err)
	}
}

// Without schedules the workers hold what is not due yet.
func TestDelayedOnABoundedQueue(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	c := newCommands(t, nc, &jetstream.CommandOptions{MaxMessages: 10})
	const after = 1200 * time.Millisecond
	start := time.Now()
	if err := c.SendAt(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage"}, start.Add(after)); err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	serveWhile(t, c, func(_ context.Context, r *sinks.Received) error {
		got <- r.Attempt
		return nil
	}, nil, func() {
		if attempt := <-got; attempt != 1 || time.Since(start) < after {
			t.Errorf("received as attempt %d after %s, want the first after %s", attempt, time.Since(start), after)
		}
	})
}

// More fail at once than the server's default of pending messages allows.
func TestManyFailuresDoNotStopAQueue(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.RunWith(t, &natsserver.Options{}))
	c := newCommands(t, nc, nil)
	var cmds []sinks.Command
	for i := range 1200 {
		cmds = append(cmds, sinks.Command{Queue: "fleet", Name: "add-carriage", ID: fmt.Sprint("fails", i)})
	}
	if err := c.SendAll(t.Context(), append(cmds, sinks.Command{Queue: "fleet", Name: "add-carriage", ID: "good"})); err != nil {
		t.Fatal(err)
	}
	good := make(chan struct{})
	serveWhile(t, c, func(_ context.Context, r *sinks.Received) error {
		if r.ID == "good" {
			close(good)
			return nil
		}
		return errors.New("no")
	}, &sinks.ServePolicy{FirstDelay: time.Hour, MaxDelay: time.Hour}, func() {
		timeout := time.NewTimer(time.Minute)
		defer timeout.Stop()
		select {
		case <-good:
		case <-timeout.C:
			t.Error("a good command behind 1,200 that fail was not begun within a minute")
		}
	})
}
