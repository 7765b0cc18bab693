package main

import (
	"net/netip"
	"strings"

	"kwai/internal/web"
)

// proxies are those that --trusted-proxies names.
func (s *Settings) proxies() (web.Proxies, error) {
	trusted := make([]netip.Prefix, len(s.TrustedProxies))
	for i, text := range s.TrustedProxies {
		var err error
		if trusted[i], err = web.ParseProxy(strings.TrimSpace(text)); err != nil {
			return web.Proxies{}, &usageError{"--trusted-proxies", err}
		}
	}
	header := web.XForwardedFor
	if s.ProxyHeader == "forwarded" {
		header = web.Forwarded
	}
	return web.Proxies{Trusted: trusted, Header: header}, nil
}
