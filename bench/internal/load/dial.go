package load

import (
	"context"
	"net"
)

// NewConnContext is [NewConn] for a connection that breaks off when ctx ends,
// whatever it is at.
func NewConnContext(ctx context.Context, address string) *Conn {
	return &Conn{address: address, ctx: ctx}
}

// Dial opens a TCP connection, for clients that aren't of the kind that [Conn]
// is. It is closed when ctx ends, or by the caller before that.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: exchangeTimeout}).DialContext(ctx, "tcp", address)
	if err != nil || ctx.Done() == nil {
		return c, err
	}
	return &mortal{c, context.AfterFunc(ctx, func() { _ = c.Close() })}, nil
}

// mortal is a connection that a context outlives or closes.
type mortal struct {
	net.Conn
	forget func() bool
}

func (m *mortal) Close() error {
	m.forget()
	return m.Conn.Close()
}
