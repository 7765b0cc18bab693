package pgcluster

import "syscall"

// procAttr sets the account of a child, and that it ends when we do: by
// SIGQUIT, on which the server ends its own children too.
func procAttr(a *account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}
