package web

import (
	"fmt"
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"kwai/internal/auth"
	"kwai/internal/i18n"
)

// Where a request comes from.
//
// The connection's other end can't be forged, headers can: anybody may send
// them. So a header counts only where the peer is a proxy that was named as
// trusted, and is read from its right end, where that proxy has written what it
// saw itself. What the client sent stands to the left of that, whether the proxy
// appends to the header (nginx's $proxy_add_x_forwarded_for, cloud balancers),
// adds a line of its own (HAProxy's forwardfor) or drops the client's (Caddy,
// Traefik). Entries of trusted proxies are passed over; the first other one is
// the client.
//
// X-Forwarded-For alone is read. Nearly all proxies write it, and pass Forwarded
// (RFC 7239) on as the client sent it: to read whichever is there would let
// clients choose their address.
//
// For the same reason a trusted proxy's address never counts as a client's
// network: where nothing better is known, the rules by network are off. A client
// can't bring that about, since its proxy has the last word.

const forwardedFor = "X-Forwarded-For"

// Proxies are those whose X-Forwarded-For is believed, as ParseProxy makes them.
type Proxies []netip.Prefix

// ParseProxy reads a proxy's address, or the prefix of several, as 10.0.0.2 or
// fd00:7::/64. A prefix of length 0 is refused: everybody would be trusted.
func ParseProxy(text string) (netip.Prefix, error) {
	wrong := fmt.Errorf("%q is neither an address such as 10.0.0.2 nor a prefix such as 10.0.0.0/24", text)
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, wrong
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, wrong
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q is an address within a prefix: write %s for all of it, or %s alone", text, p.Masked(), p.Addr())
	}
	if p.Addr().Is4In6() { // compared with what has been unmapped
		if p.Bits() < 96 {
			return p, wrong
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 {
		return p, fmt.Errorf("%q would let every client say where it comes from", text)
	}
	return p, nil
}

func (p Proxies) trust(a netip.Addr) bool {
	return slices.ContainsFunc(p, func(of netip.Prefix) bool { return of.Contains(a) })
}

// warned remembers what has been warned of, which is done once.
type warned struct{ unnamed, otherPeer, otherHeader atomic.Bool }

type senderKey struct{}

// sender is who sent a request.
type sender struct {
	client auth.Client
	chosen *i18n.Language // by the visitor; nil: none, or the cookie hasn't been read
}

// senderOf is the sender of a request that has passed through logged; else nil.
func senderOf(r *http.Request) *sender {
	from, _ := r.Context().Value(senderKey{}).(*sender)
	return from
}

// clientOf is the client of a request that has passed through logged.
func clientOf(r *http.Request) auth.Client { return senderOf(r).client }

// pageClient is the client of a page's request, which comes in the page's language.
func (s *Server) pageClient(r *http.Request) auth.Client {
	c := clientOf(r)
	c.Language = s.language(r).Code
	return c
}

// client finds out who sent a request.
func (s *Server) client(r *http.Request) auth.Client {
	c := auth.Client{UserAgent: userAgent(r.Header)}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return c
	}
	c.Address = peer.Addr().Unmap().WithZone("")
	switch {
	case len(s.Proxies) > 0 && s.Proxies.trust(c.Address):
		c.Address, c.Network = s.forwarded(c.Address, r.Header)
	case !isPrivate(c.Address) || !hasForwarding(r.Header):
		c.Network = true
	case len(s.Proxies) > 0:
		// The proxies are named, and this is none: it may be a client that lies.
		c.Network = true
		if s.warned.otherPeer.CompareAndSwap(false, true) {
			s.Log.Warn("a peer that is not among --trusted-proxies says where requests come from: if it is a proxy, name it, or all its clients count as one", "peer", c.Address.String())
		}
	default:
		// Nearly certainly a proxy: all its clients would look like one.
		if s.warned.unnamed.CompareAndSwap(false, true) {
			s.Log.Warn("a proxy is in front and none is trusted: the rules by network are off until it is named by --trusted-proxies", "peer", c.Address.String())
		}
	}
	return c
}

// forwarded follows a trusted proxy's header from its right end to the client,
// or as far as its entries can be read. What stands left of that is ignored.
func (s *Server) forwarded(peer netip.Addr, h http.Header) (from netip.Addr, network bool) {
	lines := h[forwardedFor]
	if len(lines) == 0 && len(h["Forwarded"]) > 0 && s.warned.otherHeader.CompareAndSwap(false, true) {
		s.Log.Warn("a trusted proxy sends Forwarded instead of X-Forwarded-For, which alone is read: the rules by network are off", "peer", peer.String())
	}
	from = peer
	for text := range fromRight(lines) {
		a, ok := node(text)
		if !ok {
			break
		}
		if from = a; !s.Proxies.trust(a) {
			return from, true
		}
	}
	return from, false
}

// hasForwarding says that a proxy has been on the way, whichever header it writes.
func hasForwarding(h http.Header) bool {
	return len(h[forwardedFor]) > 0 || len(h["Forwarded"]) > 0
}

// shared is the range of providers' own networks, RFC 6598.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// isPrivate says that a peer with this address is near: a proxy perhaps.
func isPrivate(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// fromRight are the entries of a header's lines, which together are one list,
// from the right. How many there can be, net/http bounds by the headers' size.
func fromRight(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range slices.Backward(lines) {
			for at := len(line); at >= 0; {
				line = line[:at]
				at = strings.LastIndexByte(line, ',')
				// Empty ones are nobody's (RFC 9110, 5.6.1.2).
				if text := strings.Trim(line[at+1:], " \t"); text != "" && !yield(text) {
					return
				}
			}
		}
	}
}

// node is the address of a client as proxies write it: with or without a port,
// IPv6 in brackets or bare, its zone and the mapping of IPv4 left out. A name is
// none, nor is an address that no client can have.
func node(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		withPort, err := netip.ParseAddrPort(text)
		if err != nil { // brackets without a port, perhaps
			withPort, err = netip.ParseAddrPort(text + ":0")
		}
		if err != nil {
			return a, false
		}
		a = withPort.Addr()
	}
	a = a.Unmap().WithZone("")
	return a, !a.IsUnspecified() && !a.IsMulticast()
}

// maxLogged bounds what is kept of a header or a field, in bytes.
const maxLogged = 200

// userAgent is what the client calls itself, without what could disturb who
// reads it in a log, a table or a mail.
func userAgent(h http.Header) string { return forLog(h.Get("User-Agent")) }

// forLog is what a client has sent, without what could disturb who reads it.
func forLog(text string) string {
	if len(text) > maxLogged {
		at := maxLogged
		for at > maxLogged-utf8.UTFMax && !utf8.RuneStart(text[at]) {
			at--
		}
		text = text[:at]
	}
	// One byte for one or more: it gets no longer.
	return strings.Map(func(r rune) rune {
		if unfit(r) {
			return '?'
		}
		return r
	}, text)
}

// unfit is a control character, one that steers the text's direction, or a byte
// that is no UTF-8.
func unfit(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
