package rabbitserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rowcall/rowcall/internal/child"
)

// ErrStopped is returned after Stop.
var ErrStopped = errors.New("the RabbitMQ server was stopped")

// A Server is one node. Its methods may be called concurrently.
type Server struct {
	opts Options
	dir  string
	port int
	dist int
	epmd int
	name string

	mu      sync.Mutex
	mapper  *child.Process
	node    *child.Process // nil while it is down
	stopped bool
}

// Start creates a node and starts it. ctx bounds the start; the node lives on
// when it ends. An error quotes the end of the node's log, and nothing is left
// behind.
func Start(ctx context.Context, opts *Options) (*Server, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start RabbitMQ: %w", err)
	}
	for attempt := 1; ; attempt++ {
		s := &Server{opts: o, name: fmt.Sprintf("rowcall-%08x@localhost", rand.Uint32())}
		err := s.create(ctx)
		if err == nil {
			err = s.Resume(ctx)
		}
		if err == nil {
			return s, nil
		}
		taken := strings.Contains(s.LogTail(50), "eaddrinuse") // another process was faster
		err = errors.Join(fmt.Errorf("start RabbitMQ from %s: %w", o.BinDir, err), s.Stop())
		if !taken || attempt == 3 || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (s *Server) create(ctx context.Context) error {
	for _, port := range []*int{&s.port, &s.dist, &s.epmd} {
		*port = freePort(ctx)
	}
	dir, err := os.MkdirTemp("", "rowcall-rabbit-")
	if err != nil {
		return err
	}
	s.dir = dir
	config := append([]string{"log.console.level = warning", "loopback_users.guest = true"}, s.opts.Config...)
	for name, text := range map[string]string{
		"rabbitmq.conf":   strings.Join(config, "\n") + "\n",
		"env.conf":        "",
		"enabled_plugins": "[].\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// Erlang refuses a cookie that others can read.
	return os.WriteFile(filepath.Join(dir, ".erlang.cookie"), fmt.Appendf(nil, "%016x", rand.Uint64()), 0o400)
}

// freePort prefers ports below the range of outgoing connections, so that none
// of those takes the port while the node restarts.
func freePort(ctx context.Context) int {
	const low, high = 15000, 32767
	var config net.ListenConfig
	for range 100 {
		port := low + rand.IntN(high-low+1)
		l, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	return 0
}

// environment is what the node and its tools get.
func (s *Server) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RABBITMQ_") && !strings.HasPrefix(kv, "ERL_") && !strings.HasPrefix(kv, "HOME=") && !strings.HasPrefix(kv, "NOTIFY_SOCKET=") {
			env = append(env, kv)
		}
	}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	return append(env,
		"HOME="+s.dir,
		"ERL_EPMD_PORT="+strconv.Itoa(s.epmd), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME="+s.name, "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+strconv.Itoa(s.port), "RABBITMQ_DIST_PORT="+strconv.Itoa(s.dist),
		"RABBITMQ_MNESIA_BASE="+in("data"), "RABBITMQ_LOG_BASE="+in("log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_GENERATED_CONFIG_DIR="+in("config"), "RABBITMQ_PID_FILE="+in("pid"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+in("enabled_plugins"),
		"RABBITMQ_CONFIG_FILE="+in("rabbitmq.conf"), "RABBITMQ_CONF_ENV_FILE="+in("env.conf"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		// The script then becomes the server instead of starting it as a child.
		"RUNNING_UNDER_SYSTEMD=true",
	)
}

// URL returns an amqp:// URL with the user guest.
func (s *Server) URL() string {
	return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", s.port)
}

// Resume starts a node that was killed and returns when it takes connections.
// It does nothing while the node runs.
func (s *Server) Resume(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped:
		return ErrStopped
	case s.node != nil && !s.node.Gone():
		return nil
	}
	if s.mapper == nil || s.mapper.Gone() {
		// A node that found none would start one that outlives it.
		epmd := exec.Command("epmd", "-port", strconv.Itoa(s.epmd), "-address", "127.0.0.1") //nolint:gosec,noctx // it lives as long as the node
		epmd.Dir, epmd.Env = s.dir, s.environment()
		p, err := launch(epmd)
		if err != nil {
			return err
		}
		s.mapper = p
	}
	log, err := os.OpenFile(s.log(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()                                                    // the child has its own descriptor
	cmd := exec.Command(filepath.Join(s.opts.BinDir, "rabbitmq-server")) //nolint:gosec,noctx // which server runs is the caller's choice; ctx bounds the start
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.environment(), log, log
	began := time.Now()
	if s.node, err = launch(cmd); err != nil {
		return err
	}
	if err := s.awaitReady(ctx); err != nil {
		return errors.Join(fmt.Errorf("%w; the end of its log:\n%s", err, s.LogTail(20)), kill(s.node))
	}
	s.opts.Logger.DebugContext(ctx, "RabbitMQ takes connections", "port", s.port, "pid", cmd.Process.Pid, "took", time.Since(began))
	return nil
}

func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.StartTimeout, fmt.Errorf("no connection within %s", s.opts.StartTimeout))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.greet(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.node.Exited:
			return fmt.Errorf("RabbitMQ exited while starting (%s)", s.node.Cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("RabbitMQ is not ready: %w (last attempt: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// greet begins an AMQP 0-9-1 connection, which the server answers with a frame
// of a method once it serves.
func (s *Server) greet(ctx context.Context) error {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	var frame [1]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil {
		return err
	}
	if frame[0] != 1 {
		return fmt.Errorf("the server answers with frame type %d, want a method", frame[0])
	}
	return nil
}

// Kill ends the node at once, as in a crash.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrStopped
	}
	err := kill(s.node)
	s.node = nil
	return err
}

// Ctl runs rabbitmqctl on the node and returns what it prints. A node takes
// connections a moment before its own tools find it running; that is waited for.
func (s *Server) Ctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.StartTimeout, fmt.Errorf("not within %s", s.opts.StartTimeout))
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, filepath.Join(s.opts.BinDir, "rabbitmqctl"), append([]string{"--quiet"}, args...)...) //nolint:gosec // for tests
		cmd.Dir, cmd.Env = s.dir, s.environment()
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		switch {
		case err == nil:
			return string(out), nil
		case ctx.Err() == nil && bytes.Contains(out, []byte("app to be running")):
			continue // it takes a second to say so
		}
		return "", fmt.Errorf("rabbitmqctl %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}

// Eval has the node evaluate Erlang, which ends with a full stop, and returns the
// text of the result. It uses erl_call where Erlang brings it, which is a hundred
// times as fast as to start rabbitmqctl, and rabbitmqctl otherwise.
func (s *Server) Eval(ctx context.Context, expression string) (string, error) {
	if result, ok := s.call(ctx, expression); ok {
		return result, nil
	}
	return s.Ctl(ctx, "eval", expression)
}

func (s *Server) call(ctx context.Context, expression string) (result string, ok bool) {
	erl, err := exec.LookPath("erl")
	if err == nil {
		erl, err = filepath.EvalSymlinks(erl)
	}
	if err != nil {
		return "", false
	}
	programs, err := filepath.Glob(filepath.Join(filepath.Dir(erl), "..", "erts-*", "bin", "erl_call"))
	if err != nil || len(programs) == 0 {
		return "", false
	}
	cookie, err := os.ReadFile(filepath.Join(s.dir, ".erlang.cookie"))
	if err != nil {
		return "", false
	}
	cmd := exec.CommandContext(ctx, programs[0], "-e", "-c", string(cookie), "-n", s.name) //nolint:gosec // for tests
	cmd.Dir, cmd.Env, cmd.Stdin = s.dir, s.environment(), strings.NewReader(expression+"\n")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", false
	}
	result, ok = strings.CutPrefix(strings.TrimSpace(string(out)), "{ok, ")
	return strings.TrimSuffix(result, "}"), ok
}

// Stop ends the node and removes its directory. A second call does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	err := errors.Join(kill(s.node), kill(s.mapper))
	if s.dir == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *Server) log() string { return filepath.Join(s.dir, "server.log") }

// LogTail returns the last lines of the node's log.
func (s *Server) LogTail(lines int) string {
	text, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
