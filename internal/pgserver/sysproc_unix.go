//go:build unix && !linux

package pgserver

import "syscall"

func sysProcAttr(as *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as.credential()}
}
