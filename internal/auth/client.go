package auth

import (
	"context"
	"net/netip"
)

// Client is whom a request comes from. It goes with the request's context, as
// it concerns what is told of a use case, and how often it may be tried, but
// not what it does. Commands have none: an operator is not throttled.
type Client struct {
	Address netip.Addr // zero where it isn't known
	// Network says that the address is the client's own and not that of a proxy
	// which others come from, too. Without it the rules by network are off.
	Network   bool
	UserAgent string // as the client wrote it, bounded
}

type clientKey struct{}

// WithClient says whom what is done with the context is done for.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

func clientOf(ctx context.Context) (c Client, ok bool) {
	c, ok = ctx.Value(clientKey{}).(Client)
	return c, ok
}

// The prefixes of a network: what one customer of a provider commonly gets.
const (
	prefix4 = 24
	prefix6 = 56
)

// network is the prefix that the client's failures are counted by; "" where it
// isn't known.
func (c Client) network() string {
	if !c.Network || !c.Address.IsValid() {
		return ""
	}
	address := c.Address.Unmap().WithZone("")
	bits := prefix6
	if address.Is4() {
		bits = prefix4
	}
	p, err := address.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}
