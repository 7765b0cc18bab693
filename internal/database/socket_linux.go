package database

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout has the kernel give up a TCP connection on which nothing that
// was sent has been acknowledged for so long: the other machine or the path to
// it is gone. A statement that takes its time is no such case, as the other end
// acknowledges it at once; a server that stops reading for so long while it is
// sent much, as in a move, is.
func setUserTimeout(network string, c syscall.RawConn, after time.Duration) error {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil
	}
	var err error
	if control := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	}); control != nil {
		return control
	}
	return err
}

// stale says whether an idle connection has something to read, which it
// shouldn't: its end, mostly. It looks without a round trip.
func stale(conn net.Conn, _ time.Duration) bool {
	for {
		wrapped, ok := conn.(interface{ NetConn() net.Conn }) // TLS
		if !ok {
			break
		}
		conn = wrapped.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	quiet := false
	// Not by Read, which would wait for another reader: after a write that took
	// long, pgx leaves one behind.
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = err == unix.EAGAIN
	})
	return err != nil || !quiet
}
