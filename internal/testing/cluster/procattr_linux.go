package cluster

import "syscall"

// procAttr makes the child end when this process ends, and keeps a terminal's Ctrl-C
// from it: this process stops its servers in order.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
