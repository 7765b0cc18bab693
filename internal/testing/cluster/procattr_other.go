//go:build !linux

package cluster

import "syscall"

// procAttr changes nothing here: a terminal's Ctrl-C reaches the servers too, and
// those that a killed program left behind are ended by hand.
func procAttr() *syscall.SysProcAttr { return nil }
