package web

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"kwai/internal/auth"
)

// The authorization endpoint of OpenID Connect Core, narrowed as OAuth 2.1 and RFC 9700
// ask: the code flow, with PKCE, to addresses that match letter by letter.

const authorizePath = "oauth2/authorize"

// beginMark is the parameter that authorize adds to its own query, the last one: when
// the browser first came with the request.
const beginMark = "&kwai_begun="

// maxMark is more than that parameter has, in bytes.
const maxMark = 200

// authRequest is a request as it came.
type authRequest struct {
	auth.AuthRequest
	state     string
	locales   string
	loginHint string
	query     string // without the mark of its begin
	mark      string
	email     string // of the visitor, once that is known
	clientID  string // as it came
}

// authError is what is wrong with a request, as its app hears of it (RFC 6749, 4.1.2.1).
type authError struct{ code, description string }

func (e *authError) Error() string { return e.code + ": " + e.description }

// Errors that only a page shows, never a redirect: nobody knows where that would lead
// (RFC 6749, 4.1.2.1).
var (
	errUnknownApp  = errors.New("authorize.app")
	errOtherTarget = errors.New("authorize.redirect")
)

// readQuery reads a query as forms are read: in it a semicolon is a character like others,
// which ParseQuery refuses.
func readQuery(raw string) (url.Values, error) {
	q, err := url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B"))
	if err == nil && !every(q, utf8.ValidString) {
		err = errForm
	}
	return q, err
}

// readAuth reads a request. The error is errUnknownApp, errOtherTarget, an *authError, or
// another.
func (s *Server) readAuth(r *http.Request, raw string) (a authRequest, err error) {
	a.query, a.mark, _ = strings.Cut(raw, beginMark)
	q, err := readQuery(a.query)
	if err != nil {
		return a, errUnknownApp
	}
	one := func(name string) (string, bool) { return q.Get(name), len(q[name]) < 2 }
	id, once := one("client_id")
	if !once || id == "" {
		return a, errUnknownApp
	}
	app, err := s.Rules.App(r.Context(), id)
	a.clientID = id
	if auth.CodeOf(err) == auth.NotFound {
		return a, errUnknownApp
	}
	if err != nil {
		return a, err
	}
	a.App = app
	if a.RedirectURI, once = one("redirect_uri"); !once || !s.Rules.Redirects(a.App, a.RedirectURI) {
		return a, errOtherTarget
	}
	// From here on the app hears what is wrong.
	if state, _ := one("state"); plainText(state) {
		a.state = state
	}
	for _, name := range []string{"response_type", "response_mode", "scope", "state", "nonce", "prompt", "max_age", "code_challenge", "code_challenge_method", "login_hint", "ui_locales", "id_token_hint", "request", "request_uri", "registration"} {
		if _, once := one(name); !once {
			return a, &authError{"invalid_request", name + " is given twice"}
		}
		// What isn't read is left alone: an app may write "claims" on several lines.
		if !plainText(q.Get(name)) {
			return a, &authError{"invalid_request", name + " has a control character"}
		}
	}
	for name, code := range map[string]string{"request": "request_not_supported", "request_uri": "request_uri_not_supported", "registration": "registration_not_supported"} {
		if q.Get(name) != "" {
			return a, &authError{code, name + " is not supported"}
		}
	}
	// Else it would be lost on the way through the login; and what an app sends with it
	// comes back to it in the code.
	if !onward(authorizePath+"?"+a.query) || len(a.query) > maxRequest-maxMark {
		return a, &authError{"invalid_request", "the request is too long, or not encoded as an address is"}
	}
	switch kind := q.Get("response_type"); {
	case kind == "":
		return a, &authError{"invalid_request", "response_type is missing"}
	case kind != "code":
		return a, &authError{"unsupported_response_type", "the response_type must be code"}
	}
	if mode := q.Get("response_mode"); mode != "" && mode != "query" {
		return a, &authError{"invalid_request", "the response_mode must be query"}
	}
	a.Nonce, a.loginHint, a.locales = q.Get("nonce"), q.Get("login_hint"), q.Get("ui_locales")
	if err := a.readScopes(q.Get("scope")); err != nil {
		return a, err
	}
	if err := a.readPKCE(q.Get("code_challenge"), q.Get("code_challenge_method")); err != nil {
		return a, err
	}
	if err := a.readPrompt(q.Get("prompt"), q.Get("max_age")); err != nil {
		return a, err
	}
	if err := s.readSubject(r, &a, q.Get("id_token_hint")); err != nil {
		return a, err
	}
	a.Begun, _, err = s.Rules.BegunAuth(r.Context(), a.query, a.mark)
	return a, err
}

// readSubject reads whom an app means. A hint that can't be read, since its key is gone by
// now, or that is another app's, means nobody: it is no reason to keep anybody out.
func (s *Server) readSubject(r *http.Request, a *authRequest, text string) error {
	if text == "" {
		return nil
	}
	hint, known, err := s.Rules.ReadHint(r.Context(), text)
	if err == nil && known && hint.App == a.App.ID {
		a.Subject = hint.Subject
	}
	return err
}

// plainText has no control characters, which some program on the way would take amiss.
func plainText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// readScopes keeps those that there are: others are no error (RFC 6749, 3.3).
func (a *authRequest) readScopes(text string) error {
	asked := strings.Fields(text)
	if !slices.Contains(asked, "openid") {
		return &authError{"invalid_scope", "the scope must have openid"}
	}
	for _, scope := range auth.Scopes {
		if slices.Contains(asked, scope) && (scope != "offline_access" || a.App.Offline) {
			a.Scopes = append(a.Scopes, scope)
		}
	}
	return nil
}

func (a *authRequest) readPKCE(challenge, method string) error {
	a.Challenge = challenge
	switch {
	case challenge == "" && method != "":
		return &authError{"invalid_request", "there is a code_challenge_method and no code_challenge"}
	case challenge == "" && a.App.WithoutPKCE:
		return nil
	case challenge == "":
		return &authError{"invalid_request", "code_challenge is missing: use PKCE, with S256"}
	case method != "S256": // none means plain
		return &authError{"invalid_request", "the code_challenge_method must be S256"}
	case len(challenge) != 43 || strings.Trim(challenge, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "":
		return &authError{"invalid_request", "the code_challenge is no SHA-256 in base64url"}
	}
	return nil
}

func (a *authRequest) readPrompt(prompt, maxAge string) error {
	a.Prompt, a.MaxAge = strings.Fields(prompt), -1
	for _, p := range a.Prompt {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, p) {
			return &authError{"invalid_request", "there is no such prompt"}
		}
	}
	if slices.Contains(a.Prompt, "none") && len(a.Prompt) > 1 {
		return &authError{"invalid_request", "the prompt none stands alone"}
	}
	if maxAge != "" {
		n, err := strconv.ParseInt(maxAge, 10, 64)
		if err != nil || n < 0 || maxAge[0] == '+' {
			return &authError{"invalid_request", "max_age is no number of seconds"}
		}
		a.MaxAge = time.Duration(min(n, int64(100*365*24*time.Hour/time.Second))) * time.Second
	}
	return nil
}

// authorizePost leads from a form to the same request as an address: cookies of a form
// that another site sends don't come along, those of the next request do.
func (s *Server) authorizePost(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	return seeOtherQuery(w, r, authorizePath, f)
}

// seeOtherQuery leads to the same request as an address, which it must fit.
func seeOtherQuery(w http.ResponseWriter, r *http.Request, path string, f *form) error {
	query := url.Values(f.values).Encode()
	if len(query) > maxRequest {
		return &httpError{http.StatusRequestEntityTooLarge, "The form is too long."}
	}
	return seeOther(w, r, path+"?"+query)
}

// authorize answers with a code for the app, or asks its visitor for what is missing.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) error {
	a, err := s.readAuth(r, r.URL.RawQuery)
	if err != nil {
		return s.refuseAuth(w, r, a, err)
	}
	quiet := slices.Contains(a.Prompt, "none")
	v, err := s.visitor(w, r)
	if errors.Is(err, auth.ErrNotLoggedIn) {
		if quiet {
			return s.refuseAuth(w, r, a, &authError{"login_required", "nobody is logged in"})
		}
		s.pace() // as all who aren't logged in
		return s.askLogin(w, r, a, "")
	}
	if err != nil {
		return err
	}
	a.email = v.User.Email
	code, needs, err := s.Rules.Authorize(r.Context(), s.pageClient(r), v, a.AuthRequest, false)
	switch {
	case errors.Is(err, auth.ErrNotAllowed) && quiet: // prompt=none shows no page
		return s.refuseAuth(w, r, a, &authError{"access_denied", notAllowed})
	case err != nil:
		return s.refuseAuth(w, r, a, err)
	case needs == auth.AnotherUser && (quiet || !v.AuthTime.Before(a.Begun)):
		// OpenID Connect Core, 3.1.2.1: never a code of another user's than the hint's.
		return s.refuseAuth(w, r, a, &authError{"login_required", "another user is logged in than the one of the id_token_hint"})
	case needs == auth.AnotherUser:
		return s.askLogin(w, r, a, "select_account")
	case needs == auth.ALogin && quiet:
		return s.refuseAuth(w, r, a, &authError{"login_required", "the login is too old"})
	case needs == auth.ALogin:
		return s.askLogin(w, r, a, "login")
	case needs == auth.AChoice && quiet:
		return s.refuseAuth(w, r, a, &authError{"consent_required", "the user must agree first"})
	case needs == auth.AChoice:
		return s.ask(w, r, a, "consent?", "")
	}
	return s.answerApp(w, a, url.Values{"code": {code}})
}

// askLogin leads to the login, and from there back.
func (s *Server) askLogin(w http.ResponseWriter, r *http.Request, a authRequest, prompt string) error {
	more := url.Values{}
	for name, value := range map[string]string{"prompt": prompt, "login_hint": a.loginHint, "ui_locales": a.locales} {
		if value != "" {
			more.Set(name, value)
		}
	}
	tail := ""
	if len(more) > 0 {
		tail = "&" + more.Encode()
	}
	return s.ask(w, r, a, "login?next="+url.QueryEscape(authorizePath+"?"), tail)
}

// ask leads to a page with the request, and the mark of its begin.
func (s *Server) ask(w http.ResponseWriter, r *http.Request, a authRequest, page, tail string) error {
	_, known, err := s.Rules.BegunAuth(r.Context(), a.query, a.mark)
	mark := a.mark
	if err == nil && !known {
		mark, err = s.Rules.BeginAuth(r.Context(), a.query)
	}
	if err != nil {
		return err
	}
	query := a.query + beginMark + mark
	if !onward(authorizePath + "?" + query) {
		// The login would lose it, and lead to the account.
		return s.refuseAuth(w, r, a, &authError{"invalid_request", "the request is too long, or isn't written as an address is"})
	}
	if strings.HasPrefix(page, "login?") {
		query = url.QueryEscape(query)
	}
	return seeOther(w, r, page+query+tail)
}

// answerApp leads to the app, with parameters behind those that its address has.
func (s *Server) answerApp(w http.ResponseWriter, a authRequest, answer url.Values) error {
	if a.state != "" {
		answer.Set("state", a.state)
	}
	answer.Set("iss", s.Rules.Settings.Issuer) // RFC 9207
	return leadOut(w, a.RedirectURI, answer)
}

// leadOut leads to an address of an app's.
func leadOut(w http.ResponseWriter, to string, more url.Values) error {
	if len(more) > 0 {
		between := "?"
		if strings.Contains(to, "?") {
			between = "&"
		}
		to += between + more.Encode()
	}
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// authorizeErrorPage is the data of "authorizeerror": a request whose error the app isn't sent.
type authorizeErrorPage struct {
	Text string
	// Where the user isn't allowed: the address that hears it, the request, for another
	// account, and the address of this one.
	Back, Request, Email string
}

const notAllowed = "the user may not use the app"

// refuseAuth tells the app what is wrong, or the visitor where the app can't be told.
func (s *Server) refuseAuth(w http.ResponseWriter, r *http.Request, a authRequest, err error) error {
	l := s.language(r)
	noteApp(w, a.App.ID, a.clientID)
	if errors.Is(err, errUnknownApp) || errors.Is(err, errOtherTarget) {
		note(w, "error", err.Error())
		if errors.Is(err, errOtherTarget) { // who set the app up looks for the difference
			to, _, _ := strings.Cut(a.RedirectURI, "?")
			note(w, "redirect_uri", forLog(to))
		}
		s.pace()
		return s.page(w, r, http.StatusBadRequest, "authorizeerror", authorizeErrorPage{Text: l.Text(err.Error())})
	}
	refused, ok := errors.AsType[*authError](err)
	switch {
	case ok:
	case errors.Is(err, auth.ErrNotAllowed):
		note(w, "error", "access_denied: "+notAllowed)
		back := url.Values{"error": {"access_denied"}, "error_description": {notAllowed}, "iss": {s.Rules.Settings.Issuer}}
		if a.state != "" {
			back.Set("state", a.state)
		}
		to := a.RedirectURI + "?" + back.Encode()
		if strings.Contains(a.RedirectURI, "?") {
			to = a.RedirectURI + "&" + back.Encode()
		}
		return s.page(w, r, http.StatusForbidden, "authorizeerror", authorizeErrorPage{
			Text: l.Text("authorize.group", "app", a.App.Name), Back: to, Request: a.query, Email: a.email,
		})
	case auth.CodeOf(err) == auth.Unavailable:
		note(w, "error", err.Error())
		refused = &authError{"temporarily_unavailable", "the server can't do this now"}
	default:
		return err
	}
	if ok {
		note(w, "error", refused.Error())
	}
	return s.answerApp(w, a, url.Values{"error": {refused.code}, "error_description": {refused.description}})
}

// consentPage is the data of "consent".
type consentPage struct {
	App     auth.App
	Host    string // of the address that one goes on to
	Scopes  []string
	Request string
	Email   string
	Grants  bool // the app is let see something; else it is only asked whether to go on
}

// consentPage asks whether the app may see what it asks for.
func (s *Server) consentPage(w http.ResponseWriter, r *http.Request) error {
	a, v, err := s.readConsent(w, r, r.URL.RawQuery)
	if err != nil {
		return s.refuseConsent(w, r, a, err)
	}
	request := a.query + beginMark + a.mark
	page := consentPage{App: a.App, Request: request, Email: v.User.Email, Grants: a.Grants()}
	l := s.language(r)
	for _, scope := range a.Scopes {
		page.Scopes = append(page.Scopes, l.Text("scope."+scope))
	}
	if u, err := url.Parse(a.RedirectURI); err == nil {
		page.Host = u.Host
		if page.Host == "" {
			page.Host = u.Scheme
		}
	}
	return s.boundPage(w, r, v, "consent", page, request)
}

func (s *Server) readConsent(w http.ResponseWriter, r *http.Request, raw string) (a authRequest, v auth.Visitor, err error) {
	if a, err = s.readAuth(r, raw); err != nil {
		return a, v, err
	}
	v, err = s.visitor(w, r)
	a.email = v.User.Email
	return a, v, err
}

// refuseConsent has a visitor whose session has ended begin with the login.
func (s *Server) refuseConsent(w http.ResponseWriter, r *http.Request, a authRequest, err error) error {
	if errors.Is(err, auth.ErrNotLoggedIn) {
		s.pace()
		return seeOther(w, r, authorizePath+"?"+a.query)
	}
	return s.refuseAuth(w, r, a, err)
}

// consentForm takes the answer.
func (s *Server) consentForm(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	request := f.optional("request")
	if !onward(authorizePath + "?" + request) { // no page of ours has sent it
		return s.refuseAuth(w, r, authRequest{}, errUnknownApp)
	}
	a, v, err := s.readConsent(w, r, request)
	if err != nil {
		return s.refuseConsent(w, r, a, err)
	}
	v, ok, err := s.Rules.TakeForm(r.Context(), v, f.optional("form"), request)
	if err != nil {
		return err
	}
	switch answer := f.optional("answer"); {
	case !ok || answer != "yes" && answer != "no": // somebody else's page, or an old one
		return seeOther(w, r, authorizePath+"?"+a.query)
	case answer == "no":
		return s.answerApp(w, a, url.Values{"error": {"access_denied"}, "error_description": {"the user said no"}})
	}
	code, needs, err := s.Rules.Authorize(r.Context(), s.pageClient(r), v, a.AuthRequest, true)
	if err != nil { // also where the session has ended just now
		return s.refuseConsent(w, r, a, err)
	}
	if needs != auth.Nothing {
		return seeOther(w, r, authorizePath+"?"+request)
	}
	return s.answerApp(w, a, url.Values{"code": {code}})
}
