package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// otherAccount follows a page's link to another account.
func (b *agent) otherAccount(p shown) shown {
	b.t.Helper()
	doc, err := html.Parse(strings.NewReader(string(p.Body)))
	b.s.ok(err)
	for n := range doc.Descendants() {
		for _, at := range n.Attr {
			if at.Key == "href" && strings.Contains(at.Val, "prompt=select_account") {
				to, err := p.at.Parse(at.Val)
				b.s.ok(err)
				return b.open(to.String())
			}
		}
	}
	b.t.Fatalf("%s leads to no other account: %s", p.at, p.Body)
	return shown{}
}

// Who is logged in with an account that isn't meant, or that may not use the app, comes to
// the app with another one.
func TestAnotherAccountAtAnApp(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		bob := s.user("bob@example.org", good)
		s.ok(s.command.CreateGroup(t.Context(), "staff"))
		s.ok(s.command.AddMembers(t.Context(), "staff", "bob@example.org"))
		for page, change := range map[string]func(*store.App){
			"asks":    func(a *store.App) { a.Consent = true },
			"refuses": func(a *store.App) { a.Groups = []string{"staff"} },
		} {
			a := s.app(t, page, change)
			b := s.agent(t, "ann@example.org")
			request := a.request("scope", "openid email", "ui_locales", "nl", "nonce", "a b&c")
			p := b.open(a.meta.AuthorizationEndpoint + "?" + request.Encode())
			p = b.submit(p, "username", b.email, "password", b.password)
			if p.out != "" || !strings.Contains(string(p.Body), "ann@example.org") {
				t.Fatalf("the page that %s says nothing of who is logged in: %q %s", page, p.out, p.Body)
			}
			if p = b.otherAccount(p); p.at.Path != "/login" || p.Status != http.StatusOK {
				t.Fatalf("the link of the page that %s leads to %s: %d", page, p.at, p.Status)
			}
			b.email = "bob@example.org"
			back := a.back(b.goOn(p), request.Get("state"))
			claims := a.idToken(a.got(a.exchange(back.Get("code"))))
			same[any](t, "who came", claims["sub"], bob)
			same[any](t, "the nonce", claims["nonce"], "a b&c")
			if p := b.open(publicURL + "/account/activity?ui_locales=en"); !strings.Contains(string(p.Body), "<bdi>"+strings.ToUpper(page[:1])+page[1:]+"</bdi>") {
				t.Errorf("what happened doesn't name the app: %s", p.Body)
			}
		}
	})
}

// An app and its user hear no more than they must of why they are refused; who runs the
// server reads it in the log.
func TestTheLogSaysWhyAnAppIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, storetest.SQLite(t))
	s.forApps()
	s.user("ann@example.org", good)
	a := s.app(t, "wiki", func(a *store.App) { a.WithoutPKCE = false })
	other := s.app(t, "other")
	b := s.agent(t, "ann@example.org")
	code := func(of *oidcApp) string {
		return of.enter(b, of.request("code_challenge", challenge, "code_challenge_method", "S256")).Get("code")
	}
	wrong := *a
	wrong.secret = "x" + a.secret
	used := code(a)
	a.got(a.exchange(used, "code_verifier", verifier))
	for what, tt := range map[string]struct {
		try  func()
		want string
	}{
		"no verifier":          {func() { a.exchange(code(a)) }, `"app":"wiki","reason":"the code_verifier is missing`},
		"another verifier":     {func() { a.exchange(code(a), "code_verifier", verifier+"x") }, `"reason":"the code_verifier is missing, or is not`},
		"another app's code":   {func() { a.exchange(code(other), "code_verifier", verifier) }, `"reason":"the code is another app's`},
		"another address":      {func() { a.exchange(code(a), "redirect_uri", a.redirect+"/", "code_verifier", verifier) }, `"reason":"the redirect_uri is not`},
		"a code that is none":  {func() { a.exchange("x") }, `"reason":"the code is none`},
		"a code, used twice":   {func() { a.exchange(used, "code_verifier", verifier) }, `"reason":"its code came a second time`},
		"a token that is none": {func() { a.refresh("x") }, `"reason":"the refresh token is none`},
		"another secret":       {func() { wrong.refresh("x") }, `"app":"wiki","reason":"the secret is wrong`},
		"a secret as the id":   {func() { (&oidcApp{t: t, s: s, meta: a.meta, id: a.secret, secret: a.id}).refresh("x") }, `"app":"` + a.secret[:8] + `…","reason"`},
		"an unknown app":       {func() { (&oidcApp{t: t, s: s, meta: a.meta, id: "nobody", secret: "x"}).refresh("x") }, `"app":"nobody…","reason":"there is no app with that id`},
		"an address too much": {func() {
			b.open(a.meta.AuthorizationEndpoint + "?" + a.request("redirect_uri", a.redirect+"/?secret").Encode())
		}, `"app":"wiki","error":"authorize.redirect","redirect_uri":"https://wiki.example.com/callback/"`},
		"an app that isn't":      {func() { b.open(a.meta.AuthorizationEndpoint + "?client_id=none") }, `"app":"none…","error":"authorize.app"`},
		"a request without":      {func() { b.open(a.meta.AuthorizationEndpoint + "?" + a.request().Encode()) }, `"app":"wiki","error":"invalid_request: `},
		"a field that is absent": {func() { a.post(a.meta.TokenEndpoint, url.Values{}) }, `"app":"wiki","error":"invalid_request: grant_type is missing`},
	} {
		t.Log(what)
		tt.try()
		s.log.wait(t, 1, tt.want)
	}
	for _, secret := range []string{a.secret, "?", verifier, used} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log tells %q", secret)
		}
	}
}
