//go:build !linux

package database

import (
	"net"
	"syscall"
	"time"
)

// setUserTimeout is Linux's; elsewhere a dead path is found out by keepalives
// while a connection is idle, and by the deadlines of statements else.
func setUserTimeout(string, syscall.RawConn, time.Duration) error { return nil }

// stale can't be seen here: a connection that has been idle for a second is asked.
func stale(_ net.Conn, idle time.Duration) bool { return idle > time.Second }
