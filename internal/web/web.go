// Package web is kwai's HTTP side: it reads requests, has the rules of package auth
// decide, and writes answers.
//
// What holds for every endpoint:
//
//   - All routes are in one list, [Server.routes]. An endpoint has a file of its
//     name here, and one of the same name in package auth.
//   - Handlers return an error. error.go alone makes a status and a text of it, as
//     problem+json or as a page.
//   - Nothing of a request is trusted. Bodies are bounded. Only pages read the query
//     string. Links are made of the public URL, never of the Host header.
//   - A request is one line in the log, to which handlers add by note.
//
// The endpoints are in login.go, logout.go, renew.go, recover.go, reset.go,
// password.go, sessions.go and user.go; dev.go has those of kwai serve --dev. What
// they share:
//
//	web.go      the routes; what happens to a request before its handler; the keys,
//	            openapi.yaml, /healthz and /readyz
//	client.go   where a request comes from; the proxies that are trusted
//	form.go     reading a form
//	error.go    errors: statuses, problem+json, error pages
//	oauth.go    errors as OAuth 2 clients read them
//	pages.go    pages, of the folder pages
//	qrcode.go   a QR code in a page
//	brand.go    whose pages they are: name, logo, colour, and the style sheet
//	cors.go     which other sites may call the API
//	log.go      the log and the counting of requests; metrics.go has the counters
//	pace.go     the pace of refusals
//	refusals.go the answers that net/http gives by itself
//
// To add an endpoint:
//
//  1. Write its rule in package auth.
//  2. Write its handler in a file of its name: read the fields (readForm, required,
//     err), call the rule, answer by writeJSON or page, and return all errors.
//  3. Add its line to [Server.routes].
//  4. If it has an error of a new kind, give that a code in package auth, and the code
//     a status in error.go.
//  5. Describe it in openapi.yaml. The tests hold every answer against it.
//
// CONTRIBUTING.md has the whole list, with the queries and the tests.
package web

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"kwai/internal/auth"
	"kwai/internal/i18n"
	"kwai/internal/mail"
)

// Server answers requests by the rules. Its fields are set before Handler.
type Server struct {
	Rules     *auth.Service
	PublicURL *url.URL
	// Language is that of pages for browsers that ask for none there is; nil: English.
	Language *i18n.Language
	// SiteURL is where people go on from the pages, and from /; "": nowhere.
	SiteURL string
	Brand   Brand
	// SelfDelete: users may delete their own accounts.
	SelfDelete bool
	// CORSOrigins may call the API from a browser, with credentials. Pages of
	// any other origin may neither read its answers nor change anything by it.
	CORSOrigins []string
	// Loopback limits it to this machine: every origin on loopback may call the
	// API, too, and a Host that is not loopback is refused. (A page of another
	// site could make its own name lead here, by DNS rebinding.)
	Loopback bool

	Proxies Proxies
	Log     *slog.Logger
	// DevMail, unless nil, is shown to everyone at /dev/mail.
	DevMail *mail.Files

	draining atomic.Bool
	bodies   atomic.Int64 // bytes of large bodies being read
	refusals *rate.Limiter
	metrics  *metrics
	nothing  *routeMetrics // of requests without a route
	warned   warned
	origins  refusedOrigins
}

// handler answers a request. If it returns an error, it has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one line of the list of routes.
type route struct {
	method, path string
	handle       handler
	page         bool // errors are shown to a person
}

// anywhere says that pages of all sites may send requests to a path. They read no cookie,
// or lead on to what does.
func anywhere(path string) bool { return strings.HasPrefix(path, "/oauth2/") }

// open says that pages of all sites may read what a path answers, without cookies.
func open(path string) bool {
	switch path {
	case "/oauth2/token", "/oauth2/userinfo", "/oauth2/revoke", "/.well-known/jwks.json", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server":
		return true
	}
	return false
}

func (s *Server) routes() []route {
	routes := []route{
		{"POST", "/api/v1/auth/login", s.login, false},
		{"POST", "/api/v1/auth/logout", s.logout, false},
		{"POST", "/api/v1/auth/access_token", s.renew, false},
		{"POST", "/api/v1/auth/recover", s.recover, false},
		{"POST", "/api/v1/auth/reset", s.reset, false},
		{"GET", "/api/v1/auth/user", s.loggedIn(s.user), false},
		{"POST", "/api/v1/auth/password", s.loggedIn(s.password), false},
		{"GET", "/api/v1/auth/sessions", s.loggedIn(s.sessions), false},
		{"DELETE", "/api/v1/auth/sessions", s.loggedIn(s.endOtherSessions), false},
		{"DELETE", "/api/v1/auth/sessions/{id}", s.loggedIn(s.endSession), false},

		{"GET", "/.well-known/jwks.json", s.jwks, false},
		{"GET", "/openapi.yaml", s.openAPI, false},
		{"GET", "/healthz", s.health, false},
		{"GET", "/readyz", s.ready, false},

		{"GET", "/recover", s.recoverPage, true},
		{"POST", "/recover", s.recoverForm, true},
		{"GET", "/sent", s.sitePage("sent"), true},
		{"GET", "/reset", s.resetPage, true},
		{"POST", "/reset", s.resetForm, true},
		{"GET", "/done", s.sitePage("done"), true},
		{"GET", "/style.css", s.style, false},
		{"GET", "/passkey.js", s.passkeyJS, false},
		{"GET", "/logo", s.logo, false},

		{"GET", "/login", s.loginPage, true},
		{"POST", "/login", s.loginForm, true},
		{"GET", "/login/code", s.waits(auth.NeedCode, s.codePage), true},
		{"POST", "/login/code", s.waits(auth.NeedCode, s.codeForm), true},
		{"GET", "/login/enrol", s.waits(auth.NeedEnrol, s.enrolPage), true},
		{"POST", "/login/enrol", s.waits(auth.NeedEnrol, s.enrolForm), true},
		{"GET", "/login/passkey", s.passkeyBack, true},
		{"GET", "/login/passkey/options", s.passkeyChallenge, false},
		{"POST", "/login/passkey", s.passkeyLogin, true},
		{"GET", "/logout", s.visited(s.logoutPage), true},
		{"POST", "/logout", s.sealed(s.logoutForm), true},
		{"GET", "/out", s.sitePage("out"), true},
		{"GET", "/account", s.visited(s.accountPage), true},
		{"GET", "/account/profile", s.visited(s.profilePage), true},
		{"POST", "/account/profile", s.sealed(s.profileForm), true},
		{"GET", "/account/email", s.fresh(s.emailPage), true},
		{"POST", "/account/email", s.proven(s.emailForm), true},
		{"GET", "/account/email/confirm", s.visited(s.emailConfirmPage), true},
		{"POST", "/account/email/confirm", s.sealed(s.emailConfirmForm), true},
		{"GET", "/account/password", s.fresh(s.passwordPage), true},
		{"POST", "/account/password", s.proven(s.passwordForm), true},
		{"GET", "/account/security", s.visited(s.securityPage), true},
		{"GET", "/account/security/app", s.fresh(s.appPage), true},
		{"POST", "/account/security/app", s.proven(s.appForm), true},
		{"GET", "/account/security/codes", s.fresh(s.codesPage), true},
		{"POST", "/account/security/codes", s.proven(s.codesForm), true},
		{"GET", "/account/security/remove", s.fresh(s.removePage), true},
		{"POST", "/account/security/remove", s.proven(s.removeForm), true},
		{"GET", "/account/security/two-steps", s.fresh(s.twoStepsPage), true},
		{"POST", "/account/security/two-steps", s.proven(s.twoStepsForm), true},
		{"GET", "/account/passkeys", s.fresh(s.passkeysPage), true},
		{"POST", "/account/passkeys", s.sealed(s.passkeysForm), true},
		{"GET", "/account/passkeys/remove", s.fresh(s.passkeyRemovePage), true},
		{"POST", "/account/passkeys/remove", s.proven(s.passkeyRemoveForm), true},
		{"POST", "/account/passkeys/options", s.sealed(s.passkeyOptions), true},
		{"GET", "/account/sessions", s.visited(s.sessionsPage), true},
		{"POST", "/account/sessions", s.sealed(s.sessionsForm), true},
		{"GET", "/account/apps", s.visited(s.appsPage), true},
		{"POST", "/account/apps", s.sealed(s.appsForm), true},
		{"GET", "/account/activity", s.visited(s.activityPage), true},
		{"GET", "/account/data", s.fresh(s.dataPage), true},
		{"GET", "/account/data.json", s.fresh(s.data), true},
		{"GET", "/.well-known/change-password", s.changePassword, true},

		{"GET", "/.well-known/openid-configuration", s.metadata, false},
		{"GET", "/.well-known/oauth-authorization-server", s.metadata, false},
		{"GET", "/oauth2/authorize", s.authorize, true},
		{"POST", "/oauth2/authorize", s.authorizePost, true},
		{"GET", "/consent", s.consentPage, true},
		{"POST", "/consent", s.consentForm, true},
		{"POST", "/oauth2/token", s.forApps(s.token), false},
		{"GET", "/oauth2/userinfo", s.forApps(s.userInfo), false},
		{"POST", "/oauth2/userinfo", s.forApps(s.userInfo), false},
		{"POST", "/oauth2/revoke", s.forApps(s.revoke), false},
		{"GET", "/oauth2/logout", s.appLogout, true},
		{"POST", "/oauth2/logout", s.appLogoutPost, true},
	}
	if s.SelfDelete {
		routes = append(routes,
			route{"GET", "/account/delete", s.fresh(s.deletePage), true},
			route{"POST", "/account/delete", s.proven(s.deleteForm), true},
			route{"GET", "/gone", s.sitePage("gone"), true},
		)
	}
	if s.SiteURL != "" {
		routes = append(routes, route{"GET", "/{$}", s.site, false})
	} else {
		routes = append(routes, route{"GET", "/{$}", s.visited(s.homePage), true})
	}
	if s.DevMail != nil {
		routes = append(routes,
			route{"GET", "/dev/mail", s.devMails, true},
			route{"GET", "/dev/mail/{name}", s.devMail, true},
			route{"GET", "/dev/uuid", s.devUUID, false},
		)
	}
	return routes
}

// noRoute is the route, in the log and the metrics, of requests that none answers.
const noRoute = "none"

// Handler serves all routes.
func (s *Server) Handler() (http.Handler, error) {
	sameOrigin := http.NewCrossOriginProtection()
	if err := sameOrigin.AddTrustedOrigin(origin(s.PublicURL)); err != nil {
		return nil, err
	}
	s.refusals = newPace()
	s.metrics = newMetrics()
	mux := http.NewServeMux()
	methods := make(map[string]map[string]route) // by path, and method
	for _, r := range s.routes() {
		handle := r.handle
		r.handle = func(w http.ResponseWriter, req *http.Request) error {
			// A page of another site could send forms with its visitor's cookie, or
			// have the browser guess passwords until its owner is locked out at home.
			if err := sameOrigin.Check(req); err != nil && !anywhere(r.path) && (r.page || !s.allows(req.Header.Get("Origin"))) {
				return errOtherSite
			}
			return handle(w, req)
		}
		if methods[r.path] == nil {
			methods[r.path] = make(map[string]route)
		}
		methods[r.path][r.method] = r
	}
	for path, byMethod := range methods {
		mux.Handle(path, s.serve(path, byMethod))
	}
	nothing := s.serve(noRoute, nil)
	mux.Handle("/", nothing)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer drain(w, r)
		if clean(r.URL.EscapedPath()) {
			mux.ServeHTTP(w, r)
		} else {
			nothing.ServeHTTP(w, r)
		}
	}), nil
}

// drain reads the rest of a body. If the connection were closed before, the answer
// could be lost: nginx, which asks for closing by default, would answer 502. For
// connections that it keeps net/http does the same, up to the same size. A larger
// body makes it wait a moment before it closes.
func drain(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.Header.Get("Expect") == "" { // else the client sends none that we don't ask for
		_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 256<<10))
	}
}

// clean reports whether ServeMux takes a path as it is. It would redirect another:
// without CORS, without a line in the log, and to a path that lacks a proxy's
// prefix.
func clean(escaped string) bool {
	shortest := path.Clean(escaped)
	return strings.HasPrefix(escaped, "/") && (escaped == shortest || shortest != "/" && escaped == shortest+"/")
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
	m := s.metrics.route(path, methods)
	if methods == nil {
		s.nothing = m
	}
	return s.logged(m, func(w http.ResponseWriter, req *http.Request) {
		api := path == noRoute || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/.well-known/") || path == "/openapi.yaml" || open(path)
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
		case s.Loopback && !onLoopback(req.Host):
			err = &httpError{http.StatusMisdirectedRequest, "kwai serve --dev answers to localhost only."}
		case req.RequestURI == "*" && req.Method != http.MethodOptions:
			err = &httpError{http.StatusBadRequest, "Only OPTIONS may ask for *."}
		case methods == nil:
			err = &httpError{http.StatusNotFound, "There is nothing here. (Has the path a slash too many?)"}
		case !ok:
			w.Header().Set("Allow", allowed)
			err = &httpError{http.StatusMethodNotAllowed, "Use one of: " + allowed + "."}
		default:
			err = r.handle(w, req)
		}
		if err == nil {
			return
		}
		if r.page || !ok && strings.Contains(req.Header.Get("Accept"), "text/html") {
			s.errorPage(w, req, err)
		} else {
			s.problem(w, req, err)
		}
	})
}

// writeJSON answers 200.
func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append(body, '\n')) // an error here is a client that went away
	return nil
}

// writeEmpty answers 200 without content, unless there is an error.
func writeEmpty(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	return writeJSON(w, struct{}{})
}

//go:embed openapi.yaml
var openAPI []byte

// openAPI answers GET /openapi.yaml. It names the public URL: Swagger UI on
// another origin would send passwords to its own.
func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	public := strings.ReplaceAll(s.PublicURL.String(), "'", "''") // it stands in single quotes
	_, _ = w.Write(bytes.ReplaceAll(openAPI, []byte(exampleURL), []byte(public)))
	return nil
}

// exampleURL is the public URL in openapi.yaml.
const exampleURL = "http://127.0.0.1:8080"

func (s *Server) jwks(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(s.Rules.Keys.Settings.JWKSMaxAge.Seconds())))
	// The issuer stands beside the keys: a client that reaches the server by another
	// address than tokens name can notice (RFC 7517, section 5, allows more members).
	return writeJSON(w, struct {
		Keys   any    `json:"keys"`
		Issuer string `json:"issuer"`
	}{s.Rules.Keys.JWKS(r.Context()).Keys, s.Rules.Settings.Issuer})
}

// health answers GET /healthz: the process lives.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, map[string]string{"status": "ok"})
}

// Drain makes /readyz answer 503, since the server ends. All else is answered as
// before.
func (s *Server) Drain() { s.draining.Store(true) }

// ready answers GET /readyz: requests can be served.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	if s.draining.Load() {
		return &httpError{http.StatusServiceUnavailable, "the server ends"}
	}
	if err := s.Rules.Ready(r.Context()); err != nil {
		return &httpError{http.StatusServiceUnavailable, err.Error()}
	}
	return writeJSON(w, map[string]string{"status": "ready"})
}
