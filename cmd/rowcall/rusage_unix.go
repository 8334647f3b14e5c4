//go:build unix

package main

import (
	"runtime"
	"syscall"
	"time"
)

// resources returns the CPU time of this process, user and system, and the most
// memory that was resident, in bytes. Both are 0 if the system does not say.
func resources() (cpu time.Duration, maxRSS int64) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, 0
	}
	maxRSS = int64(u.Maxrss) //nolint:unconvert // 32 bits wide on some systems
	if runtime.GOOS != "darwin" && runtime.GOOS != "ios" {
		maxRSS <<= 10 // getrusage(2): kilobytes, on macOS bytes
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), maxRSS
}
