package natstest

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"

	"github.com/rowcall/rowcall/internal/child"
	"github.com/rowcall/rowcall/internal/natsserver"
)

// BinVariable names the environment variable with the path of a nats-server
// binary, such as an older version. Where it is set, the servers of this package
// are processes of that rather than embedded.
const BinVariable = "ROWCALL_NATS_BIN"

// A Server is a running NATS server. Its methods may be called from several
// goroutines.
type Server struct {
	embedded *natsserver.Server // nil: it is a process
	port     int
	child    *child.Process
	stop     sync.Once
}

// Start starts a server for a test, as [natsserver.Start] does. The caller has to call
// [Server.Stop].
func Start(ctx context.Context, opts *natsserver.Options) (*Server, error) {
	if bin := os.Getenv(BinVariable); bin != "" {
		return startProcess(ctx, bin, opts)
	}
	s, err := natsserver.Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &Server{embedded: s, port: s.Port()}, nil
}

// URL returns the address for clients.
func (s *Server) URL() string {
	if s.embedded != nil {
		return s.embedded.URL()
	}
	return natsURL(s.port)
}

// Port returns the TCP port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// InProcessConn connects without TCP to a server that is embedded. To another it
// is an error.
func (s *Server) InProcessConn() (net.Conn, error) {
	if s.embedded == nil {
		return nil, errors.New("the server is another process; unset " + BinVariable)
	}
	return s.embedded.InProcessConn()
}

// Stop stops the server as [natsserver.Server.Stop] does, and waits until the store is free.
func (s *Server) Stop() {
	if s.embedded != nil {
		s.embedded.Stop()
		return
	}
	s.stop.Do(s.end)
}
