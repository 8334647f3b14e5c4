package natstest

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
)

// Run starts a server on a free port, with its store in a directory of the test,
// and stops it at the test's end.
func Run(t testing.TB) *natsserver.Server {
	t.Helper()
	return RunWith(t, nil)
}

// RunWith is Run with options; an empty Dir means a directory of the test.
//
// A test that restarts its server keeps Dir, takes Port from the first server,
// stops it and calls RunWith again. Stopping a server early is fine.
func RunWith(t testing.TB, opts *natsserver.Options) *natsserver.Server {
	t.Helper()
	var o natsserver.Options
	if opts != nil {
		o = *opts
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := natsserver.Start(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Connect opens a connection over TCP and closes it at the test's end.
func Connect(t testing.TB, s *natsserver.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL(), opts...)
	if err != nil {
		t.Fatalf("connect to %s: %v", s.URL(), err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// JetStream opens a connection like Connect and returns its JetStream.
func JetStream(t testing.TB, s *natsserver.Server, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(Connect(t, s, opts...))
	if err != nil {
		t.Fatalf("JetStream on %s: %v", s.URL(), err)
	}
	return js
}
