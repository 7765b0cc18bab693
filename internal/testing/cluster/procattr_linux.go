package cluster

import "syscall"

// procAttr has the child end when we do, and keeps a terminal's Ctrl-C from it:
// we end our servers in their order.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
