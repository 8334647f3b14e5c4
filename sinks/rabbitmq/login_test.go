package rabbitmq_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/internal/rabbitserver/rabbittest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/rabbitmq"
)

// loginCutter ends so many connections before a write of the handshake: 2 is the
// answer with user and password, 4 the one with the vhost.
type loginCutter struct {
	before int
	cuts   atomic.Int64
}

func (l *loginCutter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil || l.cuts.Add(-1) < 0 {
		return conn, err
	}
	return &cutAtWrite{Conn: conn, left: l.before}, nil
}

type cutAtWrite struct {
	net.Conn
	left int // the handshake writes from one goroutine at a time
}

func (c *cutAtWrite) Write(p []byte) (int, error) {
	if c.left--; c.left == 0 {
		c.Conn.Close()
	}
	return c.Conn.Write(p)
}

// A connection that ends at the login is tried again. It does not say that the
// password is wrong.
func TestConnectionThatEndsAtTheLogin(t *testing.T) {
	t.Parallel()
	s := rabbittest.Server(t)
	for name, tc := range map[string]struct {
		before int
		first  bool // the cut is at the very first connection
	}{
		"user": {2, false}, "user, the first one": {2, true}, "vhost": {4, false}, "vhost, the first one": {4, true},
	} {
		t.Run(name, func(t *testing.T) {
			cutter := &loginCutter{before: tc.before}
			c, err := rabbitmq.NewConnector(s.URL(), &rabbitmq.ConnectOptions{Dial: cutter.dial})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			b, err := rabbitmq.NewCommandBroker(c, &rabbitmq.CommandOptions{Prefix: prefix(t, s)})
			if err != nil {
				t.Fatal(err)
			}
			commands, err := sinks.NewCommands(b, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer commands.Close()
			if !tc.first {
				if err := c.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			// The connection that publishes is another one than that of Ping.
			cutter.cuts.Store(1)
			if err := commands.Send(t.Context(), sinks.Command{Queue: "fleet", Name: "add-carriage"}); err != nil {
				t.Errorf("Send = %v, want nil: it tries again", err)
			}
			if n := cutter.cuts.Load(); n > 0 {
				t.Error("no connection was cut")
			}
		})
	}
}

// A password that was right a moment ago is no reason to give up at once.
func TestLoginThatIsRefusedLaterMayPass(t *testing.T) {
	t.Parallel()
	s := rabbittest.Server(t)
	cutter := &loginCutter{before: 2}
	c, err := rabbitmq.NewConnector(s.URL(), &rabbitmq.ConnectOptions{Dial: cutter.dial})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := rabbitmq.NewCommandBroker(c, &rabbitmq.CommandOptions{Prefix: prefix(t, s)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cutter.cuts.Store(1 << 20)
	errs := b.Publish(t.Context(), []sinks.CommandEnvelope{{Command: sinks.Command{Queue: "fleet", Name: "add-carriage", ID: "1"}}})
	var unreachable *rabbitmq.UnreachableError
	var final *sinks.QueueError
	if err := errors.Join(errs...); !errors.As(err, &unreachable) || errors.As(err, &final) || errors.Is(err, amqp.ErrCredentials) {
		t.Errorf("Publish = %v, want an UnreachableError that may pass", err)
	}
}
