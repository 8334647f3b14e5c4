package jetstream_test

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

func TestCommands(t *testing.T) { sinktest.Commands(t, commandServer) }

// commandServer starts a server that can be restarted.
func commandServer(t testing.TB) sinktest.CommandServer {
	opts := &natsserver.Options{Dir: t.TempDir(), MaxPayload: 64 << 10}
	s, err := natsserver.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		s.Stop()
	})
	url, port := s.URL(), s.Port()
	client := func(t testing.TB, o *jetstream.CommandOptions) *sinktest.CommandClient {
		t.Helper()
		w := new(commandWire)
		nc, err := jetstream.Connect(url, &jetstream.ConnectOptions{
			ReconnectWait: 10 * time.Millisecond, Nats: natsDialer(w),
		})
		if err != nil {
			t.Fatalf("Connect: %v", err)
		}
		t.Cleanup(nc.Close)
		b, err := jetstream.NewCommandBroker(nc, o)
		if err != nil {
			t.Fatalf("NewCommandBroker: %v", err)
		}
		return &sinktest.CommandClient{
			Broker: b, Cut: w.cut, LoseAcks: func(n int) { w.lose.Store(int64(n)) },
			Kill: func() {
				w.dead.Store(true) // nothing is flushed
				w.cut()
				nc.Close()
			},
		}
	}
	quick := jetstream.CommandOptions{AckTimeout: time.Second}
	return sinktest.CommandServer{
		Connect: func(t testing.TB) *sinktest.CommandClient { return client(t, &quick) },
		Restart: func(t testing.TB) {
			mu.Lock()
			defer mu.Unlock()
			s.Stop()
			next, err := natsserver.Start(t.Context(), &natsserver.Options{Dir: opts.Dir, Port: port, MaxPayload: opts.MaxPayload})
			if err != nil {
				t.Errorf("restart: %v", err)
				return
			}
			s = next
		},
		Bounded: func(t testing.TB, n int) *sinktest.CommandClient {
			return client(t, &jetstream.CommandOptions{MaxMessages: int64(n)})
		},
		Misconfigure: func(t testing.TB, queue string) {
			createCommandStream(t, url, natsjs.StreamConfig{Name: jetstream.CommandStream(queue), Subjects: []string{"cmd." + queue + ".>"}})
		},
		MaxMessage: 64 << 10,
	}
}

func createCommandStream(t testing.TB, url string, config natsjs.StreamConfig) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatalf("CreateStream(%s): %v", config.Name, err)
	}
}

// A commandWire is a dialer whose connections lose confirmations of what was
// sent, and break on demand.
type commandWire struct {
	lose atomic.Int64
	dead atomic.Bool
	// prefix is what the answers that are lost begin with. Default: those to
	// commands.
	prefix string

	mu   sync.Mutex
	open net.Conn
}

func natsDialer(d nats.CustomDialer) []nats.Option { return []nats.Option{nats.SetCustomDialer(d)} }

func (w *commandWire) Dial(network, address string) (net.Conn, error) {
	if w.dead.Load() {
		return nil, net.ErrClosed
	}
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = conn
	return &commandConn{Conn: conn, wire: w, in: bufio.NewReader(conn)}, nil
}

func (w *commandWire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != nil {
		w.open.Close()
	}
}

// commandConn passes on what the server says, operation by operation.
type commandConn struct {
	net.Conn
	wire *commandWire
	in   *bufio.Reader
	left bytes.Buffer
}

func (c *commandConn) Read(p []byte) (int, error) {
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
		if bytes.HasPrefix(body, []byte(cmp.Or(c.wire.prefix, `{"stream":"CMD_FLEET","seq":`))) && c.wire.lose.Add(-1) >= 0 {
			continue
		}
		c.left.Write(line)
		c.left.Write(body)
	}
	return c.left.Read(p)
}
