package rabbittest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/rowcall/rowcall/internal/rabbitserver"
	"github.com/rowcall/rowcall/internal/sharedtest"
)

// SkipVariable names the environment variable that, set to "skip", skips the
// tests that need RabbitMQ.
const SkipVariable = "ROWCALL_RABBITMQ"

// MaxMessageSize is the size in bytes that the shared node allows a message's
// body.
const MaxMessageSize = 64 << 10

// shared is the binary's one node. It is package state because TestMain and the
// tests have nothing else in common; nothing outside this file touches it.
var shared = sharedtest.Server[*rabbitserver.Server]{
	Package: "rabbittest",
	Start: func(ctx context.Context) (*rabbitserver.Server, error) {
		return rabbitserver.Start(ctx, &rabbitserver.Options{Config: []string{
			fmt.Sprintf("max_message_size = %d", MaxMessageSize),
		}})
	},
	Stop: (*rabbitserver.Server).Stop,
}

// Main runs the tests and stops the shared node. It is the whole body of a
// TestMain, and does not return.
func Main(m *testing.M) { os.Exit(Wrap(m).Run()) }

// Wrap returns a Runner that runs m and then stops the shared node.
func Wrap(m sharedtest.Runner) sharedtest.Runner { return shared.Wrap(m) }

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
	server := shared.Get(t)
	if err := server.Resume(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return server
}
