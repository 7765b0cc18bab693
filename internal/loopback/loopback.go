// Package loopback tells this machine from others by the name of a host. What is
// sent to a host on loopback can be read by nobody on the way, so it needs no TLS,
// and nobody but this machine reaches what listens there.
//
// Package verify has a function of its own, since it imports nothing of kwai's.
package loopback

import (
	"net/netip"
	"strings"
)

// Is says whether a host, without a port or brackets, is this machine: localhost,
// or a loopback address. Other names are not looked up: they could lead elsewhere
// the next time.
func Is(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}
