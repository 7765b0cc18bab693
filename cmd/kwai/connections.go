package main

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// connections bounds how many clients are connected at the same time: each takes
// memory and a descriptor, and nothing is cheaper for an attacker than to open
// them and wait. When there are as many as may be, a new one takes the place of
// the one that has been idle longest, so that nobody is kept out by those who do
// nothing; where all are at work, it waits to be accepted.
type connections struct {
	net.Listener
	max int

	mu     sync.Mutex
	room   *sync.Cond
	open   map[net.Conn]*list.Element // nil while it is at work
	idle   *list.List                 // of net.Conn, the longest idle first
	closed bool
}

// ownFiles is how many descriptors are left to the database, its connections and
// the processes that hash.
const ownFiles = 128

func bound(l net.Listener, maximum int, log *slog.Logger) *connections {
	if files := maxFiles(); maximum > files-ownFiles {
		maximum = max(1, files-ownFiles)
		log.Warn("fewer clients can connect than --max-connections says: the system allows this process too few open files", "connections", maximum, "files", files)
	}
	c := &connections{Listener: l, max: maximum, open: make(map[net.Conn]*list.Element), idle: list.New()}
	c.room = sync.NewCond(&c.mu)
	return c
}

// Accept waits until there is room for one more.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.open) >= c.max && c.idle.Len() == 0 && !c.closed {
		c.room.Wait()
	}
	if c.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	if len(c.open) >= c.max {
		longest := c.idle.Remove(c.idle.Front()).(net.Conn)
		delete(c.open, longest)
		_ = longest.Close()
	}
	c.open[conn] = c.idle.PushBack(conn) // it hasn't sent anything yet
	return conn, nil
}

// Close ends an Accept that waits.
func (c *connections) Close() error {
	c.mu.Lock()
	c.closed = true
	c.room.Signal()
	c.mu.Unlock()
	return c.Listener.Close()
}

// follow is the server's ConnState.
func (c *connections) follow(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	place, ok := c.open[conn]
	if !ok || state == http.StateNew {
		return
	}
	if place != nil {
		c.idle.Remove(place)
	}
	switch state {
	case http.StateActive:
		c.open[conn] = nil
	case http.StateIdle:
		c.open[conn] = c.idle.PushBack(conn)
	default:
		delete(c.open, conn)
	}
	c.room.Signal()
}
