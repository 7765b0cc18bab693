package web

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"kwai/internal/loopback"
)

// errOtherSite refuses a page that may not use the API, or post our forms.
var errOtherSite = &httpError{http.StatusForbidden, "This was sent by a page of another site. If it is yours, name its origin in --cors-origins, and it may call the API."}

// allows reports whether pages of an origin may use the API.
func (s *Server) allows(from string) bool {
	return slices.Contains(s.CORSOrigins, from) || s.Loopback && isOriginOnLoopback(from)
}

func isOriginOnLoopback(from string) bool {
	u, err := url.Parse(from)
	return err == nil && origin(u) == from && onLoopback(u.Host)
}

// onLoopback reports whether a host, with a port or without, is this machine.
func onLoopback(hostPort string) bool {
	return loopback.Is((&url.URL{Host: hostPort}).Hostname())
}

// cors sets which other origins may read the answer. It answers preflights itself,
// and then returns true.
func (s *Server) cors(w http.ResponseWriter, r *http.Request, allowed string) bool {
	from := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && from != "" && r.Header.Get("Access-Control-Request-Method") != ""
	h := w.Header()
	everybody := open(r.URL.Path)
	if len(s.CORSOrigins) > 0 || s.Loopback {
		h.Add("Vary", "Origin")
	}
	switch {
	case everybody && !s.allows(from):
		h.Set("Access-Control-Allow-Origin", "*")
		if preflight {
			h.Set("Access-Control-Allow-Methods", allowed)
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			h.Set("Access-Control-Max-Age", "600")
		} else {
			h.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
		}
	case s.allows(from):
		h.Set("Access-Control-Allow-Origin", from)
		h.Set("Access-Control-Allow-Credentials", "true")
		if preflight {
			h.Set("Access-Control-Allow-Methods", allowed)
			// What it asks for: libraries that trace requests add headers of
			// their own, and none of them does harm here.
			if asked := r.Header.Values("Access-Control-Request-Headers"); len(asked) > 0 {
				h.Set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
			}
			h.Set("Access-Control-Max-Age", "600")
		} else {
			h.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
		}
	case from != "" && from != origin(s.PublicURL) && r.Header.Get("Sec-Fetch-Site") != "same-origin" && !strings.HasSuffix(from, "://"+r.Host):
		s.origins.refused(s.Log, from)
	}
	if preflight && allowed != "" {
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	return false
}

// refusedOrigins logs each refused origin once: a browser shows the developer of
// such a page hardly anything.
type refusedOrigins struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxOrigins bounds them: any client can make some up.
const maxOrigins = 50

func (o *refusedOrigins) refused(log *slog.Logger, from string) {
	from = from[:min(len(from), 100)]
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen[from] || len(o.seen) >= maxOrigins {
		return
	}
	if o.seen == nil {
		o.seen = make(map[string]bool)
	}
	o.seen[from] = true
	log.Warn("a page was refused the API: its origin isn't among --cors-origins", "origin", from)
}
