package natstest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
)

// Run starts a server on a free port, with its store in a directory of the test,
// and stops it at the test's end.
func Run(t testing.TB) *Server {
	t.Helper()
	return RunWith(t, nil)
}

// RunWith is Run with options; an empty Dir means a directory of the test.
//
// A test that restarts its server keeps Dir, takes Port from the first server,
// stops it and calls RunWith again. Stopping a server early is fine.
func RunWith(t testing.TB, opts *natsserver.Options) *Server {
	t.Helper()
	var o natsserver.Options
	if opts != nil {
		o = *opts
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	given := o.Port != 0
	if !given {
		o.Port = Port(t)
	}
	s, err := Start(t.Context(), &o)
	for tries := 0; !given && errors.Is(err, natsserver.ErrPortTaken) && tries < 10; tries++ {
		o.Port = Port(t) // somebody was faster
		s, err = Start(t.Context(), &o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Port returns a free port for a server that is to listen later, or again. It is below
// those that systems hand out by themselves: one of these may be anybody's
// outgoing connection while the server is stopped.
func Port(t testing.TB) int {
	t.Helper()
	const lowest, highest, tries = 15_000, 32_000, 1000
	var config net.ListenConfig
	for range tries {
		port := lowest + rand.IntN(highest-lowest)
		l, err := config.Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatalf("no port between %d and %d is free", lowest, highest)
	return 0
}

// Connect opens a connection over TCP and closes it at the test's end.
func Connect(t testing.TB, s *Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL(), opts...)
	if err != nil {
		t.Fatalf("connect to %s: %v", s.URL(), err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// JetStream opens a connection like Connect and returns its JetStream.
func JetStream(t testing.TB, s *Server, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(Connect(t, s, opts...))
	if err != nil {
		t.Fatalf("JetStream on %s: %v", s.URL(), err)
	}
	return js
}
