package natstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rowcall/rowcall/internal/child"
	"github.com/rowcall/rowcall/internal/natsserver"
)

const (
	// readyWithin is how long a process may take until JetStream answers, and
	// endWithin until it has stopped.
	readyWithin = time.Minute
	endWithin   = 30 * time.Second
	defaultSize = 8 << 20 // as the embedded server's
)

func natsURL(port int) string { return fmt.Sprintf("nats://127.0.0.1:%d", port) }

// startProcess runs a nats-server binary with the settings of the embedded server.
func startProcess(ctx context.Context, bin string, opts *natsserver.Options) (*Server, error) {
	var o natsserver.Options
	if opts != nil {
		o = *opts
	}
	if o.Dir == "" || o.Port <= 0 {
		return nil, fmt.Errorf("start %s: a process needs a directory and a port", bin)
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = defaultSize
	}
	jetStream := map[string]any{"store_dir": o.Dir}
	if o.SyncAlways {
		jetStream["sync_interval"] = "always"
	}
	// JSON is the server's configuration language, too.
	config, err := json.Marshal(map[string]any{
		"server_name": "rowcall", "host": "127.0.0.1", "port": o.Port, "max_payload": o.MaxPayload, "jetstream": jetStream,
	})
	if err != nil {
		return nil, err
	}
	path, log := filepath.Join(o.Dir, "nats-server.conf"), filepath.Join(o.Dir, "nats-server.log")
	if err := errors.Join(os.MkdirAll(o.Dir, 0o700), os.WriteFile(path, config, 0o600)); err != nil {
		return nil, err
	}
	// A server on the same directory may have run before.
	from := size(log)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), bin, "-c", path, "-l", log) //nolint:gosec // the user names the binary
	cmd.SysProcAttr = sysProcAttr()
	p, err := child.Start(cmd)
	if err != nil {
		return nil, err
	}
	s := &Server{port: o.Port, child: p}
	if err := s.ready(ctx); err != nil {
		s.Stop()
		said := tail(log, from)
		if strings.Contains(said, "address already in use") {
			err = natsserver.ErrPortTaken
		}
		return nil, fmt.Errorf("start %s: %w; it said:\n%s", bin, err, said)
	}
	return s, nil
}

// ready waits until JetStream answers.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.child.Gone() {
			return fmt.Errorf("the process ended: %w", s.child.Err())
		}
		if answers(ctx, natsURL(s.port)) {
			// Another one may have the port.
			select {
			case <-s.child.Exited:
				return natsserver.ErrPortTaken
			default:
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func answers(ctx context.Context, url string) bool {
	nc, err := nats.Connect(url)
	if err != nil {
		return false
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return false
	}
	asking, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = js.AccountInfo(asking)
	return err == nil
}

func (s *Server) end() {
	_ = s.child.Cmd.Process.Signal(os.Interrupt) // it is gone if that fails
	patience := time.NewTimer(endWithin)
	defer patience.Stop()
	select {
	case <-s.child.Exited:
	case <-patience.C:
		_ = s.child.Cmd.Process.Kill()
		<-s.child.Exited
	}
}

func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// tail returns the end of what a file holds from an offset on.
func tail(file string, from int64) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	text = text[min(from, int64(len(text))):]
	return string(text[max(0, len(text)-2000):])
}
