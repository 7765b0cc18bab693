package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
)

const natsUser = "kwai"

// NATS is a NATS server with JetStream, within this process, on loopback, with
// a password and a folder of its own. Its methods are for one goroutine.
type NATS struct {
	folder, password string
	host             string
	port             int
	server           *server.Server
}

// StartNATS starts a server that keeps its streams in the folder, ready for
// connections when it returns. The caller must Stop it.
func StartNATS(ctx context.Context, folder string) (*NATS, error) {
	address, err := FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n := &NATS{folder: folder, password: rand.Text(), host: host}
	if n.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	if err := n.Start(); err != nil {
		return nil, err
	}
	return n, nil
}

// Start starts it again after a Stop, with the same URL and streams.
func (n *NATS) Start() error {
	s, err := server.NewServer(&server.Options{
		ServerName: "kwai", Host: n.host, Port: n.port,
		Username: natsUser, Password: n.password,
		JetStream: true, StoreDir: n.folder,
		NoSigs: true, NoLog: true,
		DisableShortFirstPing: true, // which a client that is slow to connect takes for a failure
	})
	if err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	n.server = s
	s.Start()
	if s.Addr() == nil { // it reports a failure in no other way
		n.Stop()
		return errors.New("start NATS: it can't listen, or has no JetStream")
	}
	return nil
}

// Stop ends the server, breaking off its connections. Its streams are kept.
func (n *NATS) Stop() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

// URL is how to reach the server: nats://USER:PASSWORD@HOST:PORT.
func (n *NATS) URL() string {
	return (&url.URL{
		Scheme: "nats", User: url.UserPassword(natsUser, n.password),
		Host: net.JoinHostPort(n.host, strconv.Itoa(n.port)),
	}).String()
}
