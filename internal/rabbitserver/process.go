package rabbitserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/rowcall/rowcall/internal/child"
)

// launch gives the child a group of its own.
func launch(cmd *exec.Cmd) (*child.Process, error) {
	cmd.SysProcAttr = sysProcAttr()
	return child.Start(cmd)
}

// kill ends the group and waits for the child.
func kill(p *child.Process) error {
	if p == nil {
		return nil
	}
	err := killGroup(p.Cmd.Process)
	if err != nil && !errors.Is(err, os.ErrProcessDone) && !p.Gone() {
		return fmt.Errorf("kill %s (pid %d): %w", p.Cmd.Path, p.Cmd.Process.Pid, err)
	}
	<-p.Exited
	return nil
}
