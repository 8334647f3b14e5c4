package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const host = "127.0.0.1"

// ErrPortTaken is wrapped by the error of [Start] when another process listens on
// the port.
var ErrPortTaken = errors.New("port is taken")

// Server is a running NATS server. Its methods may be called from several
// goroutines.
type Server struct {
	nats *server.Server
	url  string
	port int

	mu   sync.Mutex
	lock *dirLock // nil once stopped
}

// Start opens the store and listens. When it returns without an error, clients
// can connect and use JetStream, and the caller has to call [Server.Stop].
//
// The server recovers the streams that it finds in the directory, which takes
// time with a large store and is not interrupted when ctx ends; Start then
// returns the cause afterwards. An error wraps [ErrPortTaken] or [ErrDirInUse]
// where that is what is wrong, and says what to do. Nothing runs after an error.
func Start(ctx context.Context, opts *Options) (_ *Server, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	// The store may take long to recover; say before that if it is in vain.
	if err := probePort(ctx, o.Port); err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	defer func() {
		if err != nil {
			lock.release()
		}
	}()

	port := o.Port
	if port == 0 {
		port = server.RANDOM_PORT // to the server, 0 means 4222
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: "rowcall",
		Host:       host,
		Port:       port,
		MaxPayload: o.MaxPayload,
		JetStream:  true,
		StoreDir:   o.Dir,
		SyncAlways: o.SyncAlways,
		NoSigs:     true,
		NoLog:      true, // no logger of its own; ours is set below
	})
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	log := &logger{to: o.Logger}
	ns.SetLoggerV2(log, o.Logger.Enabled(ctx, slog.LevelDebug), false, false)

	ns.Start()
	switch {
	case log.fatal.Load() != nil:
		err = explain(*log.fatal.Load(), o)
	case context.Cause(ctx) != nil:
		err = context.Cause(ctx)
	case !ns.ReadyForConnections(10 * time.Second):
		err = errors.New("the server does not accept connections after 10s")
	}
	if err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	addr, ok := ns.Addr().(*net.TCPAddr)
	if !ok {
		ns.Shutdown()
		ns.WaitForShutdown()
		return nil, fmt.Errorf("start NATS: it listens on %v, which is no TCP address", ns.Addr())
	}
	return &Server{nats: ns, url: ns.ClientURL(), port: addr.Port, lock: lock}, nil
}

// probePort reports whether the port can be had, for a better error than the
// server's and an earlier one.
func probePort(ctx context.Context, port int) error {
	if port == 0 {
		return nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return portTaken(port)
	case err != nil:
		return err
	}
	return l.Close()
}

func portTaken(port int) error {
	return fmt.Errorf("port %d is taken by another process, maybe another NATS server: "+
		"use that one with --nats-url nats://%s:%d, or choose another port with --nats-port (%w)", port, host, port, ErrPortTaken)
}

// URL returns the address for clients, such as nats://127.0.0.1:4222.
func (s *Server) URL() string { return s.url }

// Port returns the TCP port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// InProcessConn connects a client of this process without TCP. It is there for
// [nats.InProcessServer]; after Stop it returns an error.
func (s *Server) InProcessConn() (net.Conn, error) {
	conn, err := s.nats.InProcessConn()
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return conn, nil
}

// Stop disconnects all clients, writes what is unwritten and waits until the
// server is gone and the store is free for another one. A second call waits for
// the first.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return
	}
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	s.lock.release()
	s.lock = nil
}
