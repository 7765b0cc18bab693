package auth

import "net/netip"

// Client is who sends a request: the audit log names it, and throttling counts by
// its network.
type Client struct {
	Address netip.Addr // zero where it isn't known
	// Network says that the address is the client's own and not that of a proxy
	// which others come from, too. Without it the rules by network are off.
	Network   bool
	UserAgent string // as the client wrote it, bounded
	// Language is that of the page that the client was on; "" of a program. Mails that
	// come of it are in it, unless their user has chosen one.
	Language string
}

// Operator is the Client of commands and of the server itself: the audit log names
// no address, and no network is throttled.
var Operator = Client{}
