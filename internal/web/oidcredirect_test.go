package web_test

import (
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kwai/internal/store"
)

// ownURIs are the addresses that an app has registered, of each kind that it may.
var ownURIs = []string{
	"https://app.example.com/callback", "https://app.example.com/with?query=1&x", "https://app.example.com:8443/Callback/", "https://app.example.com/%2Fescaped",
	"http://127.0.0.1:4000/callback", "http://[::1]:4000/callback?a=b", "http://localhost:4000/callback", "com.example.app:/callback",
}

// loopbackURIs are those of ownURIs as a program on a desk writes them, at any port.
var loopbackURIs = []string{
	"http://127.0.0.1:1/callback", "http://127.0.0.1:65535/callback", "http://127.0.0.1/callback", "http://[::1]/callback?a=b", "http://[::1]:80/callback?a=b",
}

// foreignURIs are spellings of them, and of others, that lead to somebody else, or that
// some program on the way could take for such.
func foreignURIs() (all []string) {
	const own, rest = "https://app.example.com/callback", "://app.example.com/callback"
	all = []string{
		"", " ", "/", "//", "https", "https:", "https://", "?", "#", ".", "*", "null", "undefined", "/callback", "callback", "//app.example.com/callback",
		// The scheme.
		"http" + rest, "HTTPS" + rest, "Https" + rest, "https:/app.example.com/callback", "https:app.example.com/callback", "https:///app.example.com/callback", "https:\\\\app.example.com\\callback",
		"javascript" + rest, "javascript:alert(1)//" + own, "data:text/html," + own, "file" + rest, "ftp" + rest, "wss" + rest, "view-source:" + own, "blob:" + own, "com.example.app://callback",
		"com.example.app:callback", "COM.example.app:/callback", "com.example.app:/callback/x", "com.example.app:/", "com.example.other:/callback", "com.example.app:/callback?x", "intent:" + own,
		// The host.
		"https://APP.example.com/callback", "https://app.example.com./callback", "https://app.example.com.evil.example/callback", "https://evil.example/callback", "https://evil.example/app.example.com/callback",
		"https://evilapp.example.com/callback", "https://example.com/callback", "https://.app.example.com/callback", "https://app.example.com%2eevil.example/callback", "https://app.example.com%00.evil.example/callback",
		"https://app。example。com/callback", "https://аpp.example.com/callback", "https://xn--pp-6kc.example.com/callback", "https://app.example.com%ff/callback", "https://app.example.com,evil.example/callback",
		"https://app.example.com;evil.example/callback", "https://evil.example\\app.example.com/callback", "https://evil.example/\\app.example.com/callback", "https://app.example.com\\@evil.example/callback", "https://app.example.com\\.evil.example/callback",
		"https://1.2.3.4/callback", "https://[::ffff:1.2.3.4]/callback", "https://app.example.com\u200e/callback", "https://\u00adapp.example.com/callback", "https://ａpp.example.com/callback",
		// The user.
		"https://app.example.com@evil.example/callback", "https://x@app.example.com/callback", "https://x:y@app.example.com/callback", "https://@app.example.com/callback", "https://:@app.example.com/callback",
		"https://app.example.com:443@evil.example/callback", "https://app.example.com%40evil.example/callback", "https://app.example.com:x@evil.example/callback", "https://evil.example#@app.example.com/callback", "https://evil.example?@app.example.com/callback",
		// The port.
		"https://app.example.com:443/callback", "https://app.example.com:/callback", "https://app.example.com:8443/callback", "https://app.example.com:80/callback", "https://app.example.com:0443/callback", "https://app.example.com:99999/callback", "https://app.example.com:x/callback", "https://app.example.com:8444/Callback/",
		// The path.
		own + "/", own + "//", "https://app.example.com//callback", "https://app.example.com/./callback", "https://app.example.com/x/../callback", own + "/..", own + "/../../evil", own + "/..;/evil", own + "%2f", own + "%2F..", "https://app.example.com/%63allback",
		"https://app.example.com%2fcallback", "https://app.example.com/\\callback", "https://app.example.com\\callback", own + "\\", own + "\\..\\evil", "https://app.example.com/Callback", "https://app.example.com/CALLBACK", own + "x", own + ".", own + ";x", own + ",", own + "*", "https://app.example.com", "https://app.example.com/",
		"https://app.example.com:8443/callback/", "https://app.example.com:8443/Callback", "https://app.example.com/%2fescaped", "https://app.example.com//escaped", "https://app.example.com/%252Fescaped",
		// The query, and the fragment.
		own + "?", own + "?x", own + "?code=x&state=y", own + "?query=1&x", own + "&x=y", own + "#", own + "#x", own + "#?x", own + "%23x", own + "%3Fx", own + "?x#y", "https://app.example.com/with", "https://app.example.com/with?query=1", "https://app.example.com/with?x&query=1", "https://app.example.com/with?query=1&x=", "https://app.example.com/with?query=1&x&y", "https://app.example.com/with?query=1&amp;x", "https://app.example.com/with?query=2&x",
		// Characters that nobody sees.
		" " + own, own + " ", "\t" + own, own + "\t", own + "\n", "\n" + own, own + "\r\nLocation: https://evil.example/", "ht\ttps" + rest, "https:/\t/app.example.com/callback", "https://app.exa\nmple.com/callback", "https://app.example.com/call\rback", own + "\x00", "\x00" + own, "https://evil.example/\x00" + own, own + "\x7f", own + "\u00a0", own + "\u200b", "\ufeff" + own, own + "\u2028", own + "\xff", own + "\xc0\xaf", own + "%00", own + "%0d%0aX: y", own + "%09", "\u202e" + own,
		own + "é", own + "%C3%A9", own + `"`, own + "<x>", own + "'", own + "`", own + "|", own + "{x}", own + "^", "<" + own + ">", own + " " + own, own + "," + own, own + "\n" + own, "[" + own + "]",
		// At this machine.
		"http://127.0.0.1:4000/other", "http://127.0.0.1:4000/callback/", "http://127.0.0.1:4000/callback?x", "http://127.0.0.1:4000/callback#x", "https://127.0.0.1:4000/callback", "http://127.0.0.2:4000/callback", "http://127.1:4000/callback", "http://2130706433:4000/callback", "http://0x7f.0.0.1:4000/callback", "http://0177.0.0.1/callback", "http://127.0.0.1.:4000/callback", "http://0.0.0.0:4000/callback", "http://[::]:4000/callback?a=b", "http://[0:0:0:0:0:0:0:1]:4000/callback?a=b", "http://[::ffff:127.0.0.1]:4000/callback", "http://[::1%25eth0]:4000/callback?a=b", "http://[::1]:4000/callback", "http://[::1]:4000/callback?a=c",
		"http://localhost:4001/callback", "http://localhost/callback", "http://LOCALHOST:4000/callback", "http://127.0.0.1:4000@evil.example/callback", "http://127.0.0.1:4000:80/callback", "http://127.0.0.1:/callback", "http://127.0.0.1:400000/callback", "http://127.0.0.1:-1/callback", "http://127.0.0.1:+80/callback", "http://127.0.0.1: 80/callback", "http://127.0.0.1:80\\@evil.example/callback", "http://127.0.0.1.evil.example:4000/callback", "http://127.0.0.1:x/callback", "HTTP://127.0.0.1:4000/callback", "http://127.0.0.1:4000/callback\n", "http://user@127.0.0.1:4000/callback", "http://127.0.0.1:4000//callback", "http:///127.0.0.1:4000/callback",
		// Long ones.
		own + strings.Repeat("x", 10_000), own + "?" + strings.Repeat("x", 10_000), strings.Repeat(own, 200), "https://" + strings.Repeat("x.", 4_000) + "example/callback", strings.Repeat("/", 10_000),
	}
	return slices.Compact(all)
}

// ownOf is what an address that a browser was led to begins with: one of the app's own,
// letter by letter, with what the answer adds behind it. "": it isn't the app's.
func ownOf(out string, own []string) string {
	for _, uri := range own {
		between := "?"
		if strings.Contains(uri, "?") {
			between = "&"
		}
		rest, ok := strings.CutPrefix(out, uri+between)
		if q, err := url.ParseQuery(rest); ok && err == nil && (q.Has("code") || q.Has("error")) || out == uri {
			return uri
		}
	}
	return ""
}

// wayBack is the way back to an app that a page has.
var wayBack = regexp.MustCompile(`class="button" href="([^"]+)"`)

// authorizePaths are requests that come to a success, and to each error that an app can
// hear of.
var authorizePaths = map[string][]string{
	"success": nil, "nothing asked": {"prompt", "none"}, "a login": {"prompt", "login"}, "a question": {"prompt", "consent"}, "a question that may not be": {"prompt", "consent none"},
	"no response_type": {"response_type", ""}, "another response_type": {"response_type", "code token"}, "another response_mode": {"response_mode", "form_post"},
	"no scope": {"scope", ""}, "another scope": {"scope", "email"}, "a request object": {"request", "x.y.z"}, "a request_uri": {"request_uri", "https://evil.example/"}, "a registration": {"registration", "{}"},
	"plain PKCE": {"code_challenge", challenge, "code_challenge_method", "plain"}, "half a challenge": {"code_challenge", "x", "code_challenge_method", "S256"}, "no challenge": {"code_challenge_method", "S256"},
	"another prompt": {"prompt", "x"}, "a bad max_age": {"max_age", "-1"}, "an old login": {"max_age", "0", "prompt", "none"}, "an id_token_hint": {"id_token_hint", "x"},
	"another's fields": {"next", "https://evil.example/", "post_logout_redirect_uri", "https://evil.example/", "url", "//evil.example"},
}

func TestCodesGoToRegisteredAddressesAlone(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		s.ok(s.command.CreateGroup(t.Context(), "none"))
		foreign := foreignURIs()
		if len(foreign) < 60 {
			t.Fatalf("there are %d spellings", len(foreign))
		}
		all := func(a *store.App) { a.RedirectURIs, a.PostLogoutURIs = ownURIs, nil }
		web := func(a *store.App) {
			a.RedirectURIs = slices.DeleteFunc(slices.Clone(ownURIs), func(u string) bool { return strings.HasPrefix(u, "com.") })
		}
		apps := []*oidcApp{
			s.app(t, "public", all, publicApp), s.app(t, "trusted", web), s.app(t, "asking", web, func(a *store.App) { a.Consent = true }),
			s.app(t, "closed", web, func(a *store.App) { a.Groups = []string{"none"} }),
		}
		in, out := s.agent(t, "ann@example.org"), s.agent(t, "ann@example.org")
		in.goOn(in.open(publicURL + "/login"))
		turn := 0 // each spelling comes to each path, at the apps in turn
		for _, path := range slices.Sorted(maps.Keys(authorizePaths)) {
			request := func(a *oidcApp, uri string) string {
				return a.request(append([]string{"redirect_uri", uri, "code_challenge", challenge, "code_challenge_method", "S256"}, authorizePaths[path]...)...).Encode()
			}
			for _, uri := range foreign {
				turn++
				a, b := apps[turn%len(apps)], []*agent{in, out}[turn/len(apps)%2]
				q, what := request(a, uri), fmt.Sprintf("%s, %s, logged in: %t, redirect_uri %.80q", a.id, path, b == in, uri)
				a.told(what, b.open(a.meta.AuthorizationEndpoint+"?"+q))
				if path == "success" {
					for _, b := range []*agent{in, out} {
						a.told(what, b.open(a.meta.AuthorizationEndpoint+"?"+q))
						a.told("by a form: "+what, b.follow(http.MethodPost, a.meta.AuthorizationEndpoint, q))
						a.told("the question: "+what, b.open(publicURL+"/consent?"+q))
					}
				}
			}
			// The right ones lead where they say, and nowhere else.
			for _, uri := range slices.Concat(ownURIs, loopbackURIs) {
				turn++
				a, b := apps[turn%len(apps)], s.agent(t, "ann@example.org")
				if strings.HasPrefix(uri, "com.") {
					a = apps[0]
				}
				p := b.goOn(b.open(a.meta.AuthorizationEndpoint + "?" + request(a, uri)))
				what := fmt.Sprintf("%s, %s, redirect_uri %.80q", a.id, path, uri)
				if p.out == "" && a.id == "closed" && p.Status == http.StatusForbidden {
					back := wayBack.FindSubmatch(p.Body)
					if back == nil || ownOf(html.UnescapeString(string(back[1])), []string{uri}) == "" {
						t.Errorf("%s: the way back is %q", what, back)
					}
					continue
				}
				same(t, what, ownOf(p.out, []string{uri}), uri)
			}
		}
	}, limitsOff)
}

// Where the query is written in ways that programs read differently, it comes to one of
// the app's own addresses or to a page.
func TestQueriesThatAreReadDifferently(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.app(t, "first")
		in := s.agent(t, "ann@example.org")
		in.goOn(in.open(publicURL + "/login"))
		own := url.QueryEscape(a.redirect)
		const evil = "https%3A%2F%2Fevil.example%2F"
		const rest = "client_id=first&response_type=code&scope=openid"
		for query, leads := range map[string]bool{
			"redirect_uri=" + own + "&redirect_uri=" + evil + "&" + rest:                                    false,
			"redirect_uri=" + evil + "&redirect_uri=" + own + "&" + rest:                                    false,
			"redirect_uri=" + own + "&redirect_uri=" + own + "&" + rest:                                     false,
			"redirect_uri=" + own + "&redirect_uri=&" + rest:                                                false,
			"redirect_uri=" + own + "&redirect_uri&" + rest:                                                 false,
			"redirect_uri=" + own + "&redirect%5Furi=" + evil + "&" + rest:                                  false,
			"redirect_uri=" + own + "&Redirect_uri=" + evil + "&" + rest:                                    true,
			"redirect_uri[]=" + evil + "&redirect_uri=" + own + "&" + rest:                                  true,
			"redirect_uri[]=" + own + "&" + rest:                                                            false,
			"redirect_uri=" + evil + "&kwai_begun=x&redirect_uri=" + own + "&" + rest:                       false,
			rest + "&redirect_uri=" + own + "&kwai_begun=x&redirect_uri=" + evil:                            true,
			rest + "&redirect_uri=" + own + "&kwai_begun=1.x&kwai_begun=2.x":                                true,
			"redirect_uri=" + own + "#&redirect_uri=" + evil + "&" + rest:                                   false,
			"redirect_uri=" + own + "%26redirect_uri=" + evil + "&" + rest:                                  false,
			"redirect_uri=" + own + ";redirect_uri=" + evil + "&" + rest:                                    false,
			"redirect_uri=" + own + "%zz&" + rest:                                                           false,
			"redirect_uri=" + own + "&client_id=other&" + rest:                                              false,
			"redirect_uri=" + own + "&" + rest + "&x=%zz":                                                   false,
			"redirect_uri=" + own + "&" + rest + "&state=a;b":                                               true,
			"?redirect_uri=" + own + "&" + rest:                                                             false,
			"&&redirect_uri=" + own + "&&" + rest + "&":                                                     true,
			"redirect_uri=" + strings.ReplaceAll(own, "%2F", "/") + "&" + rest:                              true,
			"redirect_uri=" + strings.ReplaceAll(a.redirect, "callback", "%63allback") + "&" + rest:         true,
			"redirect_uri=" + strings.ReplaceAll(own, "callback", "%2563allback") + "&" + rest:              false,
			"redirect_uri=+" + own + "&" + rest:                                                             false,
			"redirect_uri=" + own + "&" + rest + "&post_logout_redirect_uri=" + evil + "&kwai_begun=" + own: true,
		} {
			for _, prompt := range []string{"", "&prompt=none", "&prompt=x", "&prompt=login"} {
				if strings.Contains(query, "kwai_begun") && prompt != "" {
					continue
				}
				r := s.request(http.MethodGet, "/oauth2/authorize", nil)
				r.URL.RawQuery = query + prompt
				r.AddCookie(&http.Cookie{Name: "__Host-kwai", Value: in.cookies["__Host-kwai"]})
				res := s.plain(r)
				to := res.Header.Get("Location")
				switch {
				case strings.HasPrefix(to, "../login?") && prompt == "&prompt=login":
				case to == "":
					same(t, query+prompt+" is told on a page", res.Status, http.StatusBadRequest)
					same(t, query+prompt+" leads to the app", false, leads)
				default:
					same(t, query+prompt+" leads to "+to, ownOf(to, []string{a.redirect}) != "", true)
					same(t, query+prompt+" leads to the app", true, leads)
				}
			}
		}
	}, limitsOff)
}

// A login and a question that lead on to an app look at the whole request anew.
func TestLoginsLeadToRegisteredAddressesAlone(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.app(t, "first")
		in := s.agent(t, "ann@example.org")
		in.goOn(in.open(publicURL + "/login"))
		for i, uri := range foreignURIs() {
			query := a.request("redirect_uri", uri).Encode()
			next := "oauth2/authorize?" + query
			all := []string{next + "&kwai_begun=x", strings.Replace(next, "?", "?&", 1), next + "#", "/" + next, "//evil.example/" + next, next + "\n", publicURL + "/" + next}
			for _, next := range []string{next, all[i%len(all)]} {
				b := s.agent(t, "ann@example.org")
				p := b.follow(http.MethodPost, publicURL+"/login", url.Values{"username": {b.email}, "password": {good}, "next": {next}}.Encode())
				if p.out != "" || p.at.Path != "/account" && p.Status != http.StatusBadRequest || outside.Match(p.Body) {
					t.Errorf("a login with next %.200q leads to %s %q: %.300v", next, p.at, p.out, p.answer)
				}
			}
			p := in.follow(http.MethodPost, publicURL+"/consent", url.Values{"form": {"x"}, "request": {query}, "answer": {[]string{"yes", "no", ""}[i%3]}}.Encode())
			a.told("an answer to a question with "+uri[:min(len(uri), 80)], p)
		}
	}, limitsOff)
}

func TestLogoutsLeadToRegisteredAddressesAlone(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		own := slices.DeleteFunc(slices.Clone(ownURIs), func(u string) bool { return strings.HasPrefix(u, "com.") })
		a := s.app(t, "first", func(a *store.App) { a.PostLogoutURIs = own })
		other := s.app(t, "other", func(a *store.App) { a.PostLogoutURIs = []string{"https://evil.example/"} })
		hint := a.tokensOf(s.agent(t, "ann@example.org")).IDToken
		others := other.tokensOf(s.agent(t, "ann@example.org")).IDToken
		logout := func(b *agent, uri string, more ...string) shown {
			q := url.Values{"post_logout_redirect_uri": {uri}, "state": {"x"}}
			for i := 0; i < len(more); i += 2 {
				q.Set(more[i], more[i+1])
			}
			return b.open(a.meta.EndSessionEndpoint + "?" + q.Encode())
		}
		stays := func(what, uri string, p shown) {
			t.Helper()
			if p.out != "" || p.Status >= http.StatusInternalServerError || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/html") || outside.Match(p.Body) {
				t.Errorf("%s, post_logout_redirect_uri %.80q, leads to %q: %.300v", what, uri, p.out, p.answer)
			}
		}
		in := s.agent(t, "ann@example.org")
		in.goOn(in.open(publicURL + "/login"))
		for _, uri := range slices.Concat(foreignURIs(), loopbackURIs, []string{"https://evil.example/", a.redirect}) {
			b := s.agent(t, "ann@example.org")
			stays("a hint of the browser", uri, logout(b, uri, "id_token_hint", a.tokensOf(b).IDToken))
			stays("the same by a form", uri, b.follow(http.MethodPost, a.meta.EndSessionEndpoint, url.Values{"post_logout_redirect_uri": {uri}, "id_token_hint": {a.tokensOf(b).IDToken}}.Encode()))
			stays("a hint without a login", uri, logout(s.agent(t, ""), uri, "id_token_hint", hint))
			stays("a hint of another session", uri, logout(in, uri, "id_token_hint", hint))
			stays("no hint", uri, logout(in, uri))
			stays("no hint, with an app", uri, logout(in, uri, "client_id", "first"))
			stays("another's hint, with an app", uri, logout(in, uri, "client_id", "first", "id_token_hint", others))
			stays("another's hint, with an app, without a login", uri, logout(s.agent(t, ""), uri, "client_id", "first", "id_token_hint", others))
			if uri != "https://evil.example/" {
				stays("another app's hint, without a login", uri, logout(s.agent(t, ""), uri, "id_token_hint", others))
			}
		}
		for _, uri := range own {
			between := "?"
			if strings.Contains(uri, "?") {
				between = "&"
			}
			b := s.agent(t, "ann@example.org")
			for what, p := range map[string]shown{
				"a hint of the browser": logout(b, uri, "id_token_hint", a.tokensOf(b).IDToken), "a hint without a login": logout(s.agent(t, ""), uri, "id_token_hint", hint, "client_id", "first"),
			} {
				same(t, what, p.out, uri+between+"state=x")
			}
			stays("an app's own, without a hint", uri, logout(in, uri, "client_id", "first"))
			stays("an app's own, with another's hint", uri, logout(s.agent(t, ""), uri, "id_token_hint", others))
		}
		for _, query := range []string{
			"post_logout_redirect_uri=" + url.QueryEscape(a.loggedOut) + "&post_logout_redirect_uri=https://evil.example/", "post_logout_redirect_uri=https://evil.example/&post_logout_redirect_uri=" + url.QueryEscape(own[0]),
			"post_logout_redirect_uri=" + url.QueryEscape(own[0]) + ";https://evil.example/", "post_logout_redirect_uri=https://evil.example/%zz", "redirect_uri=https://evil.example/", "redirect=//evil.example", "next=//evil.example",
		} {
			stays(query, "", s.agent(t, "").open(a.meta.EndSessionEndpoint+"?"+query+"&id_token_hint="+hint))
		}
		in.open(publicURL + "/account")
		a.tokensOf(in, "prompt", "none") // nothing of it has logged out another browser
	}, limitsOff)
}
