//go:build !linux

package password

import (
	"os"
	"os/exec"
	"time"
)

func executable() (string, error) { return os.Executable() }

func nameProcess() {}

var started = time.Now()

// processorTime stands in for it: only Linux has quotas that it is needed for.
func processorTime() time.Duration { return time.Since(started) }

// startNice starts a command. How it gives way to others is left to the system.
func startNice(cmd *exec.Cmd, _ int) error { return cmd.Start() }
