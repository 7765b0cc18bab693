package auth

import "net/netip"

// Client is who sends a request: the audit log names it, and throttling counts by
// its network. What a use case does doesn't depend on it.
type Client struct {
	Address netip.Addr // zero where it isn't known
	// Network says that the address is the client's own and not that of a proxy
	// which others come from, too. Without it the rules by network are off.
	Network   bool
	UserAgent string // as the client wrote it, bounded
}

// Operator is the Client of commands and of the server itself: the audit log names
// no address, and no network is throttled.
var Operator = Client{}

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
