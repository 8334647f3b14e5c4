package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rowcall/rowcall/sinks"
)

const (
	defaultTimeout   = 5 * time.Second
	defaultHeartbeat = 10 * time.Second
)

// ConnectOptions set up a [Connector]. Nil and zero mean the defaults.
type ConnectOptions struct {
	// Name is what the server's monitoring shows. Default "rowcall".
	Name string
	// TLS is used for amqps:// URLs. Default: the system's roots, and the
	// URL's host as the server's name.
	TLS *tls.Config
	// Timeout bounds each attempt to connect, and each write to a server that
	// does not read. Default 5s.
	Timeout time.Duration
	// Heartbeat is how often both sides say that they are there: a server or
	// worker that vanishes without a word is noticed after two to three of
	// them. Default 10s.
	Heartbeat time.Duration
	// Dial makes the network connection, under TLS. Default: [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Connector connects to a RabbitMQ server, again whenever a connection is
// lost, and is shared by what works over it. It has up to two connections: one
// to publish and one for all else, since a server that runs out of memory or
// disk stops reading from connections that publish, and acknowledgements must
// not wait behind that. Its methods may be called concurrently.
type Connector struct {
	url    string // with the password
	server string // for people
	opts   ConnectOptions

	publishing slot
	other      slot
	// locks are held in this process before the server's, which hold between
	// connections only.
	locks sync.Map // of string to chan struct{}

	accepted atomic.Bool // the server has let us in once
	closed   atomic.Bool
	wg       sync.WaitGroup
}

// A slot is one connection, made when it is needed.
type slot struct {
	purpose string
	turn    chan struct{} // holds one while the connection is looked at or made
	conn    *amqp.Connection
	blocked atomic.Pointer[string] // why the server takes nothing at the moment
}

// An UnreachableError says which server did not answer, or refused. It holds
// no credentials.
type UnreachableError struct {
	Server string // host:port/vhost
	Err    error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("RabbitMQ is not reachable at %s: %v", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// NewConnector starts nothing and talks to nobody; connections are made when
// they are needed. Whoever calls it closes it, after what works over it. The URL
// is
//
//	amqp[s]://[user[:password]@]host[:port][/vhost]
//
// with the user guest, port 5672 (amqps: 5671) and vhost "/" as defaults. The
// error never shows the password.
func NewConnector(serverURL string, opts *ConnectOptions) (*Connector, error) {
	var o ConnectOptions
	if opts != nil {
		o = *opts
	}
	if o.Name == "" {
		o.Name = "rowcall"
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = defaultHeartbeat
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	var faults []error
	u, err := url.Parse(serverURL)
	switch {
	case err != nil: // the error quotes the URL
		faults = append(faults, errors.New("the URL is not one: amqp://user:password@host:port/vhost"))
	case u.Scheme != "amqp" && u.Scheme != "amqps":
		faults = append(faults, fmt.Errorf("the URL's scheme is %q, want amqp or amqps", u.Scheme))
	case strings.Contains(u.EscapedPath(), "@"): // what goes on behind a / in a password would be a vhost, which is shown
		faults = append(faults, errors.New("the URL has a user or a password with characters that must be percent-encoded, or a vhost with an @, which is %40"))
	}
	if o.Timeout < 0 || o.Heartbeat < time.Second {
		faults = append(faults, fmt.Errorf("the Timeout %s must not be negative, nor the Heartbeat %s less than a second", o.Timeout, o.Heartbeat))
	}
	c := &Connector{
		url: serverURL, opts: o,
		publishing: slot{purpose: "publish", turn: make(chan struct{}, 1)}, other: slot{purpose: "consume", turn: make(chan struct{}, 1)},
	}
	if len(faults) == 0 {
		parsed, err := amqp.ParseURI(serverURL)
		if err != nil {
			faults = append(faults, errors.New("the URL is not one: amqp://user:password@host:port/vhost"))
		}
		c.server = fmt.Sprintf("%s/%s", net.JoinHostPort(parsed.Host, fmt.Sprint(parsed.Port)), strings.TrimPrefix(parsed.Vhost, "/"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("rabbitmq: %w", err)
	}
	return c, nil
}

// Server returns the server's address and vhost, without user and password.
func (c *Connector) Server() string { return c.server }

// Ping connects, unless that was done, and returns an [UnreachableError] if it
// fails.
func (c *Connector) Ping(ctx context.Context) error {
	_, err := c.connection(ctx, &c.other)
	return err
}

// version returns what the server says is its version, "" if it does not.
func (c *Connector) version(ctx context.Context) string {
	conn, err := c.connection(ctx, &c.other)
	if err != nil {
		return ""
	}
	version, _ := conn.Properties["version"].(string)
	return version
}

// Close closes the connections and waits for what served them.
func (c *Connector) Close() {
	c.closed.Store(true)
	for _, s := range []*slot{&c.publishing, &c.other} {
		s.turn <- struct{}{}
		if s.conn != nil {
			_ = s.conn.CloseDeadline(time.Now().Add(c.opts.Timeout))
		}
		<-s.turn
	}
	c.wg.Wait()
}

// connection returns a slot's connection and makes it if there is none.
func (c *Connector) connection(ctx context.Context, s *slot) (*amqp.Connection, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	if c.closed.Load() {
		return nil, sinks.ErrCommandsClosed
	}
	if s.conn != nil && !s.conn.IsClosed() {
		return s.conn, nil
	}
	conn, err := c.logIn(ctx, s.purpose)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, &UnreachableError{Server: c.server, Err: err}
	}
	s.blocked.Store(nil)
	alarms := conn.NotifyBlocked(make(chan amqp.Blocking))
	c.wg.Go(func() {
		var mine *string
		for alarm := range alarms { // closed with the connection
			if mine = nil; alarm.Active {
				mine = &alarm.Reason
			}
			s.blocked.Store(mine)
		}
		// The end of an alarm is not told to a connection that is gone: the next
		// one hears of it again if it is still on.
		if mine != nil {
			s.blocked.CompareAndSwap(mine, nil)
		}
	})
	s.conn = conn
	return conn, nil
}

// silence is less than what a server waits before it ends the connection of
// somebody whom it does not know (rabbit_reader, SILENT_CLOSE_DELAY: 3 seconds).
const silence = 2 * time.Second

// logIn dials, and says that user and password are wrong only if that is likely.
// A server that refuses them ends the connection without a word, as one does
// that is killed at that moment, and the library takes the one for the other.
// A vhost is refused with words.
func (c *Connector) logIn(ctx context.Context, purpose string) (*amqp.Connection, error) {
	began := time.Now()
	conn, err := c.dial(ctx, purpose)
	switch {
	case err == nil:
		c.accepted.Store(true)
	case errors.Is(err, amqp.ErrCredentials) && (c.accepted.Load() || time.Since(began) < silence):
		err = errors.New("the connection ended at the login, as it does if the server does not know the user or the password")
	case errors.Is(err, amqp.ErrVhost):
		err = errors.New("the connection ended at the login")
	}
	return conn, err
}

func (c *Connector) dial(ctx context.Context, purpose string) (*amqp.Connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.opts.Timeout, fmt.Errorf("no connection within %s: %w", c.opts.Timeout, context.DeadlineExceeded))
	defer cancel()
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(c.opts.Name + " (" + purpose + ")")
	var stop func() bool
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	return amqp.DialConfig(c.url, amqp.Config{
		Heartbeat:       c.opts.Heartbeat,
		TLSClientConfig: c.opts.TLS.Clone(),
		Properties:      properties,
		Dial: func(network, address string) (net.Conn, error) {
			conn, err := c.opts.Dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			// Until the handshake is through. The library knows no context.
			stop = context.AfterFunc(ctx, func() { conn.Close() })
			return &boundedWriter{Conn: conn, timeout: c.opts.Timeout}, nil
		},
	})
}

// A boundedWriter gives up a server that does not read: without it a write
// waits as long as the server says that it is alive.
type boundedWriter struct {
	net.Conn
	timeout time.Duration
}

func (w *boundedWriter) Write(p []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// channel opens a channel, on which the caller closes.
func (c *Connector) channel(ctx context.Context, s *slot) (*amqp.Channel, error) {
	conn, err := c.connection(ctx, s)
	if err != nil {
		return nil, err
	}
	var ch *amqp.Channel
	over := make(chan struct{})
	if err := c.await(ctx, func() (err error) {
		defer close(over)
		ch, err = conn.Channel()
		return err
	}); err != nil {
		c.wg.Go(func() { // it may open all the same when it was given up
			if <-over; ch != nil {
				ch.Close()
			}
		})
		return nil, fmt.Errorf("open a channel at %s: %w", c.server, err)
	}
	return ch, nil
}

// await runs a call that knows no context. When ctx ends, the call is left to
// itself: it ends with its connection at the latest, and Close waits for it.
func (c *Connector) await(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	c.wg.Go(func() { done <- call() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// setUp runs the first calls of a channel. When they fail or are given up, the
// channel is closed behind them: what they have begun there must not go on.
func (c *Connector) setUp(ctx context.Context, ch *amqp.Channel, calls func() error) error {
	over := make(chan struct{})
	err := c.await(ctx, func() error {
		defer close(over)
		return calls()
	})
	if err != nil {
		c.wg.Go(func() {
			<-over
			ch.Close()
		})
	}
	return err
}

// withChannel runs a few calls on a channel of its own, which is closed behind
// them. What do sets must not be looked at after an error.
func (c *Connector) withChannel(ctx context.Context, do func(*amqp.Channel) error) error {
	conn, err := c.connection(ctx, &c.other)
	if err != nil {
		return err
	}
	return c.await(ctx, func() error {
		ch, err := conn.Channel()
		if err != nil {
			return fmt.Errorf("open a channel at %s: %w", c.server, err)
		}
		defer ch.Close()
		return do(ch)
	})
}
