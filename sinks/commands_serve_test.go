package sinks_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowcall/rowcall/sinks"
)

// A handing is a broker with one queue and what is put into its hands. It shows
// the order of calls, which no real broker does.
type handing struct {
	sinks.CommandBroker

	deliver func(ctx context.Context) []sinks.CommandDelivery // nil: none before ctx ends
	closed  atomic.Bool
}

func (h *handing) OpenQueue(context.Context, string) error { return nil }
func (h *handing) Close()                                  {}

func (h *handing) Consume(context.Context, string, sinks.ConsumeOptions) (sinks.CommandConsumer, error) {
	return &handingConsumer{h}, nil
}

type handingConsumer struct{ *handing }

func (c *handingConsumer) Receive(ctx context.Context, _ int) ([]sinks.CommandDelivery, error) {
	if ctx.Err() == nil {
		if found := c.deliver(ctx); found != nil {
			return found, nil
		}
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (c *handingConsumer) Close() { c.closed.Store(true) }

// A parcel is a delivery that counts what becomes of it.
type parcel struct {
	attempt                         int
	expires                         time.Time
	extend                          func(context.Context) error
	acked, retried, buried, extends atomic.Int64
}

func (p *parcel) Envelope() (*sinks.CommandEnvelope, error) {
	return &sinks.CommandEnvelope{Command: sinks.Command{Queue: "q", Name: "do", ID: "1", Expires: p.expires}}, nil
}

func (p *parcel) Attempt() int { return max(p.attempt, 1) }

func (p *parcel) Ack(context.Context) error {
	p.acked.Add(1)
	return nil
}

func (p *parcel) Retry(context.Context, time.Duration) error {
	p.retried.Add(1)
	return nil
}

func (p *parcel) Bury(context.Context, sinks.DeadLetter) error {
	p.buried.Add(1)
	return nil
}

func (p *parcel) Extend(ctx context.Context) error {
	p.extends.Add(1)
	if p.extend != nil {
		return p.extend(ctx)
	}
	return ctx.Err()
}

// once delivers a parcel, and then calls then.
func once(p *parcel, then func()) func(context.Context) []sinks.CommandDelivery {
	return func(context.Context) []sinks.CommandDelivery {
		if p == nil {
			return nil
		}
		one := p
		p = nil
		then()
		return []sinks.CommandDelivery{one}
	}
}

func serving(t *testing.T, h *handing) *sinks.Commands {
	t.Helper()
	c, err := sinks.NewCommands(h, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// What a worker has asked for would otherwise come, and lie there while a long
// command ends.
func TestServeAsksForNothingWhileItDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p, release := new(parcel), make(chan struct{})
		h := &handing{deliver: once(p, stop)}
		c := serving(t, h)
		served := make(chan error, 1)
		go func() {
			served <- c.Serve(ctx, "q", func(context.Context, *sinks.Received) error {
				<-release
				return nil
			}, nil)
		}()
		synctest.Wait()
		if !h.closed.Load() {
			t.Error("the consumer is open while Serve drains, want it closed")
		}
		close(release)
		if err := <-served; err != nil || p.acked.Load() != 1 {
			t.Errorf("Serve = %v with %d commands done, want nil and 1", err, p.acked.Load())
		}
	})
}

// A handler that ignores its context still holds its command: if the lease
// ended, another worker would begin it beside this one.
func TestServeExtendsWhatOutlastsTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := new(parcel)
		c := serving(t, &handing{deliver: once(p, stop)})
		err := c.Serve(ctx, "q", func(context.Context, *sinks.Received) error {
			<-time.After(time.Hour)
			return nil
		}, &sinks.ServePolicy{Lease: time.Minute, DrainTimeout: time.Second})
		if err == nil {
			t.Error("Serve = nil, want a DrainError")
		}
		if n := p.extends.Load(); n < 170 {
			t.Errorf("the lease was extended %d times in an hour, want every third of a minute", n)
		}
		if p.acked.Load() != 1 || p.retried.Load() != 0 {
			t.Errorf("%d acknowledged and %d given back, want what was done acknowledged", p.acked.Load(), p.retried.Load())
		}
	})
}

// A broker that hangs is a broker that cannot be told.
func TestServeLosesALeaseThatNobodyConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		p := &parcel{extend: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		start := time.Now()
		c := serving(t, &handing{deliver: once(p, func() {})})
		err := c.Serve(ctx, "q", func(ctx context.Context, _ *sinks.Received) error {
			<-ctx.Done()
			if cause := context.Cause(ctx); cause != sinks.ErrLeaseLost { //nolint:errorlint // that itself
				t.Errorf("the handler's context ended with %v, want ErrLeaseLost", cause)
			}
			stop()
			return ctx.Err()
		}, &sinks.ServePolicy{Lease: time.Minute})
		if err != nil {
			t.Errorf("Serve = %v", err)
		}
		if took := time.Since(start); took < time.Minute || took > 80*time.Second {
			t.Errorf("the lease of a minute was lost after %s", took)
		}
		if p.acked.Load()+p.retried.Load()+p.buried.Load() != 0 {
			t.Error("a command that another worker may have begun was settled")
		}
	})
}
