package natsserver_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/natsserver"
	"github.com/rowcall/rowcall/internal/natsserver/natstest"
)

var _ nats.InProcessConnProvider = (*natsserver.Server)(nil)

func createStream(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func publish(t *testing.T, js jetstream.JetStream, payload []byte) {
	t.Helper()
	if _, err := js.Publish(t.Context(), "s.one", payload); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, stream jetstream.Stream) uint64 {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

func TestRestartKeepsMessagesAndPort(t *testing.T) {
	dir := t.TempDir()
	first := natstest.RunWith(t, &natsserver.Options{Dir: dir})
	js := natstest.JetStream(t, first)
	createStream(t, js)
	for range 3 {
		publish(t, js, []byte("x"))
	}
	first.Stop()
	first.Stop()

	second := natstest.RunWith(t, &natsserver.Options{Dir: dir, Port: first.Port()})
	if second.URL() != first.URL() {
		t.Errorf("URL() after the restart = %s, want %s", second.URL(), first.URL())
	}
	stream, err := natstest.JetStream(t, second).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := count(t, stream); got != 3 {
		t.Errorf("messages after the restart = %d, want 3", got)
	}
}

func TestListensOnLoopbackOnly(t *testing.T) {
	s := natstest.Run(t)
	if !strings.HasPrefix(s.URL(), "nats://127.0.0.1:") {
		t.Errorf("URL() = %s", s.URL())
	}
	if s.Port() == 4222 || s.Port() <= 0 {
		t.Errorf("Port() = %d, want a free one", s.Port())
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		ip, ok := addr.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.To4() == nil {
			continue
		}
		conn, err := net.Dial("tcp", net.JoinHostPort(ip.IP.String(), strings.TrimPrefix(s.URL(), "nats://127.0.0.1:")))
		if err == nil {
			conn.Close()
			t.Errorf("the server answers on %s", ip.IP)
		}
	}
}

func TestInProcessConnection(t *testing.T) {
	s := natstest.Run(t)
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream := createStream(t, js)
	publish(t, js, []byte("x"))
	if got := count(t, stream); got != 1 {
		t.Errorf("messages = %d, want 1", got)
	}
	s.Stop()
	if conn, err := s.InProcessConn(); err == nil {
		conn.Close()
		t.Error("InProcessConn() after Stop = no error")
	}
}

func TestMaxPayload(t *testing.T) {
	for name, tc := range map[string]struct {
		option, want int32
	}{"default": {0, 8 << 20}, "given": {1 << 16, 1 << 16}} {
		t.Run(name, func(t *testing.T) {
			nc := natstest.Connect(t, natstest.RunWith(t, &natsserver.Options{MaxPayload: tc.option}))
			if got := nc.MaxPayload(); got != int64(tc.want) {
				t.Errorf("MaxPayload() = %d, want %d", got, tc.want)
			}
		})
	}
	t.Run("stored at full size", func(t *testing.T) {
		js := natstest.JetStream(t, natstest.Run(t))
		createStream(t, js)
		publish(t, js, make([]byte, 8<<20))
	})
}

func TestPortTaken(t *testing.T) {
	first := natstest.Run(t)
	dir := filepath.Join(t.TempDir(), "store")
	_, err := natsserver.Start(t.Context(), &natsserver.Options{Port: first.Port(), Dir: dir})
	if !errors.Is(err, natsserver.ErrPortTaken) {
		t.Fatalf("Start() on a taken port = %v, want ErrPortTaken", err)
	}
	for _, want := range []string{first.URL(), "--nats-url", "--nats-port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q misses %q", err, want)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat(%s) = %v, want not exist: nothing was started", dir, err)
	}
}

func TestDirInUse(t *testing.T) {
	dir := t.TempDir()
	first := natstest.RunWith(t, &natsserver.Options{Dir: dir})
	_, err := natsserver.Start(t.Context(), &natsserver.Options{Dir: dir})
	if !errors.Is(err, natsserver.ErrDirInUse) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("Start() on a locked directory = %v, want ErrDirInUse and the directory", err)
	}
	first.Stop()
	natstest.RunWith(t, &natsserver.Options{Dir: dir})
}

func TestDirCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"a file":             file,
		"below a file":       filepath.Join(file, "store"),
		"not ours to create": filepath.Join(closed, "store"),
		"not ours to write":  closed,
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() == 0 && strings.HasPrefix(dir, closed) {
				t.Skip("root may write anywhere")
			}
			s, err := natsserver.Start(t.Context(), &natsserver.Options{Dir: dir})
			if err == nil {
				s.Stop()
			}
			if err == nil || !strings.Contains(err.Error(), "store directory "+dir) || !strings.Contains(err.Error(), "choose") {
				t.Errorf("Start(Dir: %s) = %v, want an error that names it and a remedy", dir, err)
			}
		})
	}
}

func TestOptionsReportAllFaultsAtOnce(t *testing.T) {
	_, err := natsserver.Start(t.Context(), &natsserver.Options{Port: 70000, MaxPayload: -1})
	for _, want := range []string{"port 70000", "max payload -1", "no store directory"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start() = %v, want %q in it", err, want)
		}
	}
}

func TestStartWithEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := natsserver.Start(ctx, &natsserver.Options{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start(cancelled) = %v, want context.Canceled", err)
	}
}

func TestSayingsAreDebugRecords(t *testing.T) {
	var out strings.Builder
	s := natstest.RunWith(t, &natsserver.Options{
		Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	createStream(t, natstest.JetStream(t, s))
	s.Stop()
	if out.Len() > 0 {
		t.Errorf("at info level the server said:\n%s", out.String())
	}
}
