package pgserver

import "syscall"

// sysProcAttr asks for SIGQUIT, an immediate shutdown, when this process dies:
// unlike SIGKILL it takes the cluster's other processes and its shared memory
// along.
func sysProcAttr(as *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  syscall.SIGQUIT,
		Credential: as.credential(),
	}
}
