package web

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

// from has a server say whom a request comes from, and what it warns of. A
// header's values are lines, each "Name: value".
func from(tb testing.TB, trusted, peer string, lines ...string) (address string, network bool, warning string) {
	tb.Helper()
	var log bytes.Buffer
	s := Server{Log: slog.New(slog.NewTextHandler(&log, nil))}
	for text := range strings.FieldsSeq(trusted) {
		p, err := ParseProxy(text)
		if err != nil {
			tb.Fatal(err)
		}
		s.Proxies = append(s.Proxies, p)
	}
	r := &http.Request{RemoteAddr: peer, Header: http.Header{}}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	c := s.client(r)
	once := log.Len()
	s.client(r)
	if log.Len() != once {
		tb.Errorf("it warned again: %s", log.String())
	}
	if !c.Address.IsValid() {
		return "", c.Network, log.String()
	}
	return c.Address.String(), c.Network, log.String()
}

const (
	xff  = "X-Forwarded-For: "
	fwd  = "Forwarded: "
	near = "10.0.0.2:4711" // the proxy
)

func TestAddressOfAClient(t *testing.T) {
	t.Parallel()
	many := func(n int, text string) string { return strings.Repeat(text, n) }
	for name, c := range map[string]struct {
		trusted, peer string
		lines         []string
		want          string // a - before it: without the rules by network
		warns         string
	}{
		// Without a proxy.
		"the connection's":             {"", "192.0.2.7:4711", nil, "192.0.2.7", ""},
		"IPv6":                         {"", "[2001:db8::7]:4711", nil, "2001:db8::7", ""},
		"IPv4 mapped to IPv6":          {"", "[::ffff:192.0.2.7]:4711", nil, "192.0.2.7", ""},
		"a zone":                       {"", "[fe80::7%eth0]:4711", nil, "fe80::7", ""},
		"no address":                   {"", "pipe", nil, "-", ""},
		"a near one":                   {"", near, nil, "10.0.0.2", ""},
		"headers from far away":        {"", "192.0.2.7:4711", []string{xff + "203.0.113.9", fwd + "for=203.0.113.9"}, "192.0.2.7", ""},
		"a proxy nobody named":         {"", near, []string{xff + "203.0.113.9"}, "-10.0.0.2", "none is trusted"},
		"the other header":             {"", near, []string{fwd + "for=203.0.113.9"}, "-10.0.0.2", "none is trusted"},
		"it is on this machine":        {"", "127.0.0.1:4711", []string{xff}, "-127.0.0.1", "none is trusted"},
		"on this machine, mapped":      {"", "[::ffff:127.0.0.1]:4711", []string{xff}, "-127.0.0.1", "none is trusted"},
		"on this machine, IPv6":        {"", "[::1]:4711", []string{xff}, "-::1", "none is trusted"},
		"its address is unique local":  {"", "[fd00::2]:4711", []string{xff}, "-fd00::2", "none is trusted"},
		"its address is link-local":    {"", "[fe80::2%eth0]:4711", []string{xff}, "-fe80::2", "none is trusted"},
		"its address is a provider's":  {"", "100.64.0.2:4711", []string{xff}, "-100.64.0.2", "none is trusted"},
		"no proxy that was named":      {"10.0.0.3", near, []string{xff + "203.0.113.9"}, "10.0.0.2", "not among --trusted-proxies"},
		"not named, far away":          {"10.0.0.3", "192.0.2.7:4711", []string{xff + "203.0.113.9"}, "192.0.2.7", ""},
		"a name in no proxy's network": {"10.0.0.0/31", near, nil, "10.0.0.2", ""},

		// A trusted proxy.
		"what it saw":                 {"10.0.0.2", near, []string{xff + "203.0.113.9"}, "203.0.113.9", ""},
		"by prefix":                   {"192.0.2.1 10.0.0.0/24", near, []string{xff + "203.0.113.9"}, "203.0.113.9", ""},
		"by mapped prefix":            {"::ffff:10.0.0.0/120", near, []string{xff + "203.0.113.9"}, "203.0.113.9", ""},
		"by mapped address":           {"::ffff:10.0.0.2", near, []string{xff + "203.0.113.9"}, "203.0.113.9", ""},
		"it says nothing":             {"10.0.0.2", near, nil, "-10.0.0.2", ""},
		"the client forged some":      {"10.0.0.2", near, []string{xff + "198.51.100.1, 198.51.100.2, 203.0.113.9"}, "203.0.113.9", ""},
		"the client forged the proxy": {"10.0.0.2", near, []string{xff + "10.0.0.2, 203.0.113.9"}, "203.0.113.9", ""},
		"the client forged in a line": {"10.0.0.2", near, []string{xff + "198.51.100.1", xff + "203.0.113.9"}, "203.0.113.9", ""},
		"the client forged the other": {"10.0.0.2", near, []string{fwd + "for=198.51.100.1", xff + "203.0.113.9"}, "203.0.113.9", ""},
		"two proxies":                 {"10.0.0.2 10.0.0.3", near, []string{xff + "198.51.100.1, 203.0.113.9, 10.0.0.3"}, "203.0.113.9", ""},
		"two proxies in lines":        {"10.0.0.2 10.0.0.3", near, []string{xff + "198.51.100.1, 203.0.113.9", xff + "10.0.0.3"}, "203.0.113.9", ""},
		"two proxies, one unnamed":    {"10.0.0.2", near, []string{xff + "203.0.113.9, 10.0.0.3"}, "10.0.0.3", ""},
		"proxies only":                {"10.0.0.0/24", near, []string{xff + "10.0.0.9, 10.0.0.3"}, "-10.0.0.9", ""},
		"the other header alone":      {"10.0.0.2", near, []string{fwd + "for=203.0.113.9"}, "-10.0.0.2", "which alone is read"},
		"a port":                      {"10.0.0.2", near, []string{xff + "203.0.113.9:65535"}, "203.0.113.9", ""},
		"IPv6 behind it":              {"10.0.0.2", near, []string{xff + "2001:db8::9"}, "2001:db8::9", ""},
		"IPv6 in brackets":            {"10.0.0.2", near, []string{xff + "[2001:db8::9]"}, "2001:db8::9", ""},
		"IPv6 with a port":            {"10.0.0.2", near, []string{xff + "[2001:db8::9]:80"}, "2001:db8::9", ""},
		"IPv6 with a zone":            {"10.0.0.2", near, []string{xff + "[fe80::9%eth0]:80"}, "fe80::9", ""},
		"mapped behind it":            {"10.0.0.2", near, []string{xff + "::ffff:203.0.113.9"}, "203.0.113.9", ""},
		"a mapped proxy":              {"10.0.0.2 10.0.0.3", near, []string{xff + "203.0.113.9, ::ffff:10.0.0.3"}, "203.0.113.9", ""},
		"spaces, tabs, empty ones":    {"10.0.0.2", near, []string{xff + "203.0.113.9\t, ,,", xff}, "203.0.113.9", ""},
		"enormous, to the left":       {"10.0.0.2", near, []string{xff + many(1<<20, "x") + ",203.0.113.9"}, "203.0.113.9", ""},
		"very many, to the left":      {"10.0.0.2", near, []string{xff + many(1<<18, "1.1.1.1,") + "203.0.113.9"}, "203.0.113.9", ""},
		"many spaces to the left":     {"10.0.0.2", near, []string{xff + many(600, " ") + "203.0.113.9"}, "203.0.113.9", ""},
		"many spaces to the right":    {"10.0.0.2", near, []string{xff + "203.0.113.9" + many(505, " ")}, "203.0.113.9", ""},
		"many proxies":                {"10.0.0.0/24", near, []string{xff + "203.0.113.9" + many(32, ",10.0.0.3")}, "203.0.113.9", ""},
		"many empty ones":             {"10.0.0.2", near, []string{xff + "203.0.113.9" + many(32, ",")}, "203.0.113.9", ""},
		"many empty lines":            {"10.0.0.2", near, append([]string{xff + "203.0.113.9"}, strings.Split(many(31, xff+"\n")+xff, "\n")...), "203.0.113.9", ""},

		// Junk ends the walk: the last good one is the client.
		"junk left of a proxy": {"10.0.0.2 10.0.0.3", near, []string{xff + "203.0.113.9, junk, 10.0.0.3"}, "-10.0.0.3", ""},
		"junk left of a client": {
			"10.0.0.2", near, []string{xff + "junk, 203.0.113.9"}, "203.0.113.9", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, network, warning := from(t, c.trusted, c.peer, c.lines...)
			want, off := strings.CutPrefix(c.want, "-")
			if address != want || network == off {
				t.Errorf("%q, by network: %v; want %q", address, network, c.want)
			}
			if (warning == "") != (c.warns == "") || !strings.Contains(warning, c.warns) {
				t.Errorf("it warned %q, want %q", warning, c.warns)
			}
		})
	}
}

func TestJunkIsNobodysAddress(t *testing.T) {
	t.Parallel()
	for _, junk := range []string{
		"junk", "unknown", "_hidden", "unix:", "example.org", "1.2.3", "1.2.3.4.5", "01.2.3.4", "0x1.2.3.4", "16909060", "1.2.3.4/8", "1.2.3.256", "-1.2.3.4",
		"1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:80:80", ":80", "1.2.3.4 5.6.7.8", "1.2.3.4\x00", "1.2.3.4;x", `"1.2.3.4"`, "１.2.3.4",
		"[1.2.3.4]", "[1.2.3.4]:80", "[2001:db8::9", "2001:db8::9]", "[2001:db8::9]80", "[2001:db8::9]:", "[[2001:db8::9]]", "[]", "[]:80", "2001:db8::g", "2001:db8:::9", "[2001:db8::9]:x",
		"0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "1.2.3.4%eth0", "for=1.2.3.4", "\xff",
	} {
		if address, network, _ := from(t, "10.0.0.2", near, xff+junk); address != "10.0.0.2" || network {
			t.Errorf("%q is %s, by network: %v", junk, address, network)
		}
	}
}

func TestParseProxy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.2": "10.0.0.2/32", "10.0.0.0/8": "10.0.0.0/8", "fd00:7::/64": "fd00:7::/64", "::1": "::1/128",
		"::ffff:10.0.0.2": "10.0.0.2/32", "::ffff:10.0.0.0/104": "10.0.0.0/8", "127.0.0.1/32": "127.0.0.1/32",
		"0.0.0.0/0": "", "::/0": "", "::ffff:0.0.0.0/96": "", "10.0.0.2/8": "", "::ffff:0.0.0.0/80": "", "fe80::1%eth0": "", "fe80::%eth0/64": "",
		"": "", " ": "", "proxy": "", "10.0.0": "", "10.0.0.0/33": "", "10.0.0.0/": "", "10.0.0.0/-1": "", "10.0.0.2:80": "", "[::1]": "", "private": "",
	} {
		p, err := ParseProxy(text)
		if err != nil && want == "" && strings.Contains(err.Error(), text) {
			continue
		}
		if err != nil || p.String() != want {
			t.Errorf("%q is %v, %v, want %q", text, p, err, want)
		}
	}
}

func TestUserAgentIsBoundedText(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                "",
		"curl/8.0 (x; y) é 漢":             "curl/8.0 (x; y) é 漢",
		"a\tb\x1b[31mc\x7f\u0085":         "a?b?[31mc??",
		"a\u202eb\u200bc\u2028d":          "a?b?c?d",
		"a\xffb\xc3":                      "a?b?",
		strings.Repeat("a", 201):          strings.Repeat("a", 200),
		strings.Repeat("é", 101):          strings.Repeat("é", 100),
		"a" + strings.Repeat("é", 101):    "a" + strings.Repeat("é", 99),
		"ab" + strings.Repeat("漢", 100):   "ab" + strings.Repeat("漢", 66),
		strings.Repeat("\x80", 300):       strings.Repeat("?", 196),
		strings.Repeat("\U0001f600", 100): strings.Repeat("\U0001f600", 50),
	} {
		if got := userAgent(http.Header{"User-Agent": {given, "another"}}); got != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
}

// FuzzClient: whatever clients write into a header, what the trusted proxy wrote
// behind it is whom the request comes from.
func FuzzClient(f *testing.F) {
	for _, seed := range []string{
		"", ",", "198.51.100.1", "198.51.100.1, 10.0.0.2", "[2001:db8::1]:80", `"`, `\"`, "unknown", ",,", "1.1.1.1:", "[::1%zone]:1", "\x00\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, forged string) {
		const wrote = "203.0.113.9"
		s := Server{Proxies: Proxies{netip.MustParsePrefix("10.0.0.2/32")}, Log: slog.New(slog.DiscardHandler)}
		for what, lines := range map[string][]string{"to it": {forged + "," + wrote}, "a line": {forged, wrote}} {
			c := s.client(&http.Request{RemoteAddr: near, Header: http.Header{forwardedFor: lines, "Forwarded": {forged}, "User-Agent": {forged}}})
			if c.Address != netip.MustParseAddr(wrote) || !c.Network {
				t.Errorf("adding %s: %q makes it %v, by network: %v", what, forged, c.Address, c.Network)
			}
			if len(c.UserAgent) > maxLogged || !utf8.ValidString(c.UserAgent) || strings.ContainsFunc(c.UserAgent, unfit) {
				t.Errorf("the user agent is %q", c.UserAgent)
			}
		}
		// Alone it is an address or nothing, and never a fault.
		c := s.client(&http.Request{RemoteAddr: near, Header: http.Header{forwardedFor: {forged}}})
		if !c.Address.IsValid() || c.Address.Is4In6() || c.Address.Zone() != "" || c.Network == s.Proxies.trust(c.Address) {
			t.Errorf("%q makes it %v, by network: %v", forged, c.Address, c.Network)
		}
	})
}

func BenchmarkClient(b *testing.B) {
	for name, proxies := range map[string]Proxies{
		"direct":  {},
		"proxied": {netip.MustParsePrefix("192.0.2.0/24")},
	} {
		b.Run(name, func(b *testing.B) {
			s := Server{Proxies: proxies}
			r := &http.Request{RemoteAddr: "192.0.2.7:4711", Header: http.Header{
				forwardedFor: {"198.51.100.1, 203.0.113.9"}, "User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
			}}
			b.ReportAllocs()
			for b.Loop() {
				s.client(r)
			}
		})
	}
}
