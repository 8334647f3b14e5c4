package child

import (
	"fmt"
	"os/exec"
	"runtime"
)

// A Process is a child that was started.
type Process struct {
	// Cmd is its command, whose ProcessState may be read after Exited is closed.
	Cmd *exec.Cmd
	// Exited is closed when the child has been reaped.
	Exited <-chan struct{}

	err error
}

// Start starts a command.
//
// Linux sends the parent-death signal when the thread that forked the child
// ends, not the process (prctl(2), PR_SET_PDEATHSIG), and the Go runtime ends a
// thread when a goroutine returns while locked to it, which any goroutine of the
// program may do. So the owner goroutine locks its thread, forks on it and holds
// it until the child is gone: the thread then ends early only if the whole
// process does.
func Start(cmd *exec.Cmd) (*Process, error) {
	exited := make(chan struct{})
	p := &Process{Cmd: cmd, Exited: exited}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		<-exited
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Err says how the child exited, as [exec.Cmd.Wait] does. It is read after
// Exited is closed.
func (p *Process) Err() error { return p.err }

// Gone reports whether the child has been reaped.
func (p *Process) Gone() bool {
	select {
	case <-p.Exited:
		return true
	default:
		return false
	}
}
