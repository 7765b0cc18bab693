//go:build !linux

package password

import (
	"os"
	"os/exec"
)

func executable() (string, error) { return os.Executable() }

// startNice starts a command. How it gives way to others is left to the system.
func startNice(cmd *exec.Cmd, _ int) error { return cmd.Start() }
