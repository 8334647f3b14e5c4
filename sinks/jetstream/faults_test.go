package jetstream_test

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/listeners"
	"github.com/rowcall/rowcall/sinks/jetstream"
)

// A wire is a dialer whose connections lose acknowledgements and break on
// demand.
type wire struct {
	stream string       // whose acknowledgements get lost; "" for CDC_SHOP
	lose   atomic.Int64 // acknowledgements still to be lost
	away   atomic.Bool  // there is no new connection

	mu   sync.Mutex
	open net.Conn
}

func (w *wire) Dial(network, address string) (net.Conn, error) {
	if w.away.Load() {
		return nil, net.ErrClosed
	}
	conn, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = conn
	return &filtered{Conn: conn, wire: w, in: bufio.NewReader(conn)}, nil
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != nil {
		w.open.Close()
	}
}

func (w *wire) kill() {
	w.away.Store(true)
	w.cut()
}

// filtered passes on what the server says, operation by operation.
type filtered struct {
	net.Conn
	wire *wire
	in   *bufio.Reader
	left bytes.Buffer
}

func (c *filtered) Read(p []byte) (int, error) {
	for c.left.Len() == 0 {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		fields := bytes.Fields(line)
		if len(fields) < 4 || string(fields[0]) != "MSG" && string(fields[0]) != "HMSG" {
			c.left.Write(line)
			break
		}
		size, err := strconv.Atoi(string(fields[len(fields)-1]))
		if err != nil {
			return 0, err
		}
		body := make([]byte, size+2)
		if _, err := io.ReadFull(c.in, body); err != nil {
			return 0, err
		}
		if acknowledges(body, cmp.Or(c.wire.stream, "CDC_SHOP")) && c.wire.lose.Add(-1) >= 0 {
			continue
		}
		c.left.Write(line)
		c.left.Write(body)
	}
	return c.left.Read(p)
}

// acknowledges reports whether a body is the answer to a publish, or to some of a
// batch.
func acknowledges(body []byte, stream string) bool {
	// Servers before 2.11 have a space before the second name.
	return bytes.HasPrefix(body, []byte(`{"stream":"`+stream+`","seq":`)) || bytes.HasPrefix(body, []byte(`{"stream":"`+stream+`", "seq":`)) ||
		bytes.HasPrefix(body, []byte(`{"type":"ack","seq":`))
}

// chaos stores a history while fault is called at random moments.
func chaos(t *testing.T, nc *nats.Conn, opts *jetstream.Options, seed uint64, faults int, fault func()) {
	t.Helper()
	r := random(t, seed)
	f := openAnew(t, nc, opts)
	batches := history(r, 300*faults)
	moments := make(map[int]bool)
	for len(moments) < faults {
		moments[r.IntN(len(batches))] = true
	}
	trigger, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		delays := rand.New(rand.NewPCG(seed, 1))
		for range trigger {
			wait := time.NewTimer(time.Duration(delays.IntN(3_000)) * time.Microsecond)
			<-wait.C
			fault()
		}
	})
	err := func() error {
		for i, b := range batches {
			if moments[i] {
				trigger <- struct{}{} // waits for the last fault to be over
			}
			if err := feed(t.Context(), f, batches[i:i+1]); err != nil {
				return fmt.Errorf("%s: %w", b.Position, err)
			}
		}
		return nil
	}()
	close(trigger)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	flush(t, f)
	if last := batches[len(batches)-1].Position; f.Stored().Compare(last) < 0 {
		t.Errorf("Stored = %s, want %s at least", f.Stored(), last)
	}
	verify(t, nc, batches)
}

// A connection that buffers while it has no server, as it does by default.
func TestConnectionThatBuffers(t *testing.T) {
	t.Parallel()
	w := new(wire)
	nc := connect(t, natstest.Run(t), nats.SetCustomDialer(w), nats.ReconnectBufSize(nats.DefaultReconnectBufSize))
	chaos(t, nc, &jetstream.Options{MaxPending: 256}, 30, 40, w.cut)
}

// The last acknowledgements are lost, and nothing follows: only Stalled says
// that something is amiss.
func TestStalledWithoutFurtherBatches(t *testing.T) {
	t.Parallel()
	w := new(wire)
	nc := connect(t, natstest.Run(t), nats.SetCustomDialer(w))
	f := openAnew(t, nc, &jetstream.Options{AckTimeout: 2 * time.Second})
	w.lose.Store(3)
	b := transaction(1, 3)
	if err := f.OnBatch(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case <-f.Stalled():
	case <-timeout.C:
		t.Fatal("Stalled did not receive within a minute")
	}
	if got := f.Stored(); !got.IsZero() {
		t.Errorf("Stored without acknowledgements = %s, want zero", got)
	}
	flush(t, f)
	if got := f.Stored(); got != b.Position {
		t.Errorf("Stored after Flush = %s, want %s", got, b.Position)
	}
	verify(t, nc, []*listeners.Batch{b})
}
