package cluster

import (
	"context"
	"net"
)

// DialWith replaces how the balancer connects.
func (b *Balancer) DialWith(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	b.transport.DialContext = dial
}
