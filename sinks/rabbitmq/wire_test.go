package rabbitmq_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A wire is a dialer whose connections break on demand, and lose confirmations
// of what was published.
type wire struct {
	lose atomic.Int64 // confirmations
	gets atomic.Int64 // messages that were fetched one by one
	ends atomic.Int64 // consumers that were cancelled
	dead atomic.Bool

	mu   sync.Mutex
	open []net.Conn
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if w.dead.Load() {
		return nil, net.ErrClosed
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, conn)
	return &wireConn{Conn: conn, wire: w, in: bufio.NewReader(conn)}, nil
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.open {
		conn.Close()
	}
	w.open = nil
}

// wireConn passes on what the server says, frame by frame.
type wireConn struct {
	net.Conn
	wire *wire
	in   *bufio.Reader
	left bytes.Buffer
}

func (c *wireConn) Read(p []byte) (int, error) {
	for c.left.Len() == 0 {
		// A frame is its type, its channel, its size, so many bytes, and an end.
		head := make([]byte, 7)
		if _, err := io.ReadFull(c.in, head); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(c.in, body); err != nil {
			return 0, err
		}
		// From a server, the method basic.ack (60, 80) is a confirmation.
		if head[0] == 1 && bytes.HasPrefix(body, []byte{0, 60, 0, 80}) && c.wire.lose.Load() > 0 {
			c.wire.lose.Add(-1)
			continue
		}
		if head[0] == 1 && bytes.HasPrefix(body, []byte{0, 60, 0, 71}) { // basic.get-ok
			c.wire.gets.Add(1)
		}
		if head[0] == 1 && bytes.HasPrefix(body, []byte{0, 60, 0, 31}) { // basic.cancel-ok
			c.wire.ends.Add(1)
		}
		c.left.Write(head)
		c.left.Write(body)
	}
	return c.left.Read(p)
}
