package sinktest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

// fleet is the queue of all tests.
const fleet = "fleet"

// patience is how long a test waits for something to happen.
const patience = time.Minute

// A bench is what a test of commands works with.
type bench struct {
	testing.TB
	server CommandServer
}

func (b *bench) patience() time.Duration {
	if b.server.Patience > 0 {
		return b.server.Patience
	}
	return patience
}

func (b *bench) commands(client *CommandClient, opts *sinks.CommandsOptions) *sinks.Commands {
	b.Helper()
	var o sinks.CommandsOptions
	if opts != nil {
		o = *opts
	}
	// What the library says belongs to a test that fails.
	o.Logger = slog.New(slog.NewTextHandler(b.Output(), nil))
	c, err := sinks.NewCommands(client.Broker, &o)
	if err != nil {
		b.Fatalf("NewCommands: %v", err)
	}
	b.Cleanup(c.Close)
	return c
}

func (b *bench) connect() *sinks.Commands {
	b.Helper()
	return b.commands(b.server.Connect(b.TB), nil)
}

// calm connects for what is tried once: a worker that stops gives back what it has
// not begun, an operator removes a dead letter.
func (b *bench) calm() *sinks.Commands {
	b.Helper()
	if b.server.Calm == nil {
		return b.connect()
	}
	return b.commands(b.server.Calm(b.TB), nil)
}

func (b *bench) send(c *sinks.Commands, cmds ...sinks.Command) {
	b.Helper()
	if err := c.SendAll(b.Context(), cmds); err != nil {
		b.Fatalf("SendAll: %v", err)
	}
}

// A worker is a running Serve.
type worker struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // after done
}

func (b *bench) serve(c *sinks.Commands, h sinks.CommandHandler, p *sinks.ServePolicy) *worker {
	b.Helper()
	// The test's context ends before its clean-up begins.
	ctx, stop := context.WithCancel(b.Context())
	w := &worker{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.err = c.Serve(ctx, fleet, h, p)
	}()
	b.Cleanup(func() {
		stop()
		<-w.done
	})
	return w
}

// end stops a worker and returns what Serve returned.
func (w *worker) end() error {
	w.stop()
	<-w.done
	return w.err
}

func (b *bench) eventually(what string, check func() error) {
	b.Helper()
	deadline := time.NewTimer(b.patience())
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			b.Fatalf("%s: not within %s: %v", what, b.patience(), err)
		}
	}
}

// dead waits until the queue has this many dead letters and returns them.
func (b *bench) dead(c *sinks.Commands, n int) []sinks.DeadCommand {
	b.Helper()
	var found []sinks.DeadCommand
	b.eventually("dead letters", func() error {
		found = nil
		for d, err := range c.Dead(b.Context(), fleet) {
			if err != nil {
				return err
			}
			found = append(found, d)
		}
		if len(found) != n {
			return fmt.Errorf("Dead(%s) has %d letters, want %d: %+v", fleet, len(found), n, found)
		}
		return nil
	})
	return found
}

// empty waits until nothing is left in the queue.
func (b *bench) empty(c *sinks.Commands) {
	b.Helper()
	b.eventually("an empty queue", func() error {
		all, err := c.Queues(b.Context())
		if err != nil {
			return err
		}
		for _, q := range all {
			if q.Queue != fleet {
				continue
			}
			if left := q.Waiting + q.Running + q.Delayed; left > 0 {
				return fmt.Errorf("the queues are %+v, want nothing waiting, running or delayed", q)
			}
			if b.server.InWork != nil {
				return b.server.InWork(b.TB, fleet)
			}
			return nil
		}
		return fmt.Errorf("the queues are %+v, want %s among them", all, fleet)
	})
}

// counters waits until the counters are as they should be: the queue is empty a
// moment before the worker knows it.
func (b *bench) counters(c *sinks.Commands, want string, ok func(*sinks.CommandStats) bool) {
	b.Helper()
	b.eventually("counters", func() error {
		if s := c.Stats(); !ok(&s) {
			return fmt.Errorf("counters are %+v, want %s", s, want)
		}
		return nil
	})
}

// A tally counts what happened to each command.
type tally struct {
	mu    sync.Mutex
	times map[string][]time.Time
}

func (a *tally) add(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.times == nil {
		a.times = make(map[string][]time.Time)
	}
	a.times[id] = append(a.times[id], time.Now())
	return len(a.times[id])
}

func (a *tally) of(id string) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.times[id]
}

func (a *tally) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.times)
}

// wait waits for a channel to receive or close.
func wait[T any](b *bench, what string, ch <-chan T) T {
	b.Helper()
	timer := time.NewTimer(b.patience())
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		b.Fatalf("not within %s: %s", b.patience(), what)
		panic("unreachable")
	}
}

// once is a policy for commands that are sent more than once.
func (b *bench) once() *sinks.ServePolicy {
	if b.server.NoMemory {
		return &sinks.ServePolicy{Inbox: new(Inbox)}
	}
	return nil
}
