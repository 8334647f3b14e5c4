package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// Workers come and go under load, with one attempt for each command: what a
// worker has taken when it is told to stop is neither a dead letter nor lying
// somewhere until its lease is over.
func TestStoppingWorkersLoseNoAttempt(t *testing.T) {
	t.Parallel()
	const commands = 1500
	c := newCommands(t, connect(t, natstest.Run(t)), &jetstream.CommandOptions{AckTimeout: time.Minute}) // it is given what time it needs
	if err := c.SendAll(t.Context(), benchCommands(commands)); err != nil {
		t.Fatal(err)
	}
	var done atomic.Int64
	within, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for round := 0; done.Load() < commands && within.Err() == nil; round++ {
		ctx, stop := context.WithCancel(within)
		until := done.Load() + int64(round%40) + 1
		err := c.Serve(ctx, "fleet", func(context.Context, *sinks.Received) error {
			if n := done.Add(1); n == until || n == commands {
				stop()
			}
			return nil
		}, &sinks.ServePolicy{MaxAttempts: 1, Concurrency: 200, Lease: time.Hour})
		stop()
		if err != nil {
			t.Fatal(err)
		}
	}
	for d, err := range c.Dead(t.Context(), "fleet") {
		t.Errorf("dead letter %+v, %v", d.Dead, err)
		break
	}
	if n := done.Load(); n != commands {
		t.Errorf("%d commands were carried out within 3 minutes, want %d", n, commands)
	}
}

// While a long command ends, those that its worker has room for are for others.
func TestDrainingWorkerHoldsNothingBack(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	c := newCommands(t, nc, &jetstream.CommandOptions{AckTimeout: time.Minute})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun, release := make(chan struct{}), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- c.Serve(ctx, "fleet", func(context.Context, *sinks.Received) error {
			stop() // the worker is about to ask for more
			close(begun)
			<-release
			return nil
		}, &sinks.ServePolicy{Concurrency: 8, Lease: time.Hour, DrainTimeout: time.Hour})
	}()
	if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage", ID: "long"}); err != nil {
		t.Fatal(err)
	}
	<-begun
	other := newCommands(t, nc, nil)
	if err := other.SendAll(t.Context(), benchCommands(20)); err != nil {
		t.Fatal(err)
	}
	var done atomic.Int64
	serveWhile(t, other, func(context.Context, *sinks.Received) error {
		done.Add(1)
		return nil
	}, &sinks.ServePolicy{Lease: time.Hour}, func() {
		eventually(t, "20 commands beside a worker that drains", func() bool { return done.Load() == 20 })
	})
	close(release)
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

// The server is there, and nothing gets through: no connection breaks.
func TestSilentServerEndsTheLease(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	w := new(mutableWire)
	nc, err := jetstream.Connect(s.URL(), &jetstream.ConnectOptions{Nats: natsDialer(w)})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := newCommands(t, nc, &jetstream.CommandOptions{AckTimeout: time.Second})
	ended := make(chan error, 10)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- c.Serve(ctx, "fleet", func(ctx context.Context, _ *sinks.Received) error {
			w.mute()
			timeout := time.NewTimer(time.Minute)
			defer timeout.Stop()
			select {
			case <-timeout.C:
				ended <- errors.New("nothing within a minute")
			case <-ctx.Done():
				ended <- context.Cause(ctx)
			}
			return ctx.Err()
		}, &sinks.ServePolicy{Lease: time.Second})
	}()
	if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage"}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, sinks.ErrLeaseLost) {
		t.Errorf("the handler's context ended with %v, want ErrLeaseLost", err)
	}
	// It does not keep Serve from ending either.
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if s := c.Stats(); s.LeasesLost == 0 {
		t.Errorf("Stats = %+v, want a lease lost", s)
	}
}

// Nobody waits for a connection that was closed for good.
func TestServeEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Run(t))
	c := newCommands(t, nc, nil)
	if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage"}); err != nil {
		t.Fatal(err)
	}
	err := c.Serve(t.Context(), "fleet", func(context.Context, *sinks.Received) error {
		nc.Close()
		return nil
	}, &sinks.ServePolicy{Lease: time.Hour})
	if !errors.Is(err, sinks.ErrCommandsClosed) || !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Serve = %v, want ErrCommandsClosed and why", err)
	}
	if err := c.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage"}); !errors.Is(err, sinks.ErrCommandsClosed) {
		t.Errorf("Send = %v, want ErrCommandsClosed", err)
	}
}

// A mutableWire is a dialer whose connections can stop to carry anything.
type mutableWire struct{ muted atomic.Bool }

func (w *mutableWire) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return &mutableConn{Conn: conn, wire: w, closed: make(chan struct{})}, nil
}

func (w *mutableWire) mute() { w.muted.Store(true) }

type mutableConn struct {
	net.Conn
	wire   *mutableWire
	once   sync.Once
	closed chan struct{}
}

func (c *mutableConn) Write(p []byte) (int, error) {
	if c.wire.muted.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *mutableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.wire.muted.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *mutableConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
