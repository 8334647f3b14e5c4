package sinktest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

func longHandler(b *bench) {
	const lease = 2 * time.Second
	var seen tally
	policy := &sinks.ServePolicy{Lease: lease}
	done := make(chan error, 10)
	handler := func(ctx context.Context, r *sinks.Received) error {
		seen.add(r.ID)
		timer := time.NewTimer(lease * 5 / 2)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			done <- fmt.Errorf("the handler's context ended: %w", context.Cause(ctx))
		case <-timer.C:
			done <- nil
		}
		return nil
	}
	b.serve(b.connect(), handler, policy)
	c := b.connect()
	b.serve(c, handler, policy)
	// A machine that is too busy may lose the lease. Then the test says nothing,
	// and is done again.
	for try := 1; ; try++ {
		id := fmt.Sprint("long-", try)
		longest := stalls()
		b.send(c, command(id))
		err := wait(b, "the long handler", done)
		b.empty(c)
		n, stall := len(seen.of(id)), longest()
		if err == nil && n == 1 {
			return
		}
		if try == 5 {
			b.Fatalf("a handler longer than its lease was begun %d times, and ended with %v; want once, without an error", n, err)
		}
		b.Logf("the machine stood still for %s", stall)
		for range n - 1 {
			_ = wait(b, "the other handlers", done)
		}
	}
}

// stalls watches the clock until the function that it returns is called, which says
// for how long this process got no time at most.
func stalls() (end func() time.Duration) {
	const every = 20 * time.Millisecond
	var longest time.Duration
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-stop:
				return
			case <-ticker.C:
				longest = max(longest, time.Since(last)-every)
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		<-done
		return longest
	}
}

func drainFinishes(b *bench) {
	var begun, ended atomic.Int64
	started, release := make(chan struct{}, 10), make(chan struct{})
	c := b.calm()
	w := b.serve(c, func(context.Context, *sinks.Received) error {
		begun.Add(1)
		started <- struct{}{}
		<-release
		ended.Add(1)
		return nil
	}, &sinks.ServePolicy{Concurrency: 2})
	for i := range 5 {
		b.send(c, command(fmt.Sprint("d", i)))
	}
	wait(b, "a command", started)
	wait(b, "a command", started)
	w.stop()
	select {
	case <-w.done:
		b.Error("Serve returned while commands were running")
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := w.end(); err != nil {
		b.Errorf("Serve = %v, want nil", err)
	}
	if begun.Load() != 2 || ended.Load() != 2 {
		b.Errorf("%d commands were begun and %d ended, want the 2 that were running", begun.Load(), ended.Load())
	}
	// The others are there for the next worker, and have lost nothing.
	var seen tally
	next := b.calm()
	b.serve(next, func(_ context.Context, r *sinks.Received) error {
		if r.Attempt != 1 {
			b.Errorf("%s comes as attempt %d, want 1", r.ID, r.Attempt)
		}
		seen.add(r.ID)
		return nil
	}, nil)
	b.empty(next)
	if seen.len() != 3 {
		b.Errorf("the next worker got %d commands, want 3", seen.len())
	}
}

func drainGivesBack(b *bench) {
	started := make(chan struct{}, 1)
	c := b.connect()
	w := b.serve(c, func(ctx context.Context, _ *sinks.Received) error {
		started <- struct{}{}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), sinks.ErrDrained) {
			b.Errorf("the handler's context ended with %v, want ErrDrained", context.Cause(ctx))
		}
		return context.Cause(ctx)
	}, &sinks.ServePolicy{DrainTimeout: 100 * time.Millisecond, MaxAttempts: 1, Lease: 10 * time.Minute})
	b.send(c, command("slow"))
	wait(b, "the command", started)
	var e *sinks.DrainError
	if err := w.end(); !errors.As(err, &e) || e.Unfinished != 1 {
		b.Errorf("Serve = %v, want a DrainError for one command", err)
	}
	if s := c.Stats(); s.GivenBack != 1 || s.Dead != 0 {
		b.Errorf("Stats = %+v, want 1 given back", s)
	}
	// It comes at once, not when the lease is over.
	again := make(chan struct{}, 1)
	next := b.connect()
	b.serve(next, func(context.Context, *sinks.Received) error {
		again <- struct{}{}
		return nil
	}, &sinks.ServePolicy{Lease: 10 * time.Minute})
	wait(b, "the command again", again)
}

// Workers come and go while there is more than they can take. Each command has
// one attempt, so it is a dead letter if one that is not begun counts.
func stopUnderLoad(b *bench) {
	const commands, workers = 200, 12
	var seen tally
	c := b.calm()
	all := make([]sinks.Command, commands)
	for i := range all {
		all[i] = command(fmt.Sprint("s", i))
	}
	b.send(c, all...)
	policy := &sinks.ServePolicy{MaxAttempts: 1, Concurrency: 4, DrainTimeout: b.patience(), Lease: b.patience()}
	handler := func(_ context.Context, r *sinks.Received) error {
		if r.Attempt != 1 {
			b.Errorf("%s comes as attempt %d, want 1", r.ID, r.Attempt)
		}
		if n := seen.add(r.ID); n != 1 {
			b.Errorf("%s is begun %d times, want once", r.ID, n)
		}
		return nil
	}
	for n := range workers {
		w := b.serve(b.calm(), handler, policy)
		b.eventually("commands begun", func() error {
			if got := seen.len(); got < 10*n+1 && got < commands {
				return fmt.Errorf("worker %d: %d commands were begun", n, got)
			}
			return nil
		})
		if err := w.end(); err != nil {
			b.Errorf("Serve = %v, want nil", err)
		}
	}
	b.serve(c, handler, policy)
	b.empty(c)
	b.dead(c, 0)
	if n := seen.len(); n != commands {
		b.Errorf("%d of %d commands were carried out", n, commands)
	}
}

func workerKilled(b *bench) {
	started, hang := make(chan struct{}, 10), make(chan struct{})
	defer close(hang)
	policy := &sinks.ServePolicy{Lease: time.Second}
	victim := b.server.Connect(b.TB)
	b.serve(b.commands(victim, nil), func(context.Context, *sinks.Received) error {
		started <- struct{}{}
		<-hang
		return nil
	}, policy)
	c := b.connect()
	b.send(c, command("k"))
	wait(b, "the command", started)
	victim.Kill()
	attempts := make(chan int, 10)
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		attempts <- r.Attempt
		return nil
	}, policy)
	// More than 2 if the victim stood still for a lease before it died.
	if n := wait(b, "another worker", attempts); n < 2 {
		b.Errorf("another worker gets it as attempt %d, want 2", n)
	}
	b.empty(c)
}

func workerKilledAtLast(b *bench) {
	started, hang := make(chan struct{}, 10), make(chan struct{})
	defer close(hang)
	policy := &sinks.ServePolicy{Lease: time.Second, MaxAttempts: 1}
	victim := b.server.Connect(b.TB)
	b.serve(b.commands(victim, nil), func(context.Context, *sinks.Received) error {
		started <- struct{}{}
		<-hang
		return nil
	}, policy)
	c := b.connect()
	b.send(c, command("k"))
	wait(b, "the command", started)
	victim.Kill()
	b.serve(c, func(_ context.Context, r *sinks.Received) error {
		b.Errorf("attempt %d was begun, want none after the last", r.Attempt)
		return nil
	}, policy)
	if d := b.dead(c, 1)[0]; d.Dead.Reason != sinks.DeadUnfinished || d.Dead.Attempts != 1 {
		b.Errorf("dead letter %+v, want reason %s after 1 attempt", d.Dead, sinks.DeadUnfinished)
	}
	b.empty(c)
}
