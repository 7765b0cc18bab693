package mail

import (
	"context"
	"crypto/x509"
	"net"
)

// Reroute makes s connect to addr whatever host its setting names, and trust
// roots: how tests play a host that is not loopback.
func (s *SMTP) Reroute(addr string, roots *x509.CertPool) {
	dial := s.dial
	s.roots = roots
	s.dial = func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, addr) }
}

// DialWith replaces how s connects.
func (s *SMTP) DialWith(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	s.dial = dial
}
