//go:build unix

package main

import (
	"math"
	"syscall"
)

// maxFiles is how many files this process may have open. Go has raised it to what
// the system allows.
func maxFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}
