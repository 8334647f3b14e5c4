//go:build !unix

package pgserver

import "syscall"

func sysProcAttr(*account) *syscall.SysProcAttr { return nil }
