package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kwai/internal/loopback"

	"golang.org/x/net/idna"
)

// URLs in settings are written as browsers write them, however they were typed:
// they are compared byte for byte, with an Origin here and with a token's issuer
// everywhere.

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// webURL reads a URL of http or https.
func webURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || defaultPorts[u.Scheme] == "" || u.User != nil {
		return nil, errors.New("it must be https:// or http://, and a host")
	}
	return u, normalizeHost(u)
}

// supportURL reads a URL of http, https or mailto.
func supportURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "mailto" {
		return webURL(text)
	}
	address, err := url.PathUnescape(u.Opaque)
	if err == nil {
		_, err = mail.ParseAddress("<" + address + ">")
	}
	if err != nil {
		return nil, errors.New("behind mailto: must be one address")
	}
	return u, nil
}

// normalizeHost writes the host in lower case and in punycode, and no port that
// needs none.
func normalizeHost(u *url.URL) error {
	host, err := asciiHost(u.Hostname())
	if err != nil {
		return err
	}
	port := strings.TrimLeft(u.Port(), "0")
	if n, err := strconv.ParseUint(cmp.Or(port, u.Port()), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return errors.New("its port is not a number from 1 to 65535")
	}
	if port == "" || port == defaultPorts[u.Scheme] {
		u.Host = host
	} else {
		u.Host = host + ":" + port
	}
	return nil
}

var (
	domainName = regexp.MustCompile(`^([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?$`)
	number     = regexp.MustCompile(`(^|\.)([0-9]+|0x[0-9a-f]*)\.?$`) // as browsers distinguish addresses from names
)

// asciiHost is a name or an address as it stands in a URL.
func asciiHost(host string) (string, error) {
	if strings.ContainsFunc(host, func(r rune) bool { return r > '~' }) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", errors.New("its host is no domain name")
		}
	}
	host = strings.ToLower(host)
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Zone() != "":
		return "", errors.New("browsers take no address with a zone")
	case err == nil && ip.Is4In6():
		b := ip.As16()
		return fmt.Sprintf("[::ffff:%x:%x]", int(b[12])<<8|int(b[13]), int(b[14])<<8|int(b[15])), nil
	case err == nil && ip.Is6():
		return "[" + ip.String() + "]", nil
	case err == nil:
		return ip.String(), nil
	case len(host) > 254 || !domainName.MatchString(host):
		return "", errors.New("its host is no domain name")
	case number.MatchString(host):
		return "", errors.New("its host ends as an IPv4 address and is none such as 192.0.2.1")
	}
	return host, nil
}

// publicURLOf is the setting --public-url.
func publicURLOf(text string) (*url.URL, error) {
	u, err := webURL(text)
	if err == nil && (u.RawQuery != "" || u.ForceQuery || u.Fragment != "") {
		err = errors.New("nothing may follow its path")
	}
	if err != nil {
		return nil, &usageError{"--public-url", fmt.Errorf("%q is not a URL such as https://auth.example.org: %w", text, err)}
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// originsOf is the setting --cors-origins.
func originsOf(texts []string) (origins []string, err error) {
	for _, text := range texts {
		for text := range strings.FieldsSeq(text) { // a blank after a comma
			origin, err := originOf(text)
			if err != nil {
				return nil, &usageError{"--cors-origins", fmt.Errorf("%q is not an origin such as https://club.example.org: %w", text, err)}
			}
			origins = append(origins, origin)
		}
	}
	return origins, nil
}

// noOrigins are schemes whose pages have none of their own.
var noOrigins = []string{"file", "data", "blob", "about", "javascript"}

var errNoHost = errors.New("it must be a scheme, :// and a host")

var appHost = regexp.MustCompile(`^[A-Za-z0-9_.-]+(:[0-9]{1,5})?$`)

// originOf is an origin as browsers send it, or, of an app, as its web view does:
// capacitor://localhost, chrome-extension://ID.
func originOf(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "*"):
		return "", errors.New("it may have no wildcard, for each site that it covers could act for its visitors: list every origin")
	case text == "null":
		return "", errors.New("any page can have that one")
	case err == nil && u.Host == "" && !strings.Contains(text, "/"):
		return "", suggestOrigin(text, errNoHost)
	case err != nil || u.Scheme == "" || u.Host == "":
		return "", errNoHost
	case defaultPorts[u.Scheme] != "":
		err = normalizeHost(u)
	case slices.Contains(noOrigins, u.Scheme):
		return "", fmt.Errorf("pages of %s:// have no origin of their own", u.Scheme)
	case u.Scheme == "ws" || u.Scheme == "wss" || strings.Contains(u.Scheme, "tp"): // most likely a mistyped http
		return "", suggestOrigin(text, fmt.Errorf("no page comes from %s://", u.Scheme))
	case !appHost.MatchString(strings.TrimSuffix(u.Host, ":")):
		err = errors.New("its host is none that an app has")
	default:
		u.Host = strings.TrimSuffix(u.Host, ":")
		if !strings.HasSuffix(u.Scheme, "-extension") { // Safari's ids are in upper case
			u.Host = strings.ToLower(u.Host)
		}
	}
	if err != nil {
		return "", err
	}
	origin := u.Scheme + "://" + u.Host
	if u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", fmt.Errorf("write %s", origin)
	}
	return origin, nil
}

// suggestOrigin adds the origin that was most likely meant, if there is one.
func suggestOrigin(text string, err error) error {
	if _, rest, ok := strings.Cut(text, "://"); ok {
		text = rest
	}
	scheme := "https"
	if host, _, _ := net.SplitHostPort(text); loopback.Is(strings.Trim(cmp.Or(host, text), "[]")) {
		scheme = "http"
	}
	u, parseErr := webURL(scheme + "://" + text)
	if parseErr != nil {
		return err
	}
	return fmt.Errorf("%w: write %s://%s", err, u.Scheme, u.Host)
}

// onLoopback reports whether an address can be reached from this machine only.
func onLoopback(address string) bool { return loopback.Is(hostOf(address)) }

// scheme is the scheme of the address listened on.
func (s *Settings) scheme() string {
	if s.TLSCert != "" {
		return "https"
	}
	return "http"
}

// hostOf is a host without its port.
func hostOf(hostPort string) string { return (&url.URL{Host: hostPort}).Hostname() }
