package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"kwai/internal/store/storetest"
)

// behind is the site behind a proxy that does to requests what these lines say:
// as real proxies, it passes on what it doesn't know.
func (s *site) behind(rewrite func(in, out *http.Request)) *site {
	s.tb.Helper()
	target, err := url.Parse(s.URL)
	if err != nil {
		s.tb.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		for _, name := range []string{"Forwarded", "X-Forwarded-For"} { // which ReverseProxy drops
			r.Out.Header[name] = r.In.Header[name]
		}
		rewrite(r.In, r.Out)
	}})
	s.tb.Cleanup(proxy.Close)
	near := *s
	near.URL = proxy.URL
	return &near
}

// TestClientsBehindAProxyAreKnown by what the proxy says of them, and by nothing
// that they say themselves.
func TestClientsBehindAProxyAreKnown(t *testing.T) {
	t.Parallel()
	const client = "203.0.113.9"
	for name, c := range map[string]struct {
		flags   string
		rewrite func(in, out *http.Request)
		want    string // address in the log
		warning string
	}{
		"one that appends, as nginx": {
			"--trusted-proxies=127.0.0.1", func(in, out *http.Request) {
				out.Header.Set("X-Forwarded-For", strings.Join(append(in.Header["X-Forwarded-For"], client), ", "))
			}, client, "",
		},
		"one that adds a line, as HAProxy": {
			"--trusted-proxies=10.0.0.0/8,127.0.0.0/8", func(_, out *http.Request) { out.Header.Add("X-Forwarded-For", client) }, client, "",
		},
		"one that replaces, as Caddy": {
			"--trusted-proxies=127.0.0.1/32", func(_, out *http.Request) { out.Header.Set("X-Forwarded-For", client) }, client, "",
		},
		"one that writes Forwarded": {
			"--trusted-proxies=127.0.0.1 --proxy-header=forwarded", func(_, out *http.Request) {
				out.Header.Add("Forwarded", fmt.Sprintf(`proto=https;for="%s:4711"`, client))
			}, client, "",
		},
		"one that nobody named": {
			"", func(_, out *http.Request) { out.Header.Set("X-Forwarded-For", client) }, "127.0.0.1", "none is trusted",
		},
		"another one was named": {
			"--trusted-proxies=10.0.0.2", func(_, out *http.Request) { out.Header.Set("X-Forwarded-For", client) }, "127.0.0.1", "not among --trusted-proxies",
		},
		"the other header was named": {
			"--trusted-proxies=127.0.0.1 --proxy-header=forwarded", func(_, out *http.Request) {
				out.Header.Del("Forwarded")
				out.Header.Set("X-Forwarded-For", client)
			}, "127.0.0.1", "does not send the header that --proxy-header names",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, storetest.SQLite(t), strings.Fields(c.flags)...)
			proxied := s.behind(c.rewrite)
			for range 3 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxied.URL+"/openapi.yaml", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header["X-Forwarded-For"] = []string{"198.51.100.1", "127.0.0.1,127.0.0.1," + strings.Repeat("x", 4000)}
				r.Header["Forwarded"] = []string{`for="198.51.100.1, 127.0.0.1`}
				if a := proxied.do(r); a.Status != 200 {
					t.Fatal(a)
				}
			}
			s.log.wait(t, 3, `"route":"/openapi.yaml"`)
			log := s.log.String()
			if got := strings.Count(log, `"client":"`+c.want+`"`); got != 3 {
				t.Errorf("%d of 3 requests are of %s:\n%s", got, c.want, log)
			}
			if got := strings.Count(log, `"level":"WARN"`) - strings.Count(log, "no mail server"); c.warning == "" && got != 0 || c.warning != "" && strings.Count(log, c.warning) != 1 {
				t.Errorf("want %q once of %d warnings:\n%s", c.warning, got, log)
			}
		})
	}
}
