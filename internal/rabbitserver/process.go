package rabbitserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// A process is a child with a group of its own and one goroutine that owns it.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the child has been reaped
}

// launch holds the thread that forks for as long as the child lives: Linux sends
// the parent-death signal when that thread ends (prctl(2), PR_SET_PDEATHSIG).
func launch(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = sysProcAttr()
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
		_ = cmd.Wait() // how it ended is seen from its log
	}()
	if err := <-started; err != nil {
		<-p.exited
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

// kill ends the group and waits for the child.
func (p *process) kill() error {
	if p == nil {
		return nil
	}
	err := killGroup(p.cmd.Process)
	if err != nil && !errors.Is(err, os.ErrProcessDone) && !p.gone() {
		return fmt.Errorf("kill %s (pid %d): %w", p.cmd.Path, p.cmd.Process.Pid, err)
	}
	<-p.exited
	return nil
}
