// Package web is kwai's HTTP side: the routes, one file per endpoint, the pages
// and the description of it all, openapi.yaml.
//
// To follow a request, find its route in [Server.routes], then open the file of
// the endpoint's name here and the one of the same name in package auth.
//
// Handlers return an error; error.go alone decides what the client sees of it.
// Nothing of a request is trusted: bodies are bounded, the query string is read
// by the pages alone, and links are made of the public URL, never of the Host
// header.
package web

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"kwai/internal/auth"
	"kwai/internal/mail"
)

// Server answers requests by the rules. Its fields are set before Handler.
type Server struct {
	Rules     *auth.Service
	PublicURL *url.URL
	// CORSOrigins may call the API from a browser, with credentials.
	CORSOrigins []string
	Proxies     Proxies
	Log         *slog.Logger
	// DevMail, unless nil, is shown to everyone at /dev/mail.
	DevMail *mail.Files

	bodies   atomic.Int64 // bytes of large bodies being read
	refusals *rate.Limiter
	metrics  *metrics
	warned   warned
}

// handler answers a request or says why not; then it has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one line of the list of routes.
type route struct {
	method, path string
	handle       handler
	page         bool // errors are shown to a person
}

func (s *Server) routes() []route {
	routes := []route{
		{"POST", "/api/v1/auth/login", s.login, false},
		{"POST", "/api/v1/auth/logout", s.logout, false},
		{"POST", "/api/v1/auth/access_token", s.renew, false},
		{"POST", "/api/v1/auth/recover", s.recover, false},
		{"POST", "/api/v1/auth/reset", s.reset, false},
		{"GET", "/api/v1/auth/user", s.user, false},
		{"POST", "/api/v1/auth/password", s.password, false},
		{"GET", "/api/v1/auth/sessions", s.sessions, false},
		{"DELETE", "/api/v1/auth/sessions", s.endOtherSessions, false},
		{"DELETE", "/api/v1/auth/sessions/{id}", s.endSession, false},

		{"GET", "/.well-known/jwks.json", s.jwks, false},
		{"GET", "/openapi.yaml", s.openAPI, false},
		{"GET", "/healthz", s.health, false},
		{"GET", "/readyz", s.ready, false},

		{"GET", "/recover", s.recoverPage, true},
		{"POST", "/recover", s.recoverForm, true},
		{"GET", "/reset", s.resetPage, true},
		{"POST", "/reset", s.resetForm, true},
		{"GET", "/style.css", s.style, false},
	}
	if s.DevMail != nil {
		routes = append(routes,
			route{"GET", "/dev/mail", s.devMails, true},
			route{"GET", "/dev/mail/{name}", s.devMail, true},
			route{"GET", "/dev/uuid", s.devUUID, false},
			// Pages name their style sheet relative to themselves.
			route{"GET", "/dev/style.css", s.style, false},
			route{"GET", "/dev/mail/style.css", s.style, false},
		)
	}
	return routes
}

// Handler serves all routes.
func (s *Server) Handler() (http.Handler, error) {
	sameOrigin := http.NewCrossOriginProtection()
	if err := sameOrigin.AddTrustedOrigin(origin(s.PublicURL)); err != nil {
		return nil, err
	}
	s.refusals = newPace()
	s.metrics = newMetrics()
	mux := http.NewServeMux()
	methods := make(map[string]map[string]route) // by path
	for _, r := range s.routes() {
		if r.page {
			// The API is for other origins too and takes no cookies; the pages'
			// forms are ours alone.
			handle := r.handle
			r.handle = func(w http.ResponseWriter, req *http.Request) error {
				if err := sameOrigin.Check(req); err != nil {
					return &httpError{http.StatusForbidden, "The form was sent from another site."}
				}
				return handle(w, req)
			}
		}
		if methods[r.path] == nil {
			methods[r.path] = make(map[string]route)
		}
		methods[r.path][r.method] = r
	}
	for path, byMethod := range methods {
		mux.Handle(path, s.serve(path, byMethod))
	}
	mux.Handle("/", s.serve("none", nil))
	return mux, nil
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// serve answers the requests for one path.
func (s *Server) serve(path string, methods map[string]route) http.Handler {
	var allow []string
	for m := range methods {
		allow = append(allow, m)
		if m == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	allowed := strings.Join(allow, ", ")
	return s.logged(s.metrics.route(path, methods), func(w http.ResponseWriter, req *http.Request) {
		api := path == "none" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/.well-known/") || path == "/openapi.yaml"
		if api && s.cors(w, req, allowed) {
			return
		}
		method := req.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		r, ok := methods[method]
		var err error
		switch {
		case methods == nil:
			err = &httpError{http.StatusNotFound, "There is nothing here."}
		case !ok:
			w.Header().Set("Allow", allowed)
			err = &httpError{http.StatusMethodNotAllowed, "Use one of: " + allowed + "."}
		default:
			err = r.handle(w, req)
		}
		if err == nil {
			return
		}
		s.pace()
		if r.page {
			s.errorPage(w, req, err)
		} else {
			s.problem(w, req, err)
		}
	})
}

// cors says which other origins may read the answer. It answers preflights
// itself, and then returns true.
func (s *Server) cors(w http.ResponseWriter, r *http.Request, allowed string) bool {
	from := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && from != "" && r.Header.Get("Access-Control-Request-Method") != ""
	h := w.Header()
	if len(s.CORSOrigins) > 0 {
		h.Add("Vary", "Origin")
		if slices.Contains(s.CORSOrigins, from) {
			h.Set("Access-Control-Allow-Origin", from)
			h.Set("Access-Control-Allow-Credentials", "true")
			if preflight {
				h.Set("Access-Control-Allow-Methods", allowed)
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
				h.Set("Access-Control-Max-Age", "600")
			} else {
				h.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
			}
		}
	}
	if preflight && allowed != "" {
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	return false
}

// Values of headers that most answers have, made once. net/http copies them.
var (
	contentJSON    = []string{"application/json"}
	contentProblem = []string{"application/problem+json"}
	noSniff        = []string{"nosniff"}
	noStore        = []string{"no-store"}
)

// writeJSON answers 200.
func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	w.Header()["Content-Type"] = contentJSON
	w.Header()["X-Content-Type-Options"] = noSniff
	_, _ = w.Write(append(body, '\n')) // an error here is a client that went away
	return nil
}

// empty is the answer that says only: done.
var empty = struct{}{}

func (s *Server) style(w http.ResponseWriter, r *http.Request) error {
	serveStyle(w, r)
	return nil
}

//go:embed openapi.yaml
var openAPI []byte

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI)
	return nil
}

func (s *Server) jwks(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(s.Rules.Settings.JWKSMaxAge.Seconds())))
	return writeJSON(w, keySet{s.Rules.Keys.JWKS(r.Context()).Keys, s.Rules.Settings.Issuer})
}

// keySet says as well whose keys they are: who reaches the server by another address
// than its tokens name finds that out (RFC 7517, section 5, allows more members).
type keySet struct {
	Keys   any    `json:"keys"`
	Issuer string `json:"issuer"`
}

type status struct {
	Status string `json:"status"`
}

// health says that the process lives.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, status{"ok"})
}

// ready says that requests can be served.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	err := s.Rules.Store.Ready(r.Context())
	if err == nil {
		err = s.Rules.Keys.Ready(r.Context())
	}
	if err != nil {
		return &unready{err}
	}
	return writeJSON(w, status{"ready"})
}
