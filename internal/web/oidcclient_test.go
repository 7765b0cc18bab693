package web_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/net/html"

	"kwai/internal/store"
	"kwai/internal/testing/keytest"
)

// What follows is an app, and the browser of its user, as others write them: of the
// product they know the addresses that the metadata names, and what the standards say.

// forApps makes the keys that apps need, as a server does in the background.
func (s *site) forApps() *site {
	s.tb.Helper()
	keytest.Insert(s.tb, s.rules.Store, s.master)
	s.rules.Keys.Tend(s.tb.Context())
	_, err := s.rules.Keys.RotateDue(s.tb.Context())
	s.ok(err)
	s.rules.Keys.Tend(s.tb.Context()) // which reads them
	if n := len(s.keySet().Keys); n < 2 {
		s.tb.Fatalf("there are %d keys, none of ID tokens", n)
	}
	return s
}

// keySet is the public keys.
func (s *site) keySet() (set jose.JSONWebKeySet) {
	s.tb.Helper()
	s.ok(json.Unmarshal(s.raw(publicURL+keySetPath, nil, nil).Body, &set))
	return set
}

// oidcMetadata is what an app reads of OpenID Connect Discovery.
type oidcMetadata struct {
	Issuer                string `json:"issuer"`
	AuthorizationEndpoint string `json:"authorization_endpoint"`
	TokenEndpoint         string `json:"token_endpoint"`
	UserinfoEndpoint      string `json:"userinfo_endpoint"`
	RevocationEndpoint    string `json:"revocation_endpoint"`
	EndSessionEndpoint    string `json:"end_session_endpoint"`
	JWKSURI               string `json:"jwks_uri"`
}

// oidcApp is an app.
type oidcApp struct {
	t            *testing.T
	s            *site
	meta         oidcMetadata
	id, secret   string
	redirect     string // where codes come
	loggedOut    string // where logouts lead
	secretInBody bool
}

// app registers an app, one without PKCE where nothing else is said, and reads the
// metadata.
func (s *site) app(t *testing.T, id string, change ...func(*store.App)) *oidcApp {
	t.Helper()
	host := id + ".example.com"
	made := store.App{
		ID: id, Name: strings.ToUpper(id[:1]) + id[1:], WithoutPKCE: true,
		RedirectURIs: []string{"https://" + host + "/callback"}, PostLogoutURIs: []string{"https://" + host + "/bye"},
	}
	public := false
	for _, f := range change {
		f(&made)
	}
	if made.Name == "" { // see publicApp
		made.Name, public, made.WithoutPKCE = "Public", true, false
	}
	_, secret, err := s.command.CreateApp(t.Context(), made, public, "")
	s.ok(err)
	a := &oidcApp{t: t, s: s, id: id, secret: secret, redirect: made.RedirectURIs[0]}
	if len(made.PostLogoutURIs) > 0 {
		a.loggedOut = made.PostLogoutURIs[0]
	}
	s.ok(json.Unmarshal(s.raw(publicURL+"/.well-known/openid-configuration", nil, nil).Body, &a.meta))
	return a
}

// publicApp has the app be a public one.
func publicApp(a *store.App) { a.Name = "" }

// in is the app in a subtest.
func (a *oidcApp) in(t *testing.T) *oidcApp {
	b := *a
	b.t = t
	return &b
}

// request is an authorization request. More parameters come in pairs; an empty value
// leaves one out.
func (a *oidcApp) request(more ...string) url.Values {
	q := url.Values{"client_id": {a.id}, "redirect_uri": {a.redirect}, "response_type": {"code"}, "scope": {"openid"}, "state": {"st&te=1+é"}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
		if more[i+1] == "" {
			q.Del(more[i])
		}
	}
	return q
}

// verifier and challenge are a pair of PKCE.
const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

var challenge = challengeOf(verifier)

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// appTokens is the answer of the token endpoint.
type appTokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	Scope        string `json:"scope"`
}

// raw sends a form, without any credentials of its own.
func (s *site) raw(to string, header http.Header, form url.Values) answer {
	s.tb.Helper()
	method, body := http.MethodGet, ""
	if form != nil {
		method, body = http.MethodPost, form.Encode()
	}
	return s.rawBody(method, to, header, body)
}

func (s *site) rawBody(method, to string, header http.Header, body string) answer {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, to, strings.NewReader(body))
	s.ok(err)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", urlencoded)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	return s.plain(r)
}

// plain is do without the API's description.
func (s *site) plain(r *http.Request) answer {
	s.tb.Helper()
	res, err := s.via.RoundTrip(r)
	s.ok(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	s.ok(err)
	return answer{res.StatusCode, res.Header, body}
}

// basic authenticates by the header.
func basic(id, secret string) http.Header {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	return r.Header
}

// bearer is the header with a token.
func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// post sends the app's form to an endpoint, with its credentials.
func (a *oidcApp) post(to string, form url.Values) answer {
	a.t.Helper()
	switch {
	case a.secret == "":
		form.Set("client_id", a.id)
	case a.secretInBody:
		form.Set("client_id", a.id)
		form.Set("client_secret", a.secret)
	default:
		return a.s.raw(to, basic(a.id, a.secret), form)
	}
	return a.s.raw(to, nil, form)
}

// exchange sends a code; more parameters come in pairs.
func (a *oidcApp) exchange(code string, more ...string) answer {
	a.t.Helper()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.redirect}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return a.post(a.meta.TokenEndpoint, form)
}

func (a *oidcApp) refresh(token string) answer {
	a.t.Helper()
	return a.post(a.meta.TokenEndpoint, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// got is a successful answer of the token endpoint.
func (a *oidcApp) got(res answer) (got appTokens) {
	a.t.Helper()
	if res.Status != http.StatusOK || json.Unmarshal(res.Body, &got) != nil {
		a.t.Fatalf("the token endpoint: %v", res)
	}
	same(a.t, "the content type", res.Header.Get("Content-Type"), "application/json")
	same(a.t, "Cache-Control", res.Header.Get("Cache-Control"), "no-store")
	if !strings.EqualFold(got.TokenType, "Bearer") || got.AccessToken == "" || got.ExpiresIn <= 0 {
		a.t.Errorf("the tokens are %s", res.Body)
	}
	return got
}

// idToken verifies an ID token (OpenID Connect Core, 3.1.3.7).
func (a *oidcApp) idToken(got appTokens) object {
	a.t.Helper()
	claims := a.verified(got.IDToken)
	half := sha256.Sum256([]byte(got.AccessToken))
	same(a.t, "at_hash", fmt.Sprint(claims["at_hash"]), base64.RawURLEncoding.EncodeToString(half[:16]))
	return claims
}

func (a *oidcApp) verified(text string) (claims object) {
	a.t.Helper()
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.RS256})
	a.s.ok(err)
	var set jose.JSONWebKeySet
	a.s.ok(json.Unmarshal(a.s.raw(a.meta.JWKSURI, nil, nil).Body, &set))
	keys := set.Key(jws.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		a.t.Fatalf("%d keys have the id %q", len(keys), jws.Signatures[0].Header.KeyID)
	}
	payload, err := jws.Verify(keys[0].Key)
	a.s.ok(err)
	a.s.ok(json.Unmarshal(payload, &claims))
	now := float64(a.s.clock.now().Unix())
	number := func(name string) float64 { n, _ := claims[name].(float64); return n }
	same[any](a.t, "iss", claims["iss"], a.meta.Issuer)
	same[any](a.t, "aud", claims["aud"], a.id)
	if sub, _ := claims["sub"].(string); sub == "" || len(sub) > 255 {
		a.t.Errorf("sub is %v", claims["sub"])
	}
	if number("exp") <= now || number("iat") > now+1 || number("iat") < now-300 || number("exp") <= number("iat") || number("auth_time") > now+1 {
		a.t.Errorf("at %v the ID token's times are %v", now, claims)
	}
	return claims
}

// userinfo is what an access token lets the app see.
func (a *oidcApp) userinfo(access string) (claims object) {
	a.t.Helper()
	res := a.s.raw(a.meta.UserinfoEndpoint, bearer(access), nil)
	if res.Status != http.StatusOK || json.Unmarshal(res.Body, &claims) != nil || res.Header.Get("Content-Type") != "application/json" {
		a.t.Fatalf("userinfo: %v", res)
	}
	for name, value := range claims {
		switch name {
		case "email_verified":
			_, ok := value.(bool)
			same(a.t, name+" is true or false", ok, true)
		case "groups":
			_, ok := value.([]any)
			same(a.t, name+" is a list", ok, true)
		default:
			text, ok := value.(string)
			same(a.t, name+" is a text", ok && text != "", true)
		}
	}
	return claims
}

// oauthRefusal holds an answer against what OAuth's errors at the token endpoints are.
func (a answer) oauthRefusal(tb testing.TB, what string, codes ...string) {
	tb.Helper()
	var members map[string]string
	if err := json.Unmarshal(a.Body, &members); err != nil || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
		tb.Errorf("%s: %v (%s) is not OAuth's JSON", what, a, a.Header)
		return
	}
	want := http.StatusBadRequest
	if members["error"] == "invalid_client" || members["error"] == "invalid_token" {
		want = http.StatusUnauthorized
	}
	if a.Status != want && a.Status != http.StatusRequestEntityTooLarge && a.Status != http.StatusUnsupportedMediaType || !slices.Contains(codes, members["error"]) || len(members) != 2 {
		tb.Errorf("%s: %v, want one of %q", what, a, codes)
	}
	if want == http.StatusUnauthorized && a.Header.Get("WWW-Authenticate") == "" {
		tb.Errorf("%s: %v has no WWW-Authenticate", what, a)
	}
	described(tb, what, members["error_description"])
}

// described holds a text against what error_description may have.
func described(tb testing.TB, what, text string) {
	tb.Helper()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		tb.Errorf("%s: the error_description is %q", what, text)
	}
}

// agent is the browser of somebody, who does what the pages ask for.
type agent struct {
	t               *testing.T
	s               *site
	cookies         map[string]string
	email, password string
	phone           *app
	logins, asked   int // how often the login and another question was answered
}

// agent is a browser without cookies.
func (s *site) agent(t *testing.T, email string) *agent {
	return &agent{t: t, s: s, cookies: make(map[string]string), email: email, password: good}
}

// shown is where a browser has come to: a page, or an address outside.
type shown struct {
	answer
	at  *url.URL
	out string // "": a page
}

// hops bounds redirects, as browsers do.
const hops = 20

// open goes to an address, and follows redirects as long as they stay with the provider.
func (b *agent) open(address string) shown {
	b.t.Helper()
	return b.follow(http.MethodGet, address, "")
}

func (b *agent) follow(method, address, body string) shown {
	b.t.Helper()
	at, err := url.Parse(address)
	b.s.ok(err)
	for range hops {
		r, err := http.NewRequestWithContext(b.t.Context(), method, at.String(), strings.NewReader(body))
		b.s.ok(err)
		if method == http.MethodPost {
			r.Header.Set("Content-Type", urlencoded)
			r.Header.Set("Origin", publicURL)
		}
		for name, value := range b.cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		a := b.s.plain(r)
		for _, c := range (&http.Response{Header: a.Header}).Cookies() {
			if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
				delete(b.cookies, c.Name)
			}
		}
		to := a.Header.Get("Location")
		if a.Status/100 != 3 || to == "" {
			return shown{a, at, ""}
		}
		if at, err = at.Parse(to); err != nil || at.Scheme+"://"+at.Host != publicURL {
			return shown{a, at, to}
		}
		method, body = http.MethodGet, ""
	}
	b.t.Fatalf("%s goes round in circles", address)
	return shown{}
}

// submit sends the page's first form, with fields set or added.
func (b *agent) submit(p shown, fields ...string) shown {
	b.t.Helper()
	doc, err := html.Parse(bytes.NewReader(p.Body))
	b.s.ok(err)
	attr := func(n *html.Node, name string) string {
		for _, at := range n.Attr {
			if at.Key == name {
				return at.Val
			}
		}
		return ""
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		form := url.Values{}
		for in := range n.Descendants() {
			if in.Type == html.ElementNode && in.Data == "input" && attr(in, "type") != "checkbox" {
				form.Set(attr(in, "name"), attr(in, "value"))
			}
		}
		for i := 0; i < len(fields); i += 2 {
			if fields[i] != "username" || form.Get("prove") == "" {
				form.Set(fields[i], fields[i+1])
			}
		}
		to, err := p.at.Parse(attr(n, "action"))
		b.s.ok(err)
		return b.follow(http.MethodPost, to.String(), form.Encode())
	}
	b.t.Fatalf("%s has no form: %v", p.at, p.answer)
	return shown{}
}

// goOn does what pages ask for until it is led out, or comes to a page that asks nothing.
func (b *agent) goOn(p shown) shown {
	b.t.Helper()
	for range hops {
		switch {
		case p.out != "" || p.Status != http.StatusOK:
			return p
		case p.at.Path == "/login":
			b.logins++
			p = b.submit(p, "username", b.email, "password", b.password)
		case p.at.Path == "/login/code" && b.phone != nil:
			p = b.submit(p, "code", b.phone.code())
		case p.at.Path == "/consent":
			b.asked++
			p = b.submit(p, "answer", "yes")
		case p.at.Path == "/logout":
			b.asked++
			p = b.submit(p)
		default:
			return p
		}
	}
	b.t.Fatalf("the pages ask for ever: %s", p.at)
	return p
}

// enter has an agent enter the app by a request, and returns what came back.
func (a *oidcApp) enter(b *agent, request url.Values) url.Values {
	a.t.Helper()
	b.t = a.t
	return a.back(b.goOn(b.open(a.meta.AuthorizationEndpoint+"?"+request.Encode())), request.Get("state"))
}

// back holds that a browser has come back to the app, and returns with what.
func (a *oidcApp) back(p shown, state string) url.Values {
	a.t.Helper()
	query, ok := strings.CutPrefix(p.out, a.redirect+"?")
	q, err := url.ParseQuery(query)
	if !ok || err != nil {
		a.t.Fatalf("the browser came to %s %q, want the app: %.600v", p.at, p.out, p.answer)
	}
	same(a.t, "the state", q.Get("state"), state)
	same(a.t, "state is there", q.Has("state"), state != "")
	same(a.t, "iss", q.Get("iss"), a.meta.Issuer)
	if q.Has("code") == q.Has("error") {
		a.t.Errorf("what came back is %q", query)
	}
	if q.Has("error") {
		described(a.t, query, q.Get("error_description"))
	}
	return q
}

// refused holds that a request came back with an error of these.
func (a *oidcApp) refused(what string, q url.Values, codes ...string) {
	a.t.Helper()
	if !slices.Contains(codes, q.Get("error")) {
		a.t.Errorf("%s: what came back is %v, want one of %q", what, q, codes)
	}
}

// tokensOf has an agent enter, and exchanges the code.
func (a *oidcApp) tokensOf(b *agent, more ...string) appTokens {
	a.t.Helper()
	q := a.enter(b, a.request(more...))
	if q.Get("code") == "" {
		a.t.Fatalf("there is no code: %v", q)
	}
	return a.got(a.exchange(q.Get("code")))
}

// told holds that an address is answered with a page, which leads nowhere.
func (a *oidcApp) told(what string, p shown) {
	a.t.Helper()
	if p.out != "" || p.Status < 400 || p.Status >= 500 || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/html") || p.Header.Get("Location") != "" || outside.Match(p.Body) {
		a.t.Errorf("%s: %q, %.600v", what, p.out, p.answer)
	}
}

// outside is a link to somewhere else on a page.
var outside = regexp.MustCompile(`(?i)(href|action|src|url)\s*=\s*["']?\s*(https?:|//|\\)`)
