package pginbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
	"github.com/rowcall/rowcall/internal/pgtest"
	"github.com/rowcall/rowcall/sinks"
	"github.com/rowcall/rowcall/sinks/jetstream"
	"github.com/rowcall/rowcall/sinks/pginbox"
	"github.com/rowcall/rowcall/sinks/sinktest"
)

// The two turn the test binary into a worker that serves until it is killed.
const (
	workerNATS     = "ROWCALL_TEST_WORKER_NATS"
	workerDatabase = "ROWCALL_TEST_WORKER_DATABASE"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerNATS) == "" {
		pgtest.Main(m)
		return
	}
	if err := serveForever(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var policy = sinks.ServePolicy{Lease: time.Second, MaxAttempts: 1000, FirstDelay: 5 * time.Millisecond, Concurrency: 4}

// pay is a handler whose effect is a row.
func pay(ctx context.Context, id string) error {
	_, err := pginbox.Tx(ctx).Exec(ctx, "INSERT INTO effects VALUES ($1)", id)
	return err
}

func serveForever(ctx context.Context) error {
	nc, err := jetstream.Connect(os.Getenv(workerNATS), nil)
	if err != nil {
		return err
	}
	broker, err := jetstream.NewCommandBroker(nc, nil)
	if err != nil {
		return err
	}
	c, err := sinks.NewCommands(broker, nil)
	if err != nil {
		return err
	}
	p := policy
	if p.Inbox, err = pginbox.Open(ctx, perTx{os.Getenv(workerDatabase)}, nil); err != nil {
		return err
	}
	return c.Serve(ctx, "fleet", func(ctx context.Context, r *sinks.Received) error {
		timer := time.NewTimer(time.Duration(rand.IntN(20)) * time.Millisecond)
		<-timer.C
		return pay(ctx, r.ID)
	}, &p)
}

// Workers are processes, and SIGKILL comes at any moment: before the effect,
// between effect and commit, between commit and acknowledgement.
func TestKilledWorkersHaveEachEffectOnce(t *testing.T) {
	_, p := open(t)
	s := natstest.Run(t)
	nc := natstest.Connect(t, s)
	broker, err := jetstream.NewCommandBroker(nc, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := sinks.NewCommands(broker, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const commands = 400
	var cmds []sinks.Command
	for i := range commands {
		cmds = append(cmds, sinks.Command{Queue: "fleet", Name: "add-carriage", ID: fmt.Sprint(i)})
	}
	if err := c.SendAll(t.Context(), cmds); err != nil {
		t.Fatal(err)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		worker := exec.CommandContext(t.Context(), self)
		worker.Env = append(os.Environ(), workerNATS+"="+s.URL(), workerDatabase+"="+p.url)
		worker.Stderr = os.Stderr
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		return worker
	}
	workers := []*exec.Cmd{start(), start()}
	kill := func(i int) {
		_ = workers[i].Process.Kill()
		_ = workers[i].Wait() // "signal: killed"
	}
	defer func() {
		for i := range workers {
			kill(i)
		}
	}()
	var done int
	count := func() error {
		return p.QueryRow(t.Context(), "SELECT count(DISTINCT id) FROM effects").Scan(&done)
	}
	for n := range sinktest.Faults(t) {
		want := n * commands / (sinktest.Faults(t) + 1)
		pgtest.Eventually(t, 3*time.Minute, func() error {
			if err := count(); err != nil || done >= want {
				return err
			}
			return fmt.Errorf("%d commands are carried out, want %d before fault %d", done, want, n)
		})
		kill(n % 2)
		workers[n%2] = start()
	}
	pgtest.Eventually(t, 3*time.Minute, func() error {
		if err := count(); err != nil || done == commands {
			return err
		}
		return fmt.Errorf("%d of %d commands are carried out", done, commands)
	})
	verify(t, p, c)
}

// verify waits until the queue is empty: what comes again by then would double
// an effect.
func verify(t *testing.T, p *pool, c *sinks.Commands) {
	t.Helper()
	pgtest.Eventually(t, 3*time.Minute, func() error {
		all, err := c.Queues(t.Context())
		if err == nil && all[0].Waiting+all[0].Running > 0 {
			err = fmt.Errorf("%+v is not empty", all[0])
		}
		return err
	})
	var doubled int
	if err := p.QueryRow(t.Context(), "SELECT count(*) - count(DISTINCT id) FROM effects").Scan(&doubled); err != nil || doubled != 0 {
		t.Errorf("%d effects are doubled (%v), want none", doubled, err)
	}
	for d, err := range c.Dead(t.Context(), "fleet") {
		t.Errorf("dead letter %+v, %v", d.Dead, err)
	}
}

func TestOnceInEffectUnderRandomFaults(t *testing.T) {
	inbox, p := open(t)
	opts := natsserver.Options{Dir: t.TempDir()}
	s, err := natstest.Start(t.Context(), &opts)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		s.Stop()
	})
	url := s.URL()
	opts.Port = s.Port()
	sinktest.OnceUnderFaults(t, sinktest.CommandServer{
		Connect: func(t testing.TB) *sinktest.CommandClient {
			nc, err := jetstream.Connect(url, &jetstream.ConnectOptions{ReconnectWait: 10 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			broker, err := jetstream.NewCommandBroker(nc, &jetstream.CommandOptions{AckTimeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return &sinktest.CommandClient{Broker: broker, Kill: nc.Close, Cut: func() { _ = nc.ForceReconnect() }}
		},
		Restart: func(t testing.TB) {
			mu.Lock()
			defer mu.Unlock()
			s.Stop()
			next, err := natstest.Start(t.Context(), &opts)
			if err != nil {
				t.Errorf("restart: %v", err)
				return
			}
			s = next
		},
	}, &sinks.ServePolicy{Inbox: inbox, Concurrency: 4}, pay, func(id string) int { return effects(t, p, id) })
}
