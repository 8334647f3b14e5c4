package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/rowcall/rowcall/internal/child"
)

// ErrStopped is returned by methods that need a cluster which Stop has removed.
var ErrStopped = errors.New("the PostgreSQL cluster has been stopped")

// Server is a running throw-away cluster. Its methods may be called from
// several goroutines; those that start and stop the server wait for each other.
type Server struct {
	opts    Options
	as      *account
	layout  *layout
	port    int
	version int

	mu         sync.Mutex     // held while the server is started or stopped
	postmaster *child.Process // nil while halted
	leaving    bool           // the postmaster has been told to exit
	stopped    bool
}

// URL returns the connection URL of a database over TCP. The user is postgres,
// a superuser; there is no password and no TLS.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", s.port, url.PathEscape(database))
}

// SocketURL returns the connection URL of a database over the Unix socket.
func (s *Server) SocketURL(database string) string {
	query := url.Values{"host": {s.layout.socket}, "port": {strconv.Itoa(s.port)}}
	return "postgres://postgres@/" + url.PathEscape(database) + "?" + query.Encode()
}

// BinDir returns the directory of the server binaries in use. Debian installs
// the client programs (psql, pg_recvlogical, pg_basebackup) there, too.
func (s *Server) BinDir() string { return s.opts.BinDir }

// Port returns the TCP port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Dir returns the cluster's directory; its data directory is data in there.
func (s *Server) Dir() string { return s.layout.root }

// Version returns PostgreSQL's major version, such as 17.
func (s *Server) Version() int { return s.version }

// tailBytes bounds what LogTail reads.
const tailBytes = 256 << 10

// LogTail returns up to n of the last lines that the server printed, without a
// final line break. It is empty if the log cannot be read.
func (s *Server) LogTail(n int) string { return logTail(s.layout.log, n) }

func logTail(file string, n int) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err != nil {
		return ""
	} else if _, err := f.Seek(max(0, size-tailBytes), io.SeekStart); err != nil {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return ""
	}
	lines := strings.Split(string(bytes.TrimRight(text, "\n")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Restart stops the server as mode says and starts it again, on the same port
// and data. It returns when the server accepts connections again. If it fails,
// the server may be halted; see LogTail.
func (s *Server) Restart(ctx context.Context, mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.halt(ctx, mode); err != nil {
		return err
	}
	return s.resume(ctx)
}

// Halt stops the server as mode says and keeps its data, so that clients meet a
// server that is down until Resume. A halted server may be halted again.
//
// With [Fast] the server first waits for replication clients to take what they
// have not yet read, for as long as ctx allows.
func (s *Server) Halt(ctx context.Context, mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.halt(ctx, mode)
}

// Resume starts a halted server, on the same port and data, and returns when it
// accepts connections. It does nothing if the server runs.
func (s *Server) Resume(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resume(ctx)
}

// Stop ends the cluster and removes its directory, unless Options.Keep is set.
// When ctx ends first, the server is killed; Stop still waits for its end. A
// second call returns nil.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	mode := Immediate // a directory that goes away needs no last checkpoint
	if s.opts.Keep {
		mode = Fast
	}
	err := s.halt(ctx, mode)
	if err != nil {
		err = errors.Join(err, s.kill())
	}
	s.stopped = true
	if s.opts.Keep {
		return err
	}
	return errors.Join(err, s.layout.remove())
}
