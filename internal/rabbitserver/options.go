package rabbitserver

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const (
	// BinDirVariable names the environment variable that says where
	// rabbitmq-server and rabbitmqctl are.
	BinDirVariable = "ROWCALL_RABBITMQ_BIN"

	defaultStartTimeout = 3 * time.Minute
)

// ErrNotFound says that there is no RabbitMQ server on this machine.
var ErrNotFound = errors.New("no RabbitMQ server")

// Options set up a node. Nil and zero mean the defaults.
type Options struct {
	// BinDir has rabbitmq-server and rabbitmqctl. Default: [Find].
	BinDir string
	// Config is lines of rabbitmq.conf.
	Config []string
	// StartTimeout bounds a start. Default 3m.
	StartTimeout time.Duration
	// Logger gets what happens. Default: none.
	Logger *slog.Logger
}

func (o *Options) withDefaults() (Options, error) {
	var d Options
	if o != nil {
		d = *o
	}
	if d.StartTimeout == 0 {
		d.StartTimeout = defaultStartTimeout
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.BinDir == "" {
		dir, err := Find()
		if err != nil {
			return d, err
		}
		d.BinDir = dir
	}
	return d, nil
}

// Find returns the directory of the server's programs: what
// ROWCALL_RABBITMQ_BIN says, where the packages of Debian and of RabbitMQ put
// them, or where PATH has them. [ErrNotFound] if there are none.
//
// What these packages put into /usr/sbin are wrappers that change the user and
// ignore the environment, so those are not used.
func Find() (string, error) {
	if dir := os.Getenv(BinDirVariable); dir != "" {
		if !complete(dir) {
			return "", fmt.Errorf("%w in %s, which %s names: it has no rabbitmq-server with rabbitmqctl", ErrNotFound, dir, BinDirVariable)
		}
		return dir, nil
	}
	dirs := []string{"/usr/lib/rabbitmq/bin"}
	if path, err := exec.LookPath("rabbitmq-server"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Base(real) == "rabbitmq-server" {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	if i := slices.IndexFunc(dirs, complete); i >= 0 {
		return dirs[i], nil
	}
	return "", fmt.Errorf("%w: install it (Debian: apt-get install rabbitmq-server), or say with %s where it is", ErrNotFound, BinDirVariable)
}

func complete(dir string) bool {
	for _, program := range []string{"rabbitmq-server", "rabbitmqctl"} {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	_, err := exec.LookPath("epmd")
	return err == nil
}
