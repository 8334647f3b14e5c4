//go:build !unix

package main

import "time"

// resources returns zeroes: this system has no getrusage(2).
func resources() (cpu time.Duration, maxRSS int64) { return 0, 0 }
