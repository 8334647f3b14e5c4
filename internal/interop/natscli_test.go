package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/nats-io/nats.go"

	"github.com/rowcall/rowcall/internal/natsserver/natstest"
)

// command returns the nats command line, built at the version of go.mod; the
// first time that takes minutes.
func command(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "-n", "nats").Output()
	if err != nil {
		t.Fatalf("go tool -n nats: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// run runs the command line in a home of its own.
func run(ctx context.Context, t *testing.T, cli, url string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(ctx, cli, append([]string{"--server", url}, args...)...)
	c.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir(), "NO_COLOR=1")
	return c
}

// buffer may be read while a command writes into it.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// wantAll looks for the data and the identity of each event, in order.
func wantAll(t *testing.T, what, text string) {
	t.Helper()
	for i, f := range frames() {
		for _, want := range []string{f.ID, string(f.Body)} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not print %q of event %d; it prints:\n%s", what, want, i, text)
			}
		}
		_, rest, ok := strings.Cut(text, string(f.Body))
		if !ok {
			return
		}
		text = rest
	}
}

func TestCommandLineSubscribes(t *testing.T) {
	cli := command(t)
	s, f := onJetStream(t)
	nc := natstest.Connect(t, s)
	var out buffer
	// The second subject shows when the first is subscribed to. What is asked
	// there counts as a message, once.
	sub := run(within(t), t, cli, s.URL(), "sub", "cdc.shop.public.seats.>", "interop.ready", "--count", fmt.Sprint(len(frames())+1))
	sub.Stdout, sub.Stderr = &out, &out
	if err := sub.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := nc.Request("interop.ready", nil, 10*time.Millisecond)
		if errors.Is(err, nats.ErrNoResponders) {
			return fmt.Errorf("nobody subscribes: %s", out.String())
		}
		return nil
	})
	store(t, f)
	if err := sub.Wait(); err != nil {
		t.Fatalf("nats sub: %v\n%s", err, out.String())
	}
	wantAll(t, "nats sub", out.String())
}

func TestCommandLineViewsTheStream(t *testing.T) {
	cli := command(t)
	s, f := onJetStream(t)
	store(t, f)
	for name, args := range map[string][]string{
		"nats sub --all": {"sub", "cdc.shop.public.seats.>", "--stream", "CDC_SHOP", "--all", "--count", fmt.Sprint(len(frames()))},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(within(t), t, cli, s.URL(), args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
			wantAll(t, name, string(out))
		})
	}
	t.Run("nats stream view", func(t *testing.T) {
		terminal, err := pty.Start(run(within(t), t, cli, s.URL(), "stream", "view", "CDC_SHOP", "25"))
		if err != nil {
			t.Fatal(err)
		}
		defer terminal.Close()
		out, err := io.ReadAll(terminal)
		if err != nil && !errors.Is(err, syscall.EIO) { // the other side is closed
			t.Fatal(err)
		}
		wantAll(t, "nats stream view", string(out))
	})
	t.Run("nats stream get", func(t *testing.T) {
		for i, want := range frames() {
			out, err := run(within(t), t, cli, s.URL(), "stream", "get", "CDC_SHOP", fmt.Sprint(i+1), "--json").Output()
			if err != nil {
				t.Fatalf("nats stream get: %v\n%s", err, out)
			}
			var got struct {
				Seq  uint64 `json:"seq"`
				Data []byte `json:"data"`
				Hdrs []byte `json:"hdrs"`
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("nats stream get prints %s: %v", out, err)
			}
			if !bytes.Equal(got.Data, want.Body) || !bytes.Contains(got.Hdrs, []byte("ce-id: "+want.ID)) {
				t.Errorf("nats stream get %d = %s\n%s, want %s with the id %s", i+1, got.Hdrs, got.Data, want.Body, want.ID)
			}
		}
	})
}
