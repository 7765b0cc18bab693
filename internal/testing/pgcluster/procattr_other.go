//go:build !linux

package pgcluster

import "syscall"

// procAttr changes nothing here: run the tests as an ordinary user, and end a
// server that a killed test left behind by hand.
func procAttr(*account) *syscall.SysProcAttr { return nil }
