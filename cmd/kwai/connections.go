package main

import (
	"container/list"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// connections bounds how many clients are connected at the same time: each takes
// memory and a descriptor, and nothing is cheaper for an attacker than to open
// them and wait. When there are as many as may be, a new one takes the place of
// the one that has been idle longest or, where none is idle, has been at its
// request longest. In a flood of half requests that is one of the flood's, since
// honest ones are soon over. So no client is kept out.
type connections struct {
	net.Listener
	max int

	mu   sync.Mutex
	open map[net.Conn]*list.Element // in one of the lists
	// Both of net.Conn, the longest first. One that has not sent anything yet is
	// idle.
	idle, working *list.List
	displaced     int64 // connections that had to go
}

// Metrics are the collectors for the registry.
func (c *connections) Metrics() []prometheus.Collector {
	locked := func(value func() float64) func() float64 {
		return func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return value()
		}
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kwai_http_connections", Help: "Clients that are connected."},
			locked(func() float64 { return float64(len(c.open)) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kwai_http_connections_limit", Help: "Clients that may be connected."},
			func() float64 { return float64(c.max) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kwai_http_connections_displaced_total", Help: "Clients that had to make room for another one."},
			locked(func() float64 { return float64(c.displaced) })),
	}
}

// ownFiles is how many descriptors are left to the database, its connections and
// the processes that hash.
const ownFiles = 128

func limitConnections(l net.Listener, maximum int, log *slog.Logger) *connections {
	if files := maxFiles(); maximum > files-ownFiles {
		maximum = max(1, files-ownFiles)
		log.Warn("fewer clients can connect than --max-connections says: the system allows this process too few open files", "connections", maximum, "files", files)
	}
	return &connections{Listener: l, max: maximum, open: make(map[net.Conn]*list.Element), idle: list.New(), working: list.New()}
}

// Accept makes room for one more.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.max {
		longest := c.idle.Front()
		if longest == nil {
			longest = c.working.Front()
		}
		gone := longest.Value.(net.Conn)
		c.remove(gone)
		c.displaced++
		if t, ok := gone.(*tls.Conn); ok {
			gone = t.NetConn() // whose Close waits for no client to read a farewell
		}
		_ = gone.Close()
	}
	c.open[conn] = c.idle.PushBack(conn)
	return conn, nil
}

// track is the server's ConnState.
func (c *connections) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[conn] == nil || state == http.StateNew {
		return
	}
	c.remove(conn)
	switch state {
	case http.StateActive:
		c.open[conn] = c.working.PushBack(conn)
	case http.StateIdle:
		c.open[conn] = c.idle.PushBack(conn)
	case http.StateNew, http.StateHijacked, http.StateClosed:
	}
}

func (c *connections) remove(conn net.Conn) {
	// Removing from a list that it isn't in does nothing.
	c.idle.Remove(c.open[conn])
	c.working.Remove(c.open[conn])
	delete(c.open, conn)
}
