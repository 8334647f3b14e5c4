package rabbittest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/rowcall/rowcall/internal/rabbitserver"
)

// SkipVariable names the environment variable that, set to "skip", skips the
// tests that need RabbitMQ.
const SkipVariable = "ROWCALL_RABBITMQ"

// MaxMessageSize is the size in bytes that the shared node allows a message's
// body.
const MaxMessageSize = 64 << 10

// shared is the binary's one node. It is package state because TestMain and the
// tests have nothing else in common; nothing outside this file touches it.
var shared struct {
	mu      sync.Mutex
	managed bool // Main will stop what Server starts
	server  *rabbitserver.Server
	err     error // why the first start failed; not tried again
}

// Main runs the tests and stops the shared node. It is the whole body of a
// TestMain, and does not return.
func Main(m *testing.M) { os.Exit(Wrap(m).Run()) }

// Runner is what [testing.M] and the TestMain helpers of other packages share.
type Runner interface {
	// Run runs the tests and returns the exit code.
	Run() int
}

// Wrap returns a Runner that runs m and then stops the shared node.
func Wrap(m Runner) Runner { return runner{m} }

type runner struct{ tests Runner }

func (r runner) Run() int {
	shared.mu.Lock()
	shared.managed = true
	shared.mu.Unlock()

	code := r.tests.Run()

	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.managed = false
	if shared.server == nil {
		return code
	}
	if err := shared.server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "rabbittest:", err)
		code = max(code, 1)
	}
	shared.server = nil
	return code
}

// Server returns the binary's node, which runs. What a test puts there it takes
// away again.
func Server(t testing.TB) *rabbitserver.Server {
	t.Helper()
	if os.Getenv(SkipVariable) == "skip" {
		t.Skipf("needs RabbitMQ: %s=skip", SkipVariable)
	}
	if _, err := rabbitserver.Find(); err != nil {
		_, noApt := exec.LookPath("apt-get")
		named := os.Getenv(rabbitserver.BinDirVariable) != ""
		if named || !errors.Is(err, rabbitserver.ErrNotFound) || os.Getenv("CI") == "true" && noApt == nil {
			t.Fatal(err)
		}
		t.Skipf("needs RabbitMQ: %v", err)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.managed {
		t.Fatal("nobody would stop the shared RabbitMQ: add `func TestMain(m *testing.M) { rabbittest.Main(m) }` to this package's tests")
	}
	// The test that comes first must not take the node with it when it ends.
	ctx := context.WithoutCancel(t.Context())
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = rabbitserver.Start(ctx, &rabbitserver.Options{Config: []string{
			fmt.Sprintf("max_message_size = %d", MaxMessageSize),
		}})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if err := shared.server.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	return shared.server
}
