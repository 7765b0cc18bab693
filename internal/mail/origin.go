package mail

import (
	"net/netip"
	"time"
)

// Origin is when something happened, and where it came from.
type Origin struct {
	When      time.Time
	Address   string // of the client; may be empty
	UserAgent string // as the client wrote it; may be empty
}

// from is a sentence about where it came from, or empty.
func (m *draft) from(o Origin) string {
	a, err := netip.ParseAddr(o.Address)
	if err != nil || a.Zone() != "" {
		return ""
	}
	if name := m.lang.Device(o.UserAgent); name != "" {
		return m.lang.Text("mail.from_device", "address", a.String(), "device", name)
	}
	return m.lang.Text("mail.from", "address", a.String())
}
