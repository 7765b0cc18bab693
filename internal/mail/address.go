package mail

import (
	"cmp"
	"errors"
	"net/mail"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bytes, from RFC 5321, 4.5.3.1: a path of 256 with its angle brackets.
const (
	maxAddress = 254
	maxLocal   = 64
	maxDomain  = 253
)

var errAddress = errors.New("it is not an e-mail address that mail can be sent to")

// wireAddress returns the bare address s as it goes out: the local part as it
// is (unquoted, as in net/mail), the domain in ASCII. A local part that is not
// ASCII needs SMTPUTF8 (RFC 6531).
func wireAddress(s string) (addr string, needsUTF8 bool, err error) {
	// Before the parser: it tolerates more than an account's address may hold,
	// such as marks that turn the direction of what follows.
	if len(s) > maxAddress || !printable(s) {
		return "", false, errAddress
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", false, errAddress
	}
	at := strings.LastIndexByte(a.Address, '@')
	local, domain := a.Address[:at], a.Address[at+1:]
	// Display names, comments, groups and angle brackets all end otherwise.
	if !strings.HasSuffix(s, "@"+domain) || len(local) > maxLocal {
		return "", false, errAddress
	}
	if domain, err = wireDomain(domain); err != nil || len(local)+1+len(domain) > maxAddress {
		return "", false, errAddress
	}
	return local + "@" + domain, !ascii(local), nil
}

// wireDomain returns the domain in ASCII (RFC 5891), as it stands if it is that
// already: names with underscores exist.
func wireDomain(d string) (string, error) {
	if !ascii(d) {
		var err error
		if d, err = idna.Lookup.ToASCII(d); err != nil {
			return "", errors.New("it is not a domain name")
		}
	}
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	}
	if d == "" || len(d) > maxDomain || strings.ContainsFunc(d, odd) {
		return "", errors.New("it is not a domain name")
	}
	return d, nil
}

// identity is checked Options.
type identity struct {
	from   mail.Address
	domain string // fit for EHLO and Message-ID, both of which write an IP address in brackets
}

func (o Options) identity() (identity, error) {
	a, err := mail.ParseAddress(o.From)
	if err != nil {
		return identity{}, errors.New("mail: the sender is not an address or \"Name <address>\"")
	}
	bare := strings.Trim((&mail.Address{Address: a.Address}).String(), "<>")
	addr, needsUTF8, err := wireAddress(bare)
	if err != nil || needsUTF8 {
		return identity{}, errors.New("mail: the sender's address must be one that any mail server takes, with an ASCII local part")
	}
	domain, err := literalOrDomain(cmp.Or(o.Domain, addr[strings.LastIndexByte(addr, '@')+1:]))
	if err != nil {
		return identity{}, errors.New("mail: the domain for Message-ID is neither a domain name nor an IP address")
	}
	return identity{mail.Address{Name: line(a.Name, 100), Address: addr}, domain}, nil
}

// literalOrDomain writes IP addresses as RFC 5321, 4.1.3 wants them.
func literalOrDomain(d string) (string, error) {
	ip, err := netip.ParseAddr(strings.Trim(d, "[]"))
	switch {
	case err != nil:
		return wireDomain(d)
	case ip.Is4():
		return "[" + ip.String() + "]", nil
	default:
		return "[IPv6:" + ip.WithZone("").String() + "]", nil
	}
}

// line makes one line of s: controls become spaces, invisible marks (joiners,
// direction, byte order) go, white space is folded, at most limit runes stay.
func line(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		default:
			return -1
		}
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit-1]) + "…"
	}
	return s
}

// printable is about what a header may hold. Package auth refuses more where an
// address is chosen: letters that show nothing, too.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
