package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A policy's delivery limit goes before ours if it is lower. The lowest there is
// ends no command before its attempts are used up, and no delay.
func TestPolicyWithADeliveryLimitEndsNothingEarly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := rabbittest.Server(t)
	own := strings.TrimSuffix(r.broker.Queue("fleet"), "cmd.fleet")
	if _, err := s.Ctl(t.Context(), "set_policy", own, "^"+own+`cmd\.`, `{"delivery-limit":1}`, "--apply-to", "queues"); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = s.Ctl(context.WithoutCancel(t.Context()), "clear_policy", own) }()
	due := time.Now().Add(300 * time.Millisecond)
	if err := r.commands.SendAt(t.Context(), sinks.Command{Queue: "fleet", Name: "recall", ID: "a"}, due); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	last := 0
	err := r.commands.Serve(ctx, "fleet", func(_ context.Context, got *sinks.Received) error {
		if last++; got.Attempt != last || time.Now().Before(due) {
			t.Errorf("attempt %d has the number %d, %s before its time", last, got.Attempt, time.Until(due))
		}
		if last == 25 {
			stop()
			return nil
		}
		return errors.New("not yet")
	}, &sinks.ServePolicy{MaxAttempts: 30, FirstDelay: time.Millisecond, MaxDelay: 20 * time.Millisecond})
	if err != nil || last != 25 {
		t.Errorf("Serve = %v after %d attempts, want 25", err, last)
	}
	if got := r.letters(t); len(got) != 0 {
		t.Errorf("Dead = %+v, want none", got)
	}
}

// An attentive inbox says which commands came to it.
type attentive struct {
	sinktest.Inbox

	mu    sync.Mutex
	calls map[string]int
}

func (a *attentive) Once(ctx context.Context, queue, id string, do func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	a.mu.Lock()
	if a.calls == nil {
		a.calls = make(map[string]int)
	}
	a.calls[id]++
	a.mu.Unlock()
	return a.Inbox.Once(ctx, queue, id, do)
}

func (a *attentive) of(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[id]
}

// The server takes commands back whose handlers take longer than its
// consumer_timeout: all of them come again, and have their effect once.
func TestConsumerTimeoutLosesAndDoublesNothing(t *testing.T) {
	r := newRig(t)
	s := rabbittest.Server(t)
	shortConsumerTimeout(t, s, r)

	const commands = 40
	for i := range commands {
		if err := r.commands.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "recall", ID: fmt.Sprint("c", i)}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	var inbox attentive
	var mu sync.Mutex
	effects := make(map[string]int)
	handler := func(_ context.Context, got *sinks.Received) error {
		if got.ID == "c3" {
			// As long as it takes for the server to lose its patience.
			waitUntil(ctx, func() bool { return inbox.of("c3") > 1 })
		}
		mu.Lock()
		defer mu.Unlock()
		effects[got.ID]++
		return nil
	}
	served := make(chan error, 1)
	go func() {
		served <- r.commands.Serve(ctx, "fleet", handler, &sinks.ServePolicy{Concurrency: 2, MaxAttempts: 1000, Lease: 3 * time.Second, Inbox: &inbox})
	}()
	var left error
	waitUntil(ctx, func() bool {
		n := r.commands.Stats()
		if left = inWork(s, strings.TrimSuffix(r.broker.Queue("fleet"), "cmd.fleet"))(t, "fleet"); left == nil && n.Done+n.Repeated < commands {
			left = fmt.Errorf("%+v", n)
		}
		return left == nil
	})
	stop()
	if err := <-served; err != nil || left != nil {
		t.Errorf("Serve = %v, and of the queue: %v; want all commands carried out", err, left)
	}
	if inbox.of("c3") < 2 {
		t.Error("the server never took the slow command back")
	}
	for i := range commands {
		if id := fmt.Sprint("c", i); effects[id] != 1 {
			t.Errorf("%s had %d effects, want 1", id, effects[id])
		}
	}
	if got := r.letters(t); len(got) != 0 {
		t.Errorf("Dead = %+v, want none", got)
	}
}

// waitUntil waits for a condition or the end of ctx.
func waitUntil(ctx context.Context, done func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shortConsumerTimeout has the server wait two seconds for the end of a
// delivery, by its configuration (before 3.12) and by the queue's argument. It
// looks every half second instead of every minute.
func shortConsumerTimeout(t *testing.T, s *rabbitserver.Server, r *rig) {
	t.Helper()
	const settings = `[begin
			Old = application:get_env(rabbit, Key, undefined),
			application:set_env(rabbit, Key, New),
			Old
		end || {Key, New} <- [{consumer_timeout, %s}, {channel_tick_interval, %s}]].`
	if _, err := s.Eval(t.Context(), fmt.Sprintf(settings, "2000", "500")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Eval(context.WithoutCancel(t.Context()), fmt.Sprintf(settings, "1800000", "60000")); err != nil {
			t.Error(err)
		}
	})
	name := r.broker.Queue("fleet")
	if _, err := r.channel.QueueDelete(name, false, false, false); err != nil {
		t.Fatal(err)
	}
	declare(t, s, name, amqp.Table{
		"x-queue-type": "quorum", "x-delivery-limit": int64(1000), "x-consumer-timeout": int64(2000), "x-overflow": "reject-publish",
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": r.broker.DeadQueue("fleet"), "x-dead-letter-strategy": "at-least-once",
	})
	if err := r.broker.OpenQueue(t.Context(), "fleet"); err != nil {
		t.Fatalf("OpenQueue: %v", err)
	}
}
