package kafka_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rowcall/rowcall/sinks/kafka"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// A broker is a real one, in a process of its own.
type broker struct {
	*cluster
	dir  string
	t    *testing.T // whose end is the broker's
	libs string
	java *exec.Cmd
}

// runBroker starts a Kafka in KRaft mode from the jars in ROWCALL_KAFKA_LIBS.
func runBroker(t *testing.T) *broker {
	t.Helper()
	libs := os.Getenv("ROWCALL_KAFKA_LIBS")
	if libs == "" {
		t.Skip("no real Kafka: ROWCALL_KAFKA_LIBS names no directory with its jars; make test-kafka gets them")
	}
	b := &broker{dir: t.TempDir(), t: t, libs: libs}
	port, controller := freePort(t), freePort(t)
	b.cluster = &cluster{seeds: []string{fmt.Sprintf("127.0.0.1:%d", port)}}
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d
controller.quorum.bootstrap.servers=127.0.0.1:%[2]d
controller.listener.names=CONTROLLER
log.dirs=%s
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
log.cleaner.backoff.ms=100
`, port, controller, filepath.Join(b.dir, "data"))
	if err := os.WriteFile(b.config(), []byte(properties), 0o600); err != nil {
		t.Fatal(err)
	}
	format := b.command("kafka.tools.StorageTool", "format", "--standalone", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", b.config())
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format the broker's storage: %v\n%s", err, out)
	}
	b.start(t)
	t.Cleanup(b.kill)
	return b
}

func (b *broker) config() string { return filepath.Join(b.dir, "server.properties") }

func (b *broker) command(class string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.t.Context(), "java", append([]string{"-Xmx512m", "-cp", filepath.Join(b.libs, "*"), class}, args...)...)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// start returns when the broker answers.
func (b *broker) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b.java = b.command("kafka.Kafka", b.config())
	b.java.Stdout, b.java.Stderr = log, log
	if err := b.java.Start(); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	deadline := time.Now().Add(3 * time.Minute)
	for client.Ping(t.Context()) != nil {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the broker does not answer:\n%s", text)
		}
	}
}

// kill ends the broker without a word.
func (b *broker) kill() {
	_ = b.java.Process.Kill()
	_ = b.java.Wait()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it is TCP
}

// A real broker is killed and started again, and the writer with it, at random.
func TestRealBrokerIsKilledAndNothingIsLostOrDoubled(t *testing.T) {
	b := runBroker(t)
	for name, opts := range map[string]kafka.Options{"transactions": {}, "no transactions": {NoTransactions: true}} {
		t.Run(name, func(t *testing.T) {
			r := random(t, 11)
			batches := sinktest.History(r, 20_000)
			f := open(t, b.cluster, &opts)
			from := 0
			for from < len(batches) {
				to := min(from+1+r.IntN(len(batches)/6), len(batches))
				fed := make(chan error, 1)
				go func() { fed <- sinktest.Feed(t.Context(), f, batches[from:to]) }()
				if r.IntN(4) == 0 {
					b.kill()
					b.start(t)
				}
				if err := <-fed; err != nil {
					t.Fatal(err)
				}
				if r.IntN(2) == 0 {
					from = to
					continue
				}
				if opts.NoTransactions || r.IntN(2) == 0 {
					f.Close() // nothing else would keep it from going on
				}
				f = open(t, b.cluster, &opts)
				store(t, f, batches[:to]) // everything again
				from = to
			}
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			verify(t, b.cluster, batches)
			deleteTopics(t, b.cluster)
		})
	}
}

func deleteTopics(t *testing.T, c *cluster) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.seeds...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).DeleteTopics(t.Context(), seatsTopic); err != nil {
		t.Fatal(err)
	}
}
