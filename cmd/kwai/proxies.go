package main

import (
	"strings"

	"kwai/internal/web"
)

// proxies are those that --trusted-proxies names.
func (s *Settings) proxies() (web.Proxies, error) {
	trusted := make(web.Proxies, len(s.TrustedProxies))
	for i, text := range s.TrustedProxies {
		var err error
		if trusted[i], err = web.ParseProxy(strings.TrimSpace(text)); err != nil {
			return nil, &usageError{"--trusted-proxies", err}
		}
	}
	return trusted, nil
}
