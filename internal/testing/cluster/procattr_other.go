//go:build !linux

package cluster

import "syscall"

// procAttr changes nothing here: a terminal's Ctrl-C reaches the servers, too. If this
// program is killed, end its servers by hand.
func procAttr() *syscall.SysProcAttr { return nil }
