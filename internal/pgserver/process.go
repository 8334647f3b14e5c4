package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// process is a child that has one owner goroutine from start to reaping.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the child has been reaped
	err    error         // how it exited; read it after exited is closed
}

// launch starts cmd as the account, in a process group of its own so that a
// Ctrl-C meant for this process does not stop the cluster first.
//
// Linux sends the parent-death signal when the thread that forked the child
// ends, not the process (prctl(2), PR_SET_PDEATHSIG), and the Go runtime ends a
// thread when a goroutine returns while locked to it, which any goroutine of the
// program may do. So the owner goroutine locks its thread, forks on it and holds
// it until the child is gone: the thread then ends early only if the whole
// process does.
func launch(cmd *exec.Cmd, as *account) (*process, error) {
	cmd.SysProcAttr = sysProcAttr(as)
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.exited)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		<-p.exited
		if as != nil && errors.Is(err, syscall.EPERM) {
			return nil, fmt.Errorf("run %s as user %s: %w: this root may not change its user; run as another user instead",
				cmd.Path, as.name, err)
		}
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return p, nil
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// signal is a no-op once the child is gone.
func (p *process) signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s (pid %d): %w", sig, filepath.Base(p.cmd.Path), p.cmd.Process.Pid, err)
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
