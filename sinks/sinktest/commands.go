package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowcall/rowcall/sinks"
)

// Commands runs the suite. Start starts a broker for one test.
func Commands(t *testing.T, start func(t testing.TB) CommandServer) { commands(t, start, false) }

// CommandsAtOnce runs the suite with a broker that several tests use at a time: each
// start has names of its own. Those that restart the broker have it for themselves.
func CommandsAtOnce(t *testing.T, start func(t testing.TB) CommandServer) { commands(t, start, true) }

func commands(t *testing.T, start func(t testing.TB) CommandServer, atOnce bool) {
	for _, test := range []struct {
		name string
		run  func(*bench)
	}{
		{"WhatIsSentArrives", whatIsSentArrives},
		{"ConcurrencyIsLimited", concurrencyIsLimited},
		{"OneOwner", oneOwner},
		{"TooLarge", tooLarge},
		{"FullQueueRefusesAndWaits", fullQueue},
		{"MisconfiguredQueue", misconfigured},
		{"RetriesWaitLongerEachTime", retriesWait},
		{"DeadLettersSayWhy", deadLettersSayWhy},
		{"DeadLetterRetriedAndDiscarded", deadLetterRetried},
		{"AllDeadLettersRetriedAndDiscarded", allDeadLettersRetried},
		{"Delayed", delayed},
		{"DelayedOverRestart", delayedOverRestart},
		{"CallReplies", callReplies},
		{"CallAgainIsAnsweredFromMemory", callAgain},
		{"CallDeadline", callDeadline},
		{"LongHandlerKeepsItsLease", longHandler},
		{"DrainFinishesWhatRuns", drainFinishes},
		{"DrainGivesBackWhatTakesTooLong", drainGivesBack},
		{"StopUnderLoadBuriesNothing", stopUnderLoad},
		{"LostAckSendsOnce", lostAck},
		{"WorkerKilledInMidHandler", workerKilled},
		{"WorkerKilledInLastAttempt", workerKilledAtLast},
		{"BrokerRestartLosesNothing", brokerRestart},
		{"EventsSendTheirCommandOnce", eventsSendOnce},
		{"OnceInEffectUnderRandomFaults", randomFaults},
	} {
		t.Run(test.name, func(t *testing.T) {
			if atOnce && !slices.Contains([]string{"DelayedOverRestart", "BrokerRestartLosesNothing", "OnceInEffectUnderRandomFaults"}, test.name) {
				t.Parallel()
			}
			test.run(&bench{TB: t, server: start(t)})
		})
	}
}

func command(id string) sinks.Command {
	return sinks.Command{Queue: "fleet", Name: "add-carriage", ID: id, Body: []byte(`{"train":7}`)}
}

func whatIsSentArrives(b *bench) {
	got := make(chan sinks.Received, 10)
	c := b.commands(b.server.Connect(b.TB), &sinks.CommandsOptions{Owner: "booking"})
	sent := sinks.Command{
		Queue: "fleet", Name: "add-carriage", ID: `x/"y%`, Body: []byte{0, 1, 255},
		Headers: map[string]string{"trace": "a b: c"}, Expires: time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC(),
	}
	b.send(c, sent, sinks.Command{Queue: "fleet", Name: "recall"})
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		got <- *r
		return nil
	}, nil)
	all := []sinks.Received{wait(b, "the first command", got), wait(b, "the second command", got)}
	slices.SortFunc(all, func(x, y sinks.Received) int { return strings.Compare(x.Name, y.Name) })
	first, second := all[0], all[1]
	first.Expires = first.Expires.UTC()
	if diff := cmp.Diff(sent, first.Command); diff != "" {
		b.Errorf("received command (-want +got):\n%s", diff)
	}
	if first.Attempt != 1 || first.Sender != "booking" || time.Since(first.Sent) > b.patience() {
		b.Errorf("received attempt %d, sender %q, sent %s; want 1, \"booking\", just now", first.Attempt, first.Sender, first.Sent)
	}
	if second.Name != "recall" || second.ID == "" || len(second.Body) != 0 {
		b.Errorf("received %+v, want recall with an id and no body", second.Command)
	}
	b.empty(c)
	b.counters(c, "2 sent, received and done", func(s *sinks.CommandStats) bool {
		return s.Sent == 2 && s.Received == 2 && s.Done == 2 && s.Running == 0
	})
}

func concurrencyIsLimited(b *bench) {
	const limit = 3
	var running, most, done atomic.Int64
	enough := make(chan struct{})
	c := b.connect()
	for i := range 30 {
		b.send(c, command(fmt.Sprint("c", i)))
	}
	b.serve(c, func(ctx context.Context, _ *sinks.Received) error {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == limit && done.Load() == 0 {
			close(enough) // all are there at the same time
		}
		select {
		case <-enough:
		case <-ctx.Done():
			return ctx.Err()
		}
		done.Add(1)
		return nil
	}, &sinks.ServePolicy{Concurrency: limit})
	b.eventually("all commands", func() error {
		if n := done.Load(); n != 30 {
			return fmt.Errorf("%d of 30 are done", n)
		}
		return nil
	})
	if got := most.Load(); got != limit {
		b.Errorf("%d handlers ran at the same time, want %d", got, limit)
	}
}

func oneOwner(b *bench) {
	nothing := func(context.Context, *sinks.Received) error { return nil }
	first := b.commands(b.server.Connect(b.TB), &sinks.CommandsOptions{Owner: "fleet-service"})
	same := b.commands(b.server.Connect(b.TB), &sinks.CommandsOptions{Owner: "fleet-service"})
	other := b.commands(b.server.Connect(b.TB), &sinks.CommandsOptions{Owner: "billing"})
	b.serve(first, nothing, nil)
	b.eventually("an owner", func() error {
		all, err := first.Queues(b.Context())
		if err == nil && (len(all) != 1 || all[0].Owner != "fleet-service") {
			err = fmt.Errorf("the queues are %+v, want one of fleet-service", all)
		}
		return err
	})
	b.serve(same, nothing, nil)
	var wrong *sinks.OwnerError
	if err := other.Serve(b.Context(), "fleet", nothing, nil); !errors.As(err, &wrong) || wrong.Owner != "fleet-service" || wrong.Want != "billing" {
		b.Errorf("Serve by another owner = %v, want an OwnerError", err)
	}
}

func tooLarge(b *bench) {
	if b.server.MaxMessage == 0 {
		b.Skip("no known limit")
	}
	c := b.connect()
	large := command("large")
	large.Body = make([]byte, b.server.MaxMessage)
	err := c.SendAll(b.Context(), []sinks.Command{command("small"), large})
	var e *sinks.CommandTooLargeError
	if !errors.As(err, &e) || e.ID != "large" || e.Size < int64(len(large.Body)) {
		b.Fatalf("SendAll with a command of %d bytes = %v, want a CommandTooLargeError that names it", len(large.Body), err)
	}
	got := make(chan string, 2)
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		got <- r.ID
		return nil
	}, nil)
	if id := wait(b, "the small command", got); id != "small" {
		b.Errorf("received %s, want small", id)
	}
}

func fullQueue(b *bench) {
	if b.server.Bounded == nil {
		b.Skip("this broker does not bound queues")
	}
	c := b.commands(b.server.Bounded(b.TB, 5), nil)
	for i := range 5 {
		b.send(c, command(fmt.Sprint("f", i)))
	}
	// A deadline that falls into a try, not between two, says nothing of the
	// queue: the next one is later.
	for within := 200 * time.Millisecond; ; within *= 2 {
		ctx, cancel := context.WithTimeout(b.Context(), within)
		err := c.Send(ctx, command("f5"))
		cancel()
		var e *sinks.SendError
		if !errors.As(err, &e) {
			b.Fatalf("Send to a full queue = %v, want a SendError", err)
		}
		if errors.Is(err, sinks.ErrQueueFull) && e.Tries > 1 {
			break
		}
		if within > b.patience() {
			b.Fatalf("Send to a full queue = %v after %d tries within %s, want one that wraps ErrQueueFull", err, e.Tries, within)
		}
	}
	// With room, what waits goes through, and nothing was dropped.
	var seen tally
	patient := b.commands(b.server.Bounded(b.TB, 5), nil)
	sent := make(chan error, 1)
	go func() { sent <- patient.Send(b.Context(), command("f6")) }()
	b.eventually("a refused command", func() error {
		if s := patient.Stats(); s.SendRetries == 0 {
			return fmt.Errorf("counters are %+v, want a sending that is tried again", s)
		}
		return nil
	})
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		seen.add(r.ID)
		return nil
	}, nil)
	if err := wait(b, "Send", sent); err != nil {
		b.Errorf("Send to a queue that empties = %v", err)
	}
	b.eventually("all commands", func() error {
		for _, id := range []string{"f0", "f1", "f2", "f3", "f4", "f6"} {
			if len(seen.of(id)) != 1 {
				return fmt.Errorf("%s was received %d times, want once", id, len(seen.of(id)))
			}
		}
		return nil
	})
}

func misconfigured(b *bench) {
	if b.server.Misconfigure == nil {
		b.Skip("nothing to misconfigure")
	}
	b.server.Misconfigure(b.TB, "fleet")
	c := b.calm()
	var e *sinks.QueueError
	if err := c.Open(b.Context(), "fleet"); !errors.As(err, &e) || e.Queue != "fleet" || e.Reason == "" {
		b.Errorf("Open = %v, want a QueueError", err)
	}
	if err := c.Send(b.Context(), command("m")); !errors.As(err, &e) {
		b.Errorf("Send = %v, want a QueueError", err)
	}
	if err := c.Serve(b.Context(), "fleet", func(context.Context, *sinks.Received) error { return nil }, nil); !errors.As(err, &e) {
		b.Errorf("Serve = %v, want a QueueError", err)
	}
}
