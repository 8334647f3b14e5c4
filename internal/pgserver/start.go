package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// logLinesInError is how much of the server's log an error quotes.
const logLinesInError = 15

// Start creates a cluster and starts it. When it returns without an error the
// cluster accepts connections, and the caller has to call [Server.Stop].
//
// ctx bounds the start only; the cluster lives on when it ends. An error of the
// server quotes the end of its log. Nothing is left behind on error.
func Start(ctx context.Context, opts *Options) (_ *Server, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s := &Server{opts: o, port: o.Port}
	if s.as, err = unprivileged(); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := s.as.reaches(o.BinDir); err != nil {
		return nil, fmt.Errorf("start PostgreSQL from %s: %w", o.BinDir, err)
	}
	if s.version, err = majorVersion(ctx, o.BinDir); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if s.layout, err = newLayout(&o, s.as); err != nil {
		return nil, fmt.Errorf("start PostgreSQL %d: %w", s.version, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start PostgreSQL %d from %s: %w", s.version, o.BinDir, err), s.layout.remove())
		}
	}()
	if err := s.initdb(ctx); err != nil {
		return nil, err
	}
	if err := s.firstStart(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// firstStart finds a port where none was asked for: another process may take a
// port between the moment it was free and the moment postgres binds it.
func (s *Server) firstStart(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		if s.opts.Port == 0 {
			s.port = freePort(ctx)
		}
		if err := s.configure(); err != nil {
			return err
		}
		err := s.resume(ctx)
		taken := err != nil && strings.Contains(logTail(s.layout.log, logLinesInError), "Address already in use")
		switch {
		case err == nil:
			return nil
		case taken && s.opts.Port != 0:
			return fmt.Errorf("port %d of 127.0.0.1 is taken by another process: choose another, or none: %w", s.opts.Port, err)
		case !taken || attempt == 5:
			return err
		}
		// The next attempt is judged by its own log.
		if err := os.Remove(s.layout.log); err != nil {
			return fmt.Errorf("clear the server's log: %w", err)
		}
	}
}

// freePort prefers ports below the range from which the systems serve outgoing
// connections (Linux: 32768 and up), so that none of those takes the port while
// the server restarts. 0, if there is none, makes postgres say what is wrong.
func freePort(ctx context.Context) int {
	const low, high = 15000, 32767
	for attempt := range 100 {
		port := 0
		if attempt < 99 {
			port = low + rand.IntN(high-low+1)
		}
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close()
		if addr, ok := l.Addr().(*net.TCPAddr); ok {
			return addr.Port
		}
	}
	return 0
}

// configure appends to postgresql.conf. A later line wins over an earlier one.
func (s *Server) configure() error {
	file := filepath.Join(s.layout.data, "postgresql.conf")
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure the cluster: %w", err)
	}
	_, err = f.WriteString(s.opts.conf(s.port, s.layout.socket))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configure the cluster: %w", err)
	}
	return nil
}

func (s *Server) initdb(ctx context.Context) error {
	//nolint:gosec // which binaries run is the caller's choice
	cmd := exec.CommandContext(ctx, filepath.Join(s.opts.BinDir, "initdb"),
		"--pgdata", s.layout.data, "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir, cmd.Env = s.layout.data, environment()
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	p, err := launch(cmd, s.as)
	if err != nil {
		return err
	}
	<-p.Exited
	if p.Err() != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("initdb: %w", cause)
		}
		return fmt.Errorf("initdb: %w\n%s", p.Err(), bytes.TrimSpace(out.Bytes()))
	}
	s.opts.Logger.DebugContext(ctx, "created a PostgreSQL cluster",
		"version", s.version, "dir", s.layout.root, "took", time.Since(began))
	return nil
}

// resume needs mu, or a server that nobody else knows yet.
func (s *Server) resume(ctx context.Context) error {
	if s.stopped {
		return ErrStopped
	}
	if p := s.postmaster; p != nil {
		switch {
		case s.leaving: // an earlier Halt did not wait for its end
			select {
			case <-p.Exited:
			case <-ctx.Done():
				return fmt.Errorf("wait for PostgreSQL (pid %d) to go down: %w", p.Cmd.Process.Pid, context.Cause(ctx))
			}
		case !p.Gone():
			return nil
		}
	}
	log, err := os.OpenFile(s.layout.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer log.Close() // the child has its own descriptor

	//nolint:gosec,noctx // the binaries are the caller's choice; ctx bounds the start, not the server's life
	cmd := exec.Command(filepath.Join(s.opts.BinDir, "postgres"), "-D", s.layout.data)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir, cmd.Env = s.layout.data, environment()
	began := time.Now()
	p, err := launch(cmd, s.as)
	if err != nil {
		return err
	}
	s.postmaster, s.leaving = p, false
	if err := s.awaitReady(ctx); err != nil {
		tail := s.LogTail(logLinesInError)
		return errors.Join(fmt.Errorf("%w; the end of its log:\n%s", err, tail), s.kill())
	}
	s.opts.Logger.DebugContext(ctx, "PostgreSQL accepts connections",
		"version", s.version, "port", s.port, "pid", cmd.Process.Pid, "took", time.Since(began))
	return nil
}

// awaitReady polls over the Unix socket: its path is this cluster's alone, while
// the port may by now be another server's. Postgres opens the socket after the
// port, and exits if it cannot have the port.
func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.StartTimeout,
		fmt.Errorf("no connection within %s", s.opts.StartTimeout))
	defer cancel()
	config, err := pgconn.ParseConfig(s.SocketURL("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	config.TLSConfig, config.Fallbacks = nil, nil // whatever PGSSLMODE says

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err == nil {
			return conn.Close(ctx)
		}
		last = err
		select {
		case <-s.postmaster.Exited:
			if cause := context.Cause(ctx); cause != nil {
				return fmt.Errorf("postgres exited while starting (%s): %w", s.postmaster.Cmd.ProcessState, cause)
			}
			return fmt.Errorf("postgres exited while starting (%s)", s.postmaster.Cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("postgres is not ready: %w (last attempt: %w)", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
