package load

import (
	"fmt"
	"sync/atomic"
)

// TrustClients are the flags of a server that throttles, as kwai does by default,
// and takes this program for a proxy, whose word it believes on where requests
// come from.
var TrustClients = []string{"--limits=on", "--trusted-proxies=127.0.0.1"}

var networks atomic.Int64

// NewNetwork is an address in a network, as the server counts them, that no
// address before came from: there are six million.
func NewNetwork() string {
	n := networks.Add(1)
	return fmt.Sprintf("%d.%d.%d.1", 20+n>>16%100, n>>8&255, n&255)
}
