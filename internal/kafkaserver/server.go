package kafkaserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// LibsVariable names the directory that has the jars.
const LibsVariable = "ROWCALL_KAFKA_LIBS"

const (
	startTimeout = 3 * time.Minute
	clusterID    = "MkU3OEVBNTcwNTJENDM2Qk"
)

// Options say what runs where. Libs and Dir are required.
type Options struct {
	// Libs is the directory with the jars.
	Libs string
	// Dir is where the broker stores, and writes its log. It exists, and is empty.
	Dir string
	// Settings are further lines of the broker's configuration.
	Settings map[string]string
}

// A Server is a broker in a process of its own. Its methods are called by one
// goroutine at a time.
type Server struct {
	opts Options
	addr string
	java *exec.Cmd
	stop context.CancelFunc
}

// Start makes a broker with a store that is empty, and returns when it answers.
// Whoever calls it kills it. ctx bounds the start alone.
func Start(ctx context.Context, opts *Options) (*Server, error) {
	if jars, err := filepath.Glob(filepath.Join(opts.Libs, "kafka_*.jar")); err != nil || len(jars) == 0 {
		return nil, fmt.Errorf("kafkaserver: %s has no jars of a Kafka broker; make test-kafka fetches them", opts.Libs)
	}
	s := &Server{opts: *opts}
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return nil, fmt.Errorf("kafkaserver: %w", err)
	}
	s.addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	var text strings.Builder
	fmt.Fprintf(&text, `process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d
controller.quorum.bootstrap.servers=127.0.0.1:%[2]d
controller.listener.names=CONTROLLER
log.dirs=%s
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
`, s.addr, ports[1], filepath.Join(opts.Dir, "data"))
	for _, key := range slices.Sorted(maps.Keys(opts.Settings)) {
		fmt.Fprintf(&text, "%s=%s\n", key, opts.Settings[key])
	}
	if err := os.WriteFile(s.config(), []byte(text.String()), 0o600); err != nil {
		return nil, fmt.Errorf("kafkaserver: %w", err)
	}
	format := s.command(ctx, "kafka.tools.StorageTool", "format", "--standalone", "-t", clusterID, "-c", s.config())
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("kafkaserver: format the store: %w\n%s", err, out)
	}
	return s, s.Resume(ctx)
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.addr }

// Dir returns where the broker stores.
func (s *Server) Dir() string { return s.opts.Dir }

// PID returns the id of the broker's process.
func (s *Server) PID() int { return s.java.Process.Pid }

func (s *Server) config() string { return filepath.Join(s.opts.Dir, "server.properties") }

func (s *Server) command(ctx context.Context, class string, args ...string) *exec.Cmd {
	// It lives for seconds: what makes it fast later is left out.
	java := append([]string{"-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", filepath.Join(s.opts.Libs, "*"), class}, args...)
	cmd := exec.CommandContext(ctx, "java", java...)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Resume starts the broker again, and returns when it answers. On error nothing
// runs.
func (s *Server) Resume(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(s.opts.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("kafkaserver: %w", err)
	}
	defer log.Close()
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.java = s.command(running, "kafka.Kafka", s.config())
	s.java.Stdout, s.java.Stderr = log, log
	if err := s.java.Start(); err != nil {
		stop()
		return fmt.Errorf("kafkaserver: %w", err)
	}
	if err := s.await(ctx); err != nil {
		s.Kill()
		text, _ := os.ReadFile(log.Name()) // what there is of it
		return fmt.Errorf("kafkaserver: %w; its log ends:\n%s", err, text[max(0, len(text)-4000):])
	}
	return nil
}

// Kill ends the broker without a word, and waits for its end.
func (s *Server) Kill() {
	s.stop()
	_ = s.java.Wait() // it was killed
}

func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("the broker does not answer within %s", startTimeout))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for s.ping(ctx) != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// ping asks which versions of the protocol the broker knows: ApiVersions 0, key 18.
func (s *Server) ping(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	const id = 7
	ask := []byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, id, 0xff, 0xff} // size, key, version, id, no client's name
	if _, err := conn.Write(ask); err != nil {
		return err
	}
	var answer [10]byte // size, id, error
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(answer[4:]) != id || binary.BigEndian.Uint16(answer[8:]) != 0 {
		return errors.New("no answer of Kafka")
	}
	return nil
}

// freePorts returns ports that nobody uses now, below the range of outgoing
// connections, so that none of those takes one while the broker starts.
func freePorts(ctx context.Context, n int) ([]int, error) {
	const low, high = 15000, 32767
	var ports []int
	var failed error
	for tries := 0; len(ports) < n && tries < 100; tries++ {
		port := low + rand.IntN(high-low+1)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			failed = err
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	if len(ports) < n {
		return nil, failed
	}
	return ports, nil
}

// URL returns the broker's URL.
func (s *Server) URL() string { return "kafka://" + s.addr }
