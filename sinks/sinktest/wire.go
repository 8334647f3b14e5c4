package sinktest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// A Wire makes connections that can be frozen and cut. The zero Wire is ready for
// use.
type Wire struct {
	mu     sync.Mutex
	dead   bool
	frozen chan struct{} // closed by Thaw; nil unless frozen
	open   map[*wireConn]struct{}
}

var errWireDead = errors.New("the process was killed")

// Dial connects.
func (w *Wire) Dial(network, address string) (net.Conn, error) {
	return w.DialContext(context.Background(), network, address)
}

// DialContext connects.
func (w *Wire) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	frozen, dead := w.frozen, w.dead
	w.mu.Unlock()
	if dead {
		return nil, errWireDead
	}
	if frozen != nil {
		timeout := time.NewTimer(time.Second)
		defer timeout.Stop()
		select {
		case <-frozen:
		case <-timeout.C:
			return nil, errors.New("timeout")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &wireConn{Conn: conn, wire: w, closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		conn.Close()
		return nil, errWireDead
	}
	if w.open == nil {
		w.open = make(map[*wireConn]struct{})
	}
	w.open[c] = struct{}{}
	return c, nil
}

// Kill cuts all connections, without a word to the broker, and lets no new one
// be made.
func (w *Wire) Kill() {
	w.mu.Lock()
	w.dead = true
	open := w.open
	w.open = nil
	w.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}

// Cut breaks all connections.
func (w *Wire) Cut() {
	w.mu.Lock()
	open := w.open
	w.open = nil
	w.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}

// Freeze holds back everything, in both directions, until Thaw.
func (w *Wire) Freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen == nil {
		w.frozen = make(chan struct{})
	}
}

// Thaw lets what was held back arrive.
func (w *Wire) Thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen == nil {
		return
	}
	for c := range w.open {
		_, _ = c.Conn.Write(c.held) // a broken one is found by its reader
		c.held = nil
	}
	close(w.frozen)
	w.frozen = nil
}

type wireConn struct {
	net.Conn
	wire   *Wire
	held   []byte // guarded by wire.mu
	once   sync.Once
	closed chan struct{}
}

func (c *wireConn) Write(p []byte) (int, error) {
	c.wire.mu.Lock()
	if c.wire.frozen != nil {
		c.held = append(c.held, p...)
		c.wire.mu.Unlock()
		return len(p), nil
	}
	c.wire.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.mu.Lock()
	frozen := c.wire.frozen
	c.wire.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-c.closed:
		}
	}
	return n, err
}

func (c *wireConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
