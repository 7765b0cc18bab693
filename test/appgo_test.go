package test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// goApp is a web app over go-oidc and x/oauth2. What they find wrong fails the test.
type goApp struct {
	t        *testing.T
	URL      string
	ctx      context.Context
	provider *oidc.Provider
	verifier *oidc.IDTokenVerifier
	config   oauth2.Config
	pkce     string

	token   *oauth2.Token // of the last login
	id      *oidc.IDToken // that came with it
	refusal url.Values    // in place of a code
	logouts chan *oidc.LogoutToken
}

const goAppState, goAppNonce = "a state & more", "a nonce"

func newGoApp(t *testing.T, s *site, flags ...string) *goApp {
	t.Helper()
	a := &goApp{t: t, pkce: oauth2.GenerateVerifier(), logouts: make(chan *oidc.LogoutToken, 10)}
	a.ctx = oidc.ClientContext(t.Context(), &http.Client{Transport: newTransport(t)})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", a.login)
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("POST /backchannel", a.backchannel)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { htmlPage(w, "the app") })
	a.URL = serveApp(t, mux)
	made := s.app(append(flags, "An app in Go", "--redirect-uri="+a.URL+"/callback", "--post-logout-uri="+a.URL+"/",
		"--backchannel-logout-uri="+a.URL+"/backchannel")...)
	var err error
	if a.provider, err = oidc.NewProvider(a.ctx, s.URL); err != nil {
		t.Fatal(err)
	}
	a.verifier = a.provider.Verifier(&oidc.Config{ClientID: made.ID})
	a.config = oauth2.Config{
		ClientID: made.ID, ClientSecret: made.Secret, Endpoint: a.provider.Endpoint(), RedirectURL: a.URL + "/callback",
		Scopes: []string{oidc.ScopeOpenID, "profile", "email", "groups"},
	}
	return a
}

func htmlPage(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!DOCTYPE html><html lang="en"><link rel="icon" href="data:,"><title>App</title><p>%s</p>`, text)
}

// login leads to kwai, with more parameters as they are asked for.
func (a *goApp) login(w http.ResponseWriter, r *http.Request) {
	options := []oauth2.AuthCodeOption{oidc.Nonce(goAppNonce), oauth2.S256ChallengeOption(a.pkce)}
	for name, values := range r.URL.Query() {
		options = append(options, oauth2.SetAuthURLParam(name, values[0]))
	}
	http.Redirect(w, r, a.config.AuthCodeURL(goAppState, options...), http.StatusFound)
}

func (a *goApp) callback(w http.ResponseWriter, r *http.Request) {
	a.token, a.id, a.refusal = nil, nil, nil
	q := r.URL.Query()
	if q.Get("state") != goAppState || q.Get("iss") == "" {
		a.t.Errorf("the app is called with %v", q)
	}
	if !q.Has("code") {
		a.refusal = q
		htmlPage(w, "refused: "+q.Get("error"))
		return
	}
	token, err := a.config.Exchange(a.ctx, q.Get("code"), oauth2.VerifierOption(a.pkce))
	if err == nil {
		a.token, a.id = token, a.idToken(token)
		htmlPage(w, "logged in")
		return
	}
	a.t.Error(err)
	htmlPage(w, "failed")
}

// idToken reads the ID token beside an access token.
func (a *goApp) idToken(token *oauth2.Token) *oidc.IDToken {
	text, _ := token.Extra("id_token").(string)
	id, err := a.verifier.Verify(a.ctx, text)
	if err == nil {
		err = id.VerifyAccessToken(token.AccessToken)
	}
	if err != nil {
		a.t.Errorf("%v: %s", err, text)
	}
	return id
}

func (a *goApp) backchannel(w http.ResponseWriter, r *http.Request) {
	token, err := a.verifier.VerifyLogout(r.Context(), r.FormValue("logout_token"))
	if err != nil {
		a.t.Errorf("%v: %s", err, r.FormValue("logout_token"))
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.logouts <- token
}

// renew has the token be renewed.
func (a *goApp) renew() (*oauth2.Token, error) {
	old := *a.token
	old.Expiry = time.Now().Add(-time.Hour)
	return a.config.TokenSource(a.ctx, &old).Token()
}

// logoutURL is where the app sends people to be logged out.
func (a *goApp) logoutURL() string {
	var metadata struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := a.provider.Claims(&metadata); err != nil || metadata.EndSession == "" {
		a.t.Fatalf("%+v: %v", metadata, err)
	}
	hint, _ := a.token.Extra("id_token").(string)
	return metadata.EndSession + "?" + form("id_token_hint", hint, "post_logout_redirect_uri", a.URL+"/", "state", "out & away")
}

// goAppClaims are what the ID token and userinfo both say.
type goAppClaims struct {
	Subject   string   `json:"sub"`
	Email     string   `json:"email"`
	Verified  bool     `json:"email_verified"`
	Name      string   `json:"name"`
	Given     string   `json:"given_name"`
	Family    string   `json:"family_name"`
	Preferred string   `json:"preferred_username"`
	Groups    []string `json:"groups"`
}

// TestGoOIDC has go-oidc log people in, renew, ask who they are, ask for a fresh login,
// and log them out; and hear of a logout elsewhere.
func TestGoOIDC(t *testing.T) {
	need.Time(t)
	browser := startBrowser(t)
	each(t, func(t *testing.T, k cluster.Kwai) {
		s := provider(t, k)
		s.mustCommand("", "group", "create", "judo")
		s.mustCommand("", "group", "add", "judo", "ann@example.org")
		s.user("bob@example.org", good)
		a := newGoApp(t, s, "--groups=judo")
		b := openTab(t, browser, s.URL)
		b.origins = append(b.origins, a.URL)

		b.open(200, a.URL+"/login?prompt=none")
		b.shows("refused: login_required")
		b.open(200, a.URL+"/login?ui_locales=nl")
		b.logIn("ann@example.org")
		b.at(a.URL + "/callback")
		a.isAnn(s)
		first := a.id
		s.get(userPath, a.token.AccessToken).wants(t, http.StatusUnauthorized, "the API for an app's access token")

		// Who is logged in at kwai is let in without a word.
		b.open(200, a.URL+"/login?prompt=none")
		b.shows("logged in")
		if a.id == nil || a.authTime() != authTime(t, first) {
			t.Errorf("the second login is %+v, the first was %+v", a.id, first)
		}
		b.open(200, a.URL+"/login?prompt=login")
		b.typeInto("password", good) // once more, for the same account
		b.click(200, "button")
		b.at(a.URL + "/callback")
		if a.id == nil || a.authTime() < authTime(t, first) {
			t.Errorf("the fresh login is %+v, the first was %+v", a.id, first)
		}

		renewed, err := a.renew()
		if err != nil {
			t.Fatal(err)
		}
		if renewed.AccessToken == a.token.AccessToken || renewed.RefreshToken == a.token.RefreshToken {
			t.Error("the renewed tokens are the old ones")
		}
		if id := a.idToken(renewed); id.Subject != first.Subject || authTime(t, id) != a.authTime() {
			t.Errorf("the renewed ID token is %+v", id)
		}

		// Logging out leads back, and ends all that came of it.
		old := a.token
		b.open(200, a.logoutURL())
		b.at(a.URL + "/")
		if got := eval[string](b, "location.search"); got != "?state=out+%26+away" {
			t.Errorf("back with %s", got)
		}
		a.isOver(s, first.Subject)
		b.open(200, a.URL+"/login?prompt=none")
		b.shows("refused: login_required")

		// So does a logout by kwai's own page, and the app hears of it.
		b.open(200, a.URL+"/login")
		b.logIn("ann@example.org")
		if a.token == nil || a.token.AccessToken == old.AccessToken {
			t.Fatal("no new token")
		}
		b.logOutAtKwai()
		a.isOver(s, first.Subject)

		// Who is in none of the app's groups is told so, and the app, too.
		b.open(200, a.URL+"/login")
		b.typeInto("username", "bob@example.org")
		b.typeInto("password", good)
		b.click(403, "button")
		b.shows("An app in Go")
		b.click(200, "main a")
		b.shows("refused: access_denied")
	})
}

func (a *goApp) authTime() int64 { return authTime(a.t, a.id) }

func authTime(t *testing.T, id *oidc.IDToken) int64 {
	t.Helper()
	var claims struct {
		At int64 `json:"auth_time"`
	}
	if err := id.Claims(&claims); err != nil || claims.At == 0 {
		t.Fatalf("%+v: %v", claims, err)
	}
	return claims.At
}

// isAnn compares what the app knows with the account.
func (a *goApp) isAnn(s *site) {
	a.t.Helper()
	if a.id == nil {
		a.t.Fatal("nobody is logged in")
	}
	if a.id.Nonce != goAppNonce || !slices.Equal(a.id.Audience, []string{a.config.ClientID}) || !strings.HasPrefix(a.id.Issuer, "http://127.0.0.1:") {
		a.t.Errorf("the ID token is %+v", a.id)
	}
	info, err := a.provider.UserInfo(a.ctx, oauth2.StaticTokenSource(a.token))
	if err != nil {
		a.t.Fatal(err)
	}
	var inToken, atUserInfo goAppClaims
	if err := a.id.Claims(&inToken); err != nil {
		a.t.Fatal(err)
	}
	if err := info.Claims(&atUserInfo); err != nil {
		a.t.Fatal(err)
	}
	want := fmt.Sprintf("%+v", goAppClaims{a.id.Subject, "ann@example.org", true, "Ann Other", "Ann", "Other", "ann@example.org", []string{"judo"}})
	for what, got := range map[string]goAppClaims{"the ID token": inToken, "userinfo": atUserInfo} {
		if fmt.Sprintf("%+v", got) != want {
			a.t.Errorf("%s says %+v, want %s", what, got, want)
		}
	}
	if id := s.get(userPath, s.login("ann@example.org").field("access_token")).field("id"); id != a.id.Subject {
		a.t.Errorf("the subject is %s, want %s", a.id.Subject, id)
	}
}

// isOver says that the app's tokens are of no use, and waits until it hears that.
func (a *goApp) isOver(s *site, subject string) {
	a.t.Helper()
	if _, err := a.provider.UserInfo(a.ctx, oauth2.StaticTokenSource(a.token)); err == nil || !strings.Contains(err.Error(), "401") {
		a.t.Errorf("userinfo after a logout: %v", err)
	}
	_, err := a.renew()
	wantsOAuth(a.t, err, http.StatusBadRequest, "invalid_grant")
	var sid struct {
		SID string `json:"sid"`
	}
	if err := a.id.Claims(&sid); err != nil {
		a.t.Fatal(err)
	}
	if heard := <-a.logouts; heard.Subject != subject || heard.SessionID != sid.SID || heard.TokenID == "" {
		a.t.Errorf("the app hears of %+v, want the session %s of %s\n%s", heard, sid.SID, subject, s.log)
	}
}

// TestGoExample runs examples/app-go.
func TestGoExample(t *testing.T) {
	t.Parallel()
	need.Time(t)
	for _, file := range []string{"main.go", "http.go"} {
		if n := strings.Count(string(readFile(t, filepath.Join("../examples/app-go", file))), "\n"); n >= 100 {
			t.Errorf("%s has %d lines", file, n)
		}
	}
	program := filepath.Join(t.TempDir(), "app-go")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "kwai/examples/app-go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	browser := startBrowser(t)
	s := provider(t, install(t, ""))
	name, address := freePort(t)
	home := "http://" + name
	file, app := s.appOf(t, "app-go", "http://localhost:5000", home)
	log := run(t, cluster.Command{Program: program, Args: []string{file, s.URL, home}, Address: address, Ready: "/"})

	b := openTab(t, browser, s.URL)
	for range 2 {
		b.open(200, home+"/")
		b.shows("Nobody is logged in.")
		b.click(200, "a")
		b.logIn("ann@example.org")
		b.at(home + "/")
		b.shows("You are Ann Other, ann@example.org.")
		b.click(200, "a")
		b.at(home + "/")
	}
	b.click(200, "a")
	b.logIn("ann@example.org")
	b.shows("You are Ann Other, ann@example.org.")
	b.logOutAtKwai()
	for b.open(200, home+"/"); !strings.Contains(b.text(), "Nobody is logged in."); { // it hears of that
		b.open(200, home+"/")
	}
	b.open(400, home+"/callback?code=x&state=y&iss="+url.QueryEscape(s.URL)) // somebody else's attempt
	b.shows("This is no answer to a login that this browser has begun here.")
	b.isRefused(s, app, home)
	if !strings.Contains(log.String(), "access_denied") {
		t.Errorf("the log doesn't have the refusal: %s", log)
	}

	empty := filepath.Join(t.TempDir(), "empty.json")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"usage: app-go FILE [ISSUER [HOME]]":                 nil,
		empty + " does not hold what kwai app create prints": {empty},
	} {
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("app-go %q: %v: %s", args, err, out)
		}
	}
}
