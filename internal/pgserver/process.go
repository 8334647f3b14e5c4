package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rowcall/rowcall/internal/child"
)

// launch starts cmd as the account, in a process group of its own so that a
// Ctrl-C meant for this process does not stop the cluster first.
func launch(cmd *exec.Cmd, as *account) (*child.Process, error) {
	cmd.SysProcAttr = sysProcAttr(as)
	p, err := child.Start(cmd)
	if as != nil && errors.Is(err, syscall.EPERM) {
		return nil, fmt.Errorf("%w: this root may not become user %s; run as another user instead", err, as.name)
	}
	return p, err
}

// signal is a no-op once the child is gone.
func signal(p *child.Process, sig os.Signal) error {
	if err := p.Cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s (pid %d): %w", sig, filepath.Base(p.Cmd.Path), p.Cmd.Process.Pid, err)
	}
	return nil
}

// environment is what a PostgreSQL program gets: no PG* variable of the caller
// (PGPORT and PGDATA would redirect it), and messages in English.
func environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG") {
			continue
		}
		env = append(env, kv)
	}
	return append(env, "LC_ALL=C")
}
