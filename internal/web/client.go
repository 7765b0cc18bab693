package web

import (
	"fmt"
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"kwai/internal/auth"
)

// Whom a request comes from.
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
// Of the two headers one alone is read, the one that was named. Nearly all
// proxies write X-Forwarded-For and pass Forwarded on as the client sent it, some
// write Forwarded and pass on the other: to read whichever is there would let
// clients choose. To compare the two would not help. If a request where they
// differ counted as the proxy's, a stranger could come in the name of the
// proxy's network, and that may be a user's own; if it counted as nobody's,
// everybody could switch the rules by network off for himself.
//
// For the same reason a trusted proxy's address never counts as a client's
// network: where nothing better is known, the rules by network are off. A client
// can't bring that about, since its proxy has the last word.

// Headers that proxies say in where a request comes from.
const (
	XForwardedFor = "X-Forwarded-For"
	Forwarded     = "Forwarded" // RFC 7239
)

// Proxies are those whose word is taken on where a request comes from.
type Proxies struct {
	Trusted []netip.Prefix // as ParseProxy makes them
	Header  string         // that they write: Forwarded, else X-Forwarded-For
}

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

func (p *Proxies) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p.Trusted, func(of netip.Prefix) bool { return of.Contains(a) })
}

// warned remembers what has been warned of, which is done once.
type warned struct{ unnamed, otherPeer, otherHeader atomic.Bool }

// client is whom a request comes from.
func (s *Server) client(r *http.Request) auth.Client {
	c := auth.Client{UserAgent: userAgent(r.Header)}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return c
	}
	c.Address = peer.Addr().Unmap().WithZone("")
	switch {
	case len(s.Proxies.Trusted) > 0 && s.Proxies.trusts(c.Address):
		c.Address, c.Network = s.forwarded(c.Address, r.Header)
	case !isPrivate(c.Address) || !hasForwarding(r.Header):
		c.Network = true
	case len(s.Proxies.Trusted) > 0:
		// It was said who is a proxy: this may be a client that lies.
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
	name, other, entry := XForwardedFor, Forwarded, node
	if s.Proxies.Header == Forwarded {
		name, other, entry = Forwarded, XForwardedFor, forwardedFor
	}
	lines := h[name]
	if len(lines) == 0 && len(h[other]) > 0 && s.warned.otherHeader.CompareAndSwap(false, true) {
		s.Log.Warn("a trusted proxy does not send the header that --proxy-header names, but the other one: the rules by network are off", "peer", peer.String(), "missing", name)
	}
	from = peer
	for text := range fromRight(lines, name == Forwarded) {
		a, ok := entry(text)
		if !ok {
			break
		}
		if from = a; !s.Proxies.trusts(a) {
			return from, true
		}
	}
	return from, false
}

func hasForwarding(h http.Header) bool { return len(h[XForwardedFor]) > 0 || len(h[Forwarded]) > 0 }

// shared is the range of providers' own networks, RFC 6598.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// isPrivate says that a peer with this address is near: a proxy perhaps.
func isPrivate(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// What is looked at of a header. No chain of proxies is as long.
const (
	maxEntries = 32
	maxEntry   = 512 // bytes
)

// fromRight are the entries of a header's lines, which together are one list,
// from the right. It ends before an entry that is too long to be one. Quotes are
// matched from the right, too: one that the client left open, to its left,
// changes nothing.
func fromRight(lines []string, quotes bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		looked := 0
		for _, line := range slices.Backward(lines) {
			for at := len(line); at >= 0 && looked < maxEntries; looked++ {
				line = line[:at]
				if at = lastSeparator(line, ',', quotes); at < -1 {
					return
				}
				// Empty ones are nobody's (RFC 9110, 5.6.1.2).
				if text := strings.Trim(line[at+1:], " \t"); text != "" && !yield(text) {
					return
				}
			}
		}
	}
}

// lastSeparator is the index of the last separator that stands outside quotes,
// -1 where there is none, and -2 where what follows it is too long or has a
// quote that doesn't begin.
func lastSeparator(text string, separator byte, quotes bool) int {
	least := max(-1, len(text)-1-maxEntry)
	quoted := false
	for i := len(text) - 1; i > least; i-- {
		switch {
		case quotes && text[i] == '"' && !escaped(text, i):
			quoted = !quoted
		case text[i] == separator && !quoted:
			return i
		}
	}
	if quoted || least >= 0 {
		return -2
	}
	return -1
}

// escaped says that an odd number of backslashes stands before i. It looks at
// few: all of an entry would make work that grows with its square.
func escaped(text string, i int) bool {
	n := 0
	for n < 8 && i-n > 0 && text[i-n-1] == '\\' {
		n++
	}
	return n%2 == 1
}

// forwardedFor is the node of a Forwarded element's one "for" parameter.
func forwardedFor(element string) (a netip.Addr, ok bool) {
	for at := len(element); at >= 0; {
		element = element[:at]
		if at = lastSeparator(element, ';', true); at < -1 {
			return a, false
		}
		name, value, found := strings.Cut(strings.Trim(element[at+1:], " \t"), "=")
		if !strings.EqualFold(name, "for") {
			continue
		}
		if quoted, is := strings.CutPrefix(value, `"`); is {
			if value, found = strings.CutSuffix(quoted, `"`); strings.ContainsAny(value, `"\`) {
				found = false // no address needs an escape
			}
		}
		if !found || ok {
			return a, false // twice: which?
		}
		if a, ok = node(value); !ok {
			return a, false
		}
	}
	return a, ok
}

// node is the address of a client as proxies write it: with or without a port,
// IPv6 in brackets or bare, its zone and the mapping of IPv4 left out. "unknown"
// and names that begin with _ (RFC 7239, 6.2 and 6.3) are none, nor is what no
// client can have.
func node(text string) (netip.Addr, bool) {
	host, port := text, ""
	inBrackets := strings.HasPrefix(text, "[")
	switch {
	case inBrackets:
		var ends bool
		if host, port, ends = strings.Cut(text[1:], "]"); !ends || port != "" && port[0] != ':' {
			return netip.Addr{}, false
		}
	case strings.Count(text, ":") == 1:
		host, port, _ = strings.Cut(text, ":")
		port = ":" + port
	}
	if port != "" && port[1:] != "" && port[1] != '_' {
		if _, err := strconv.ParseUint(port[1:], 10, 16); err != nil {
			return netip.Addr{}, false
		}
	} else if port == ":" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(host)
	if err != nil || inBrackets && a.Is4() {
		return netip.Addr{}, false
	}
	a = a.Unmap().WithZone("")
	return a, !a.IsUnspecified() && !a.IsMulticast()
}

// maxUserAgent bounds what is kept of the header, in bytes.
const maxUserAgent = 200

// userAgent is what the client calls itself, without what could disturb who
// reads it in a log, a table or a mail.
func userAgent(h http.Header) string {
	lines := h["User-Agent"]
	if len(lines) == 0 {
		return ""
	}
	text := lines[0]
	if len(text) > maxUserAgent {
		at := maxUserAgent
		for at > maxUserAgent-utf8.UTFMax && !utf8.RuneStart(text[at]) {
			at--
		}
		text = text[:at]
	}
	if !strings.ContainsFunc(text, unfit) {
		return text
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
