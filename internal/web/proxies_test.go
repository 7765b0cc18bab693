package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"kwai/internal/web"
)

// behind is the site behind a proxy that does to requests what these lines say:
// as real proxies, it passes on what it doesn't know.
func (s *site) behind(rewrite func(in, out *http.Request)) *site {
	s.tb.Helper()
	far := s.listen()
	target, err := url.Parse(far.URL)
	s.ok(err)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Transport: far.via, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		for _, name := range []string{"Forwarded", "X-Forwarded-For"} { // which ReverseProxy drops
			r.Out.Header[name] = r.In.Header[name]
		}
		rewrite(r.In, r.Out)
	}})
	s.tb.Cleanup(proxy.Close)
	near := *s
	near.URL, near.via = proxy.URL, proxy.Client().Transport
	return &near
}

// TestClientsBehindAProxyAreKnown by what the proxy says of them, and by nothing
// that they say themselves.
func TestClientsBehindAProxyAreKnown(t *testing.T) {
	t.Parallel()
	const client = "203.0.113.9"
	for name, c := range map[string]struct {
		proxies web.Proxies
		rewrite func(in, out *http.Request)
		want    string // address in the log
		warning string
	}{
		"one that appends, as nginx": {
			trusting("127.0.0.1"), func(in, out *http.Request) {
				out.Header.Set("X-Forwarded-For", strings.Join(append(in.Header["X-Forwarded-For"], client), ", "))
			}, client, "",
		},
		"one that adds a line, as HAProxy": {
			trusting("10.0.0.0/8 127.0.0.0/8"), func(_, out *http.Request) { out.Header.Add("X-Forwarded-For", client) }, client, "",
		},
		"one that replaces, as Caddy": {
			trusting("127.0.0.1/32"), func(_, out *http.Request) { out.Header.Set("X-Forwarded-For", client) }, client, "",
		},
		"one that nobody named": {
			nil, func(_, out *http.Request) { out.Header.Set("X-Forwarded-For", client) }, "127.0.0.1", "none is trusted",
		},
		"another one was named": {
			trusting("10.0.0.2"), func(_, out *http.Request) { out.Header.Set("X-Forwarded-For", client) }, "127.0.0.1", "not among --trusted-proxies",
		},
		"one that writes Forwarded alone": {
			trusting("127.0.0.1"), func(_, out *http.Request) { out.Header.Del("X-Forwarded-For") }, "127.0.0.1", "which alone is read",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := bare(t, func(o *setup) { o.web.Proxies = c.proxies }) // a description of the API needs no rules
			proxied := s.behind(c.rewrite)
			for range 3 {
				r := proxied.request("GET", "/openapi.yaml", nil)
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
			warnings := strings.Count(log, `"level":"WARN"`)
			if c.warning == "" && warnings != 0 || c.warning != "" && strings.Count(log, c.warning) != 1 {
				t.Errorf("want %q once of %d warnings:\n%s", c.warning, warnings, log)
			}
		})
	}
}
