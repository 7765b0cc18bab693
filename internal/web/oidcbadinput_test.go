package web_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kwai/internal/store"
	"kwai/internal/token"
)

// spoiled are the ways in which the tests spoil a parameter.
func spoiled(fields url.Values, name string) map[string]url.Values {
	all := make(map[string]url.Values)
	add := func(what string, values ...string) {
		q := maps.Clone(fields)
		if q[name] = values; values == nil {
			delete(q, name)
		}
		all[name+" "+what] = q
	}
	add("missing")
	add("empty", "")
	add("doubled", append(slices.Clone(fields[name]), fields[name]...)...)
	add("doubled with nothing", append([]string{""}, fields[name]...)...)
	add("doubled with another", append(slices.Clone(fields[name]), "x")...)
	add("10 KiB long", strings.Repeat("a", 10<<10))
	add("10 KiB of two bytes", strings.Repeat("ü", 5<<10))
	add("a NUL", "\x00")
	for what, value := range map[string]string{"with a NUL": "\x00", "with a line break": "\r\nX: y", "with markup": markup, "with a space": " ", "with no UTF-8": "\xff\xfe"} {
		add(what, strings.Join(fields[name], "")+value)
	}
	return all
}

// Whatever authorize is sent comes to the app, or to a page where it can't; never to a
// fault of the server's.
func TestBadInputAtAuthorize(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.app(t, "first")
		in, out := s.agent(t, "ann@example.org"), s.agent(t, "ann@example.org")
		in.goOn(in.open(publicURL + "/login"))
		full := a.request("nonce", "n", "prompt", "none", "max_age", "100", "code_challenge", challenge, "code_challenge_method", "S256", "response_mode", "query", "display", "page",
			"login_hint", "ann@example.org", "ui_locales", "nl", "acr_values", "1", "claims", "{}", "claims_locales", "nl", "id_token_hint", "x", "resource", "https://x.example", "request", "", "request_uri", "", "registration", "")
		check := func(what string, q url.Values) {
			t.Helper()
			for _, b := range []*agent{in, out} {
				for _, p := range []shown{b.open(a.meta.AuthorizationEndpoint + "?" + q.Encode()), b.follow(http.MethodPost, a.meta.AuthorizationEndpoint, q.Encode()), b.open(publicURL + "/consent?" + q.Encode())} {
					switch {
					case p.Status >= http.StatusInternalServerError:
						t.Errorf("%s: %.120v", what, p.answer)
					case p.out != "":
						if ownOf(p.out, []string{a.redirect}) == "" || strings.ContainsAny(p.out, "\x00\r\n<\"") {
							t.Errorf("%s leads to %.300q", what, p.out)
						}
						back, _ := url.ParseQuery(p.out[strings.Index(p.out, "?")+1:])
						if back.Has("error") {
							described(t, what, back.Get("error_description"))
						}
						if state := back.Get("state"); state != "" && !slices.Contains(q["state"], state) {
							t.Errorf("%s: the state is %.100q", what, state)
						}
						same(t, what+": iss", back.Get("iss"), publicURL)
					default:
						harmless(t, what, p.answer)
					}
				}
			}
		}
		check("nothing", url.Values{})
		check("all", full)
		for _, name := range append(slices.Sorted(maps.Keys(full)), "request", "request_uri", "registration", "kwai_begun", "\x00", "") {
			for what, q := range spoiled(full, name) {
				check(what, q)
			}
		}
		long := full.Get("state")
		q := a.request("state", strings.Repeat(long+"%", 2000))
		p := out.open(a.meta.AuthorizationEndpoint + "?" + q.Encode())
		a.refused("what is too long for the way through the login", a.back(p, q.Get("state")), "invalid_request")

		// Nor does a form lead to an address that nobody takes.
		for _, path := range []string{"/oauth2/authorize", "/oauth2/logout"} {
			p := s.rawBody(http.MethodPost, publicURL+path, nil, "state="+strings.Repeat("é", 10_000))
			same(t, "a long form at "+path, p.Status, http.StatusRequestEntityTooLarge)
		}

		// What comes back, by parameters.
		for _, r := range []struct {
			more  []string
			error string // "": a code
		}{
			{[]string{"response_type", "token"}, "unsupported_response_type"}, {[]string{"response_type", "id_token"}, "unsupported_response_type"}, {[]string{"response_type", "code id_token"}, "unsupported_response_type"},
			{[]string{"response_type", "code token"}, "unsupported_response_type"}, {[]string{"response_type", "none"}, "unsupported_response_type"}, {[]string{"response_type", "CODE"}, "unsupported_response_type"}, {[]string{"response_type", "code code"}, "unsupported_response_type"},
			{[]string{"response_mode", "fragment"}, "invalid_request"}, {[]string{"response_mode", "form_post"}, "invalid_request"}, {[]string{"response_mode", "query.jwt"}, "invalid_request"}, {[]string{"response_mode", "query"}, ""},
			{[]string{"scope", ""}, "invalid_scope"}, {[]string{"scope", "profile"}, "invalid_scope"}, {[]string{"scope", "OPENID"}, "invalid_scope"}, {[]string{"scope", "openid openid email email"}, ""}, {[]string{"scope", "openid x y z admin"}, ""}, {[]string{"scope", "openid,email"}, "invalid_scope"},
			{[]string{"prompt", "none login"}, "invalid_request"}, {[]string{"prompt", "consent none"}, "invalid_request"}, {[]string{"prompt", "none none"}, "invalid_request"}, {[]string{"prompt", "None"}, "invalid_request"}, {[]string{"prompt", "create"}, "invalid_request"}, {[]string{"prompt", "login consent select_account"}, ""},
			{[]string{"max_age", "-1"}, "invalid_request"}, {[]string{"max_age", "x"}, "invalid_request"}, {[]string{"max_age", "1.5"}, "invalid_request"}, {[]string{"max_age", "+5"}, "invalid_request"}, {[]string{"max_age", "99999999999999999999"}, "invalid_request"}, {[]string{"max_age", "9223372036854775807"}, ""}, {[]string{"max_age", "0"}, ""},
			{[]string{"max_age", "0", "prompt", "none"}, "login_required"}, {[]string{"prompt", "none", "max_age", "9223372036854775807"}, ""},
			{[]string{"code_challenge", challenge}, "invalid_request"}, {[]string{"code_challenge", verifier, "code_challenge_method", "plain"}, "invalid_request"}, {[]string{"code_challenge", challenge, "code_challenge_method", "s256"}, "invalid_request"}, {[]string{"code_challenge_method", "S256"}, "invalid_request"},
			{[]string{"code_challenge", challenge[1:], "code_challenge_method", "S256"}, "invalid_request"}, {[]string{"code_challenge", challenge + "A", "code_challenge_method", "S256"}, "invalid_request"}, {[]string{"code_challenge", challenge[1:] + "=", "code_challenge_method", "S256"}, "invalid_request"}, {[]string{"code_challenge", challenge[1:] + "+", "code_challenge_method", "S256"}, "invalid_request"},
			{[]string{"code_challenge", challenge, "code_challenge_method", "S256"}, ""},
			{[]string{"state", ""}, ""}, {[]string{"nonce", strings.Repeat("n", 2000)}, ""}, {[]string{"claims", "{\n\t\"userinfo\": {}\n}"}, ""}, {[]string{"resource", "https://x.example"}, ""}, {[]string{"id_token_hint", "x.y.z"}, ""},
		} {
			q := a.enter(in, a.request(r.more...))
			same(t, strings.Join(r.more, " ")+": the error", q.Get("error"), r.error)
		}
	}, limitsOff)
}

// Whatever is sent to the endpoints that apps call by themselves comes to OAuth's JSON.
func TestBadInputOfApps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		const pkce = "xyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyzxyz.~"
		a, other := s.app(t, "first", func(a *store.App) { a.RedirectURIs = append(a.RedirectURIs, "https://first.example.com/other") }), s.app(t, "other")
		b := s.agent(t, "ann@example.org")
		a.secretInBody = true
		code := func(more ...string) string { t.Helper(); return a.enter(b, a.request(more...)).Get("code") }
		bound := func() string {
			t.Helper()
			return code("code_challenge", challengeOf(pkce), "code_challenge_method", "S256")
		}
		all := []string{"invalid_request", "invalid_client", "invalid_grant", "unsupported_grant_type", "invalid_token"}
		check := func(what string, res answer) {
			t.Helper()
			if res.Status >= http.StatusInternalServerError {
				t.Errorf("%s: %v", what, res)
			}
			if res.Status != http.StatusOK {
				res.oauthRefusal(t, what, all...)
			}
		}

		// Each field of each form.
		got := a.tokensOf(b)
		exchange := url.Values{"grant_type": {"authorization_code"}, "code": {bound()}, "redirect_uri": {a.redirect}, "code_verifier": {pkce}, "client_id": {a.id}, "client_secret": {a.secret}}
		forms := map[string]url.Values{
			"token": exchange, "refresh": {"grant_type": {"refresh_token"}, "refresh_token": {got.RefreshToken}, "client_id": {a.id}, "client_secret": {a.secret}},
			"revoke": {"token": {code()}, "token_type_hint": {"x"}, "client_id": {a.id}, "client_secret": {a.secret}}, "userinfo": {"access_token": {got.AccessToken}},
		}
		for endpoint, form := range forms {
			to := publicURL + "/oauth2/" + strings.Replace(endpoint, "refresh", "token", 1)
			for name := range form {
				for what, q := range spoiled(form, name) {
					for kind, body := range map[string]string{urlencoded: q.Encode(), multipartForm: multipartOf(q)} {
						res := s.rawBody(http.MethodPost, to, http.Header{"Content-Type": {kind}}, body)
						check(endpoint+", "+what+" as "+kind, res)
						extra := strings.Contains(what, "a NUL") || strings.Contains(what, "doubled") || strings.Contains(what, "10 KiB")
						if res.Status == http.StatusOK && extra && name != "token" && name != "token_type_hint" {
							t.Errorf("%s, %s as %s is taken", endpoint, what, kind)
						}
					}
				}
			}
			for what, res := range map[string]answer{
				"JSON":    s.rawBody(http.MethodPost, to, http.Header{"Content-Type": {"application/json"}}, `{"grant_type":"authorization_code"}`),
				"nothing": s.rawBody(http.MethodPost, to, nil, ""), "half a form": s.rawBody(http.MethodPost, to, nil, "a=%"), "70 KiB": s.rawBody(http.MethodPost, to, nil, "a="+strings.Repeat("x", 70_000)),
				"a query": s.raw(to+"?"+form.Encode(), nil, url.Values{}), "without a type": s.rawBody(http.MethodPost, to, http.Header{"Content-Type": nil}, form.Encode()),
			} {
				check(endpoint+", "+what, res)
				if res.Status == http.StatusOK {
					t.Errorf("%s, %s is taken", endpoint, what)
				}
			}
		}
		s.raw(a.meta.UserinfoEndpoint, nil, url.Values{"access_token": {got.AccessToken, got.AccessToken}}).oauthRefusal(t, "two access tokens", "invalid_request")
		s.raw(a.meta.UserinfoEndpoint, bearer(got.AccessToken), url.Values{"access_token": {got.AccessToken}}).oauthRefusal(t, "one in the header as well", "invalid_request")
		for _, kind := range []string{"password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:device_code", "AUTHORIZATION_CODE", "authorization_code "} {
			a.post(a.meta.TokenEndpoint, url.Values{"grant_type": {kind}, "username": {b.email}, "password": {good}}).oauthRefusal(t, kind, "unsupported_grant_type")
		}

		// Codes: the one that is used stays good through all of that.
		c := bound()
		wrong := func(what string, res answer, errors ...string) {
			t.Helper()
			if errors == nil {
				errors = []string{"invalid_grant"}
			}
			res.oauthRefusal(t, what, errors...)
		}
		for what, v := range map[string]string{"missing": "", "short": "x", "another": verifier, "the challenge": challengeOf(pkce), "longer": pkce + "x", "128 and more": strings.Repeat("x", 129), "10 KiB": strings.Repeat("x", 10<<10), "with a space": pkce + " "} {
			wrong("a verifier that is "+what, a.exchange(c, "code_verifier", v))
		}
		for what, text := range map[string]string{
			"cut": c[:len(c)-1], "cut in front": c[1:], "longer": c + "A", "changed": c[:20] + "AAAA" + c[24:], "changed at the end": c[:len(c)-4] + "AAAA", "of another key": "00000000" + c[8:], "without a key": c[9:], "an access token": got.AccessToken,
			"a refresh token": got.RefreshToken, "an ID token": got.IDToken, "a cookie": b.cookies["__Host-kwai"], "with a line break": c + "\n", "with spaces": " " + c, "padded": c + "=",
		} {
			wrong("a code that is "+what, a.exchange(text, "code_verifier", pkce))
		}
		for _, uri := range []string{"https://first.example.com/other", a.redirect + "/", "https://evil.example", strings.ToUpper(a.redirect)} {
			wrong("redirect_uri "+uri, a.exchange(c, "code_verifier", pkce, "redirect_uri", uri))
		}
		wrong("no redirect_uri", a.exchange(c, "code_verifier", pkce, "redirect_uri", ""), "invalid_request")
		wrong("another app", other.exchange(c, "code_verifier", pkce, "redirect_uri", a.redirect))
		a.idToken(a.got(a.exchange(c, "code_verifier", pkce)))
		wrong("a verifier without a challenge", a.exchange(code(), "code_verifier", pkce))
		late := bound()
		s.clock.advance(61 * time.Second)
		wrong("a late code", a.exchange(late, "code_verifier", pkce))

		// A second use by somebody else ends nothing.
		c = bound()
		got = a.got(a.exchange(c, "code_verifier", pkce))
		wrong("by another app", other.exchange(c, "code_verifier", pkce, "redirect_uri", a.redirect))
		wrong("without the verifier", a.exchange(c, "code_verifier", verifier))
		a.userinfo(got.AccessToken)
		wrong("by the app", a.exchange(c, "code_verifier", pkce))
		wrong("the access token", s.raw(a.meta.UserinfoEndpoint, bearer(got.AccessToken), nil), "invalid_token")
	}, limitsOff)
}

func multipartOf(q url.Values) string {
	var fields []string
	for name, values := range q {
		for _, v := range values {
			fields = append(fields, name, v)
		}
	}
	return encodeMultipart(fields...)
}

// Apps authenticate in one way, as the standards write it.
func TestBadAuthenticationOfApps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		const odd = "a%2B+b:c%zz&=?:0123456789012345678901234567890"
		a, public := s.app(t, "first"), s.app(t, "public", publicApp)
		_, _, err := s.command.CreateApp(t.Context(), store.App{ID: "odd", Name: "Odd", RedirectURIs: []string{"https://odd.example.com/"}}, false, odd)
		s.ok(err)
		try := func(header http.Header, more ...string) answer {
			t.Helper()
			form := url.Values{"token": {"x"}}
			for i := 0; i < len(more); i += 2 {
				form.Set(more[i], more[i+1])
			}
			return s.raw(a.meta.RevocationEndpoint, header, form)
		}
		plain := func(text string) http.Header {
			return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(text))}}
		}
		for what, res := range map[string]answer{
			"the header": try(basic("first", a.secret)), "the header and the id": try(basic("first", a.secret), "client_id", "first"), "the body": try(nil, "client_id", "first", "client_secret", a.secret), "a public one": try(nil, "client_id", "public"),
			"an odd secret": try(basic("odd", odd)), "an odd secret in the body": try(nil, "client_id", "odd", "client_secret", odd), "another case": try(http.Header{"Authorization": {"bAsIc " + base64.StdEncoding.EncodeToString([]byte("first:"+a.secret))}}),
			"the id, encoded": try(plain("f%69rst:" + a.secret)),
		} {
			same(t, what, res.String(), "200 {}\n")
		}
		for what, res := range map[string]answer{
			"no app": try(nil), "an unknown one": try(basic("x", a.secret)), "another secret": try(basic("first", odd)), "half a secret": try(basic("first", a.secret[:20])), "a longer one": try(basic("first", a.secret+"x")),
			"no secret": try(nil, "client_id", "first"), "an empty one": try(plain("first:")), "an empty one in the body": try(nil, "client_id", "first", "client_secret", ""), "another app's name": try(basic("odd", a.secret)),
			"another name in the body": try(basic("first", a.secret), "client_id", "odd"), "a secret of a public app": try(basic("public", a.secret)), "one in the body": try(nil, "client_id", "public", "client_secret", a.secret),
			"an odd secret, not encoded": try(plain("odd:" + odd)), "a NUL": try(plain("first\x00:" + a.secret)), "an encoded NUL": try(plain("%00:" + a.secret)), "no UTF-8": try(plain("\xff\xfe:" + a.secret)), "encoded no UTF-8": try(plain("%ff%fe:" + a.secret)),
			"a NUL in the body": try(nil, "client_id", "\x00", "client_secret", a.secret), "a NUL behind the id": try(nil, "client_id", "public\x00"), "10 KiB": try(plain(strings.Repeat("x", 10<<10) + ":" + a.secret)), "10 KiB in the body": try(nil, "client_id", strings.Repeat("x", 10<<10)),
			"another case of the id": try(nil, "client_id", "Public"), "a space": try(nil, "client_id", "public "),
		} {
			res.oauthRefusal(t, what, "invalid_client")
		}
		for what, res := range map[string]answer{
			"header and body": try(basic("first", a.secret), "client_id", "first", "client_secret", a.secret), "header and an empty secret": try(basic("first", a.secret), "client_secret", ""), "no base64": try(http.Header{"Authorization": {"Basic ###"}}), "no colon": try(plain("first")),
			"Bearer": try(bearer("x"), "client_id", "public"), "two headers": try(http.Header{"Authorization": {basic("first", a.secret).Get("Authorization"), "Basic x"}}), "an empty header": try(http.Header{"Authorization": {""}}, "client_id", "public"),
		} {
			res.oauthRefusal(t, what, "invalid_request")
		}
		for _, form := range []url.Values{{"client_id": {"public", "public"}, "token": {"x"}}, {"client_id": {"first"}, "client_secret": {a.secret, a.secret}, "token": {"x"}}} {
			s.raw(a.meta.RevocationEndpoint, nil, form).oauthRefusal(t, "doubled", "invalid_request")
		}
		// A secret that is replaced is good beside the new one, until the next change.
		first := a.secret
		second, err := s.command.NewAppSecret(t.Context(), "first", "", false)
		s.ok(err)
		same(t, "the one before", try(basic("first", first)).Status, http.StatusOK)
		_, err = s.command.NewAppSecret(t.Context(), "first", "", false)
		s.ok(err)
		try(basic("first", first)).oauthRefusal(t, "the one before that", "invalid_client")
		same(t, "the second", try(basic("first", second)).Status, http.StatusOK)
		q := public.enter(s.agent(t, "ann@example.org"), public.request("code_challenge", challenge, "code_challenge_method", "S256"))
		public.idToken(public.got(public.exchange(q.Get("code"), "code_verifier", verifier)))
	}, limitsOff)
}

// idKey is the site's own key of ID tokens, as a thief has it: see signingKey.
func (s *site) idKey() (id string, key *rsa.PrivateKey) {
	s.tb.Helper()
	keys, err := s.rules.Store.Read(s.tb.Context()).Keys()
	s.ok(err)
	for _, k := range keys {
		if k.Purpose == string(token.ID) {
			plain, err := s.master.Open(k.Sealed, "kwai server key/id/"+k.ID)
			s.ok(err)
			key, err := x509.ParsePKCS1PrivateKey(plain)
			s.ok(err)
			return k.ID, key
		}
	}
	s.tb.Fatal("no key of ID tokens")
	return "", nil
}

// signRS256 signs claims as an ID token.
func signRS256(tb testing.TB, id string, key *rsa.PrivateKey, kind string, claims any) string {
	tb.Helper()
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(kind)).WithHeader("kid", id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, options)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign([]byte(jsonOf(claims)))
	if err != nil {
		tb.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// A hint logs nobody out, and leads nowhere, unless it is an ID token of ours.
func TestBadHintsAtLogout(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		a, other := s.app(t, "first"), s.app(t, "other")
		b := s.agent(t, "ann@example.org")
		got := a.tokensOf(b)
		claims := a.idToken(got)
		bobs, others := a.tokensOf(s.agent(t, "bob@example.org")).IDToken, other.tokensOf(s.agent(t, "ann@example.org")).IDToken
		id, key := s.idKey()
		foreign, err := rsa.GenerateKey(rand.Reader, 2048)
		s.ok(err)
		with := func(change func(object)) object {
			c := maps.Clone(claims)
			change(c)
			return c
		}
		parts := strings.Split(got.IDToken, ".")
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		s.ok(err)
		head := encode(object{"alg": "HS256", "typ": "JWT", "kid": id})
		keys := s.keySet()
		set, err := keys.Key(id)[0].MarshalJSON()
		s.ok(err)
		jws, err := jose.ParseSignedCompact(got.IDToken, []jose.SignatureAlgorithm{jose.RS256})
		s.ok(err)
		hints := map[string]string{
			"another user's": bobs, "another browser's": others, "of nobody": "x", "empty": "", "10 KiB": strings.Repeat("x", 10<<10), "no signature": parts[0] + "." + parts[1] + ".", "no algorithm": encode(object{"alg": "none"}) + "." + parts[1] + ".",
			"no algorithm, with the signature": encode(object{"alg": "none", "kid": id}) + "." + parts[1] + "." + parts[2], "HS256 under the key as PEM": signHS256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), head, parts[1]),
			"HS256 under the key as DER": signHS256(der, head, parts[1]), "HS256 under the key as JWK": signHS256(set, head, parts[1]), "HS256 under the modulus": signHS256(key.N.Bytes(), head, parts[1]), "HS256 under the secret": signHS256([]byte(a.secret), head, parts[1]),
			"another's key": signRS256(t, id, foreign, "JWT", claims), "another's key, with its name": signRS256(t, "x", foreign, "JWT", claims), "another issuer's": signRS256(t, id, key, "JWT", with(func(c object) { c["iss"] = "https://evil.example" })),
			"without an issuer": signRS256(t, id, key, "JWT", with(func(c object) { delete(c, "iss") })), "a logout token": signRS256(t, id, key, "logout+jwt", claims), "without a type": signRS256(t, id, key, "", claims), "an access token's type": signRS256(t, id, key, "at+jwt", claims),
			"without sid": signRS256(t, id, key, "JWT", with(func(c object) { delete(c, "sid") })), "another sid": signRS256(t, id, key, "JWT", with(func(c object) { c["sid"] = "x" })), "without aud": signRS256(t, id, key, "JWT", with(func(c object) { delete(c, "aud") })),
			"several aud": signRS256(t, id, key, "JWT", with(func(c object) { c["aud"] = []string{"first", "other"} })), "another sub": signRS256(t, id, key, "JWT", with(func(c object) { c["sub"] = "x" })), "an access token": got.AccessToken, "a refresh token": got.RefreshToken, "a cookie": b.cookies["__Host-kwai"],
			"changed": parts[0] + "." + encode(with(func(c object) { c["aud"] = "other" })) + "." + parts[2], "JSON": jws.FullSerialize(), "two in one": got.IDToken + "." + got.IDToken, "with a space": got.IDToken + " ", "padded": got.IDToken + "=", "with a line break": got.IDToken + "\n", "with a NUL": got.IDToken + "\x00",
		}
		for what, hint := range hints {
			for _, extra := range []url.Values{{}, {"client_id": {"first"}}, {"client_id": {"other"}}} {
				q := url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {a.loggedOut}, "state": {"x"}}
				maps.Copy(q, extra)
				for _, p := range []shown{b.open(a.meta.EndSessionEndpoint + "?" + q.Encode()), b.follow(http.MethodPost, a.meta.EndSessionEndpoint, q.Encode())} {
					if p.out != "" || p.at.Path != "/logout" && p.Status != http.StatusBadRequest {
						t.Errorf("a hint that is %s: %s %q, %d", what, p.at, p.out, p.Status)
						a.tokensOf(b)
					}
				}
			}
		}
		a.tokensOf(b, "prompt", "none")
		// The fields one by one.
		full := url.Values{"id_token_hint": {bobs}, "post_logout_redirect_uri": {a.loggedOut}, "state": {"x"}, "client_id": {"first"}, "logout_hint": {"x"}, "ui_locales": {"nl"}}
		for name := range full {
			for what, q := range spoiled(full, name) {
				for _, p := range []shown{b.open(a.meta.EndSessionEndpoint + "?" + q.Encode()), b.follow(http.MethodPost, a.meta.EndSessionEndpoint, q.Encode())} {
					if harmless(t, what, p.answer); p.out != "" || p.Status >= http.StatusInternalServerError {
						t.Errorf("%s: %s %q, %.120v", what, p.at, p.out, p.answer)
					}
				}
			}
		}
		q := url.Values{"id_token_hint": {got.IDToken}, "client_id": {"other"}}
		same(t, "a hint with another's name", b.open(a.meta.EndSessionEndpoint+"?"+q.Encode()).at.Path, "/logout")
		a.tokensOf(b, "prompt", "none")
		s.clock.advance(48 * time.Hour)
		q = url.Values{"id_token_hint": {signRS256(t, id, key, "JWT", claims)}, "post_logout_redirect_uri": {a.loggedOut}}
		same(t, "one of ours, expired", s.agent(t, "").open(a.meta.EndSessionEndpoint+"?"+q.Encode()).out, a.loggedOut)
	}, limitsOff)
}

// What becomes of an app, a user and a group between two steps of a login is looked at
// at each.
func TestWhatIsLostOnTheWayToAnApp(t *testing.T) {
	losses := map[string]func(s *site){
		"the app is deleted":    func(s *site) { s.ok(s.command.DeleteApp(s.tb.Context(), "first")) },
		"the user is deleted":   func(s *site) { s.ok(s.command.DeleteUser(s.tb.Context(), "ann@example.org")) },
		"the user is revoked":   func(s *site) { s.revoke("ann@example.org") },
		"the group is lost":     func(s *site) { s.ok(s.command.RemoveMembers(s.tb.Context(), "judoka", "ann@example.org")) },
		"the password is new":   func(s *site) { s.setPassword("ann@example.org", better) },
		"the secret is another": func(s *site) { _, err := s.command.NewAppSecret(s.tb.Context(), "first", "", true); s.ok(err) },
		"the redirect is gone": func(s *site) {
			s.changeApp(func(a *store.App) { a.RedirectURIs = []string{"https://first.example.com/new"} })
		},
		"the app asks for more":  func(s *site) { s.changeApp(func(a *store.App) { a.Groups = []string{"none"} }) },
		"the parent has expired": func(s *site) { s.clock.advance(91 * 24 * time.Hour) },
	}
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.ok(s.command.CreateGroup(t.Context(), "none"))
		s.ok(s.command.CreateGroup(t.Context(), "judoka"))
		for what, lose := range losses {
			t.Run(what, func(t *testing.T) {
				s := s.in(t)
				// begin makes all anew.
				begin := func(options ...func(*store.App)) (*oidcApp, *agent) {
					_ = s.command.DeleteApp(t.Context(), "first")
					_ = s.command.DeleteUser(t.Context(), "ann@example.org")
					s.user("ann@example.org", good)
					s.ok(s.command.AddMembers(t.Context(), "judoka", "ann@example.org"))
					return s.app(t, "first", append(options, func(a *store.App) { a.Groups, a.Offline = []string{"judoka"}, true })...), s.agent(t, "ann@example.org")
				}
				a, b := begin()
				address := a.meta.AuthorizationEndpoint + "?" + a.request().Encode()
				b.goOn(b.open(address))
				lose(s)
				p := b.open(address)
				if strings.HasPrefix(p.out, a.redirect) && strings.Contains(p.out, "code=") != (what == "the secret is another") || p.Status >= http.StatusInternalServerError {
					t.Errorf("authorize: %s %q %.120v", p.at, p.out, p.answer)
				}

				_, b = begin(func(a *store.App) { a.Consent = true })
				p = b.open(address)
				p = b.submit(p, "username", b.email, "password", good)
				same(t, "the question", p.at.Path, "/consent")
				lose(s)
				p = b.submit(p, "answer", "yes")
				if strings.Contains(p.out, "code=") != (what == "the secret is another") || p.Status >= http.StatusInternalServerError {
					t.Errorf("consent: %s %q %.120v", p.at, p.out, p.answer)
				}

				refused := func(step string, res answer) {
					t.Helper()
					switch what {
					case "the redirect is gone": // it was there when the code was made
						same(t, step, res.Status, http.StatusOK)
					case "the app is deleted", "the secret is another":
						res.oauthRefusal(t, step, "invalid_client")
					default:
						res.oauthRefusal(t, step, "invalid_grant")
					}
				}
				a, b = begin()
				code := a.enter(b, a.request()).Get("code")
				lose(s)
				refused("the code", a.exchange(code))

				for _, scope := range []string{"openid", "openid offline_access"} {
					a, b = begin()
					got := a.tokensOf(b, "scope", scope)
					lose(s)
					res := s.raw(a.meta.UserinfoEndpoint, bearer(got.AccessToken), nil)
					if what == "the redirect is gone" || what == "the secret is another" {
						same(t, "userinfo", res.Status, http.StatusOK)
					} else {
						res.oauthRefusal(t, "userinfo", "invalid_token")
					}
					refused("the refresh", a.refresh(got.RefreshToken))
					same(t, "revoke", a.post(a.meta.RevocationEndpoint, url.Values{"token": {got.AccessToken}}).Status < 500, true)
					p := b.open(a.meta.EndSessionEndpoint + "?" + url.Values{"id_token_hint": {got.IDToken}, "post_logout_redirect_uri": {a.loggedOut}}.Encode())
					if p.Status >= http.StatusInternalServerError || what == "the app is deleted" && p.out != "" {
						t.Errorf("logout: %s %q %v", p.at, p.out, p.answer)
					}
				}
			})
		}
	}, limitsOff)
}

func (s *site) changeApp(change func(*store.App)) {
	s.tb.Helper()
	_, err := s.command.UpdateApp(s.tb.Context(), "first", change)
	s.ok(err)
}

// in is the site in a subtest.
func (s *site) in(t *testing.T) *site {
	inner := *s
	inner.tb = t
	return &inner
}

// An id that no app has is nothing to take back.
func TestBadInputAtOnesApps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.app(t, "first", func(a *store.App) { a.Consent = true })
		b := s.agent(t, "ann@example.org")
		got := a.tokensOf(b)
		for what, id := range badValues {
			p := b.open(publicURL + "/account/apps")
			if p = b.submit(p, "id", id); p.Status != http.StatusOK && p.Status != http.StatusBadRequest {
				t.Errorf("%s: %s %.120v", what, p.at, p.answer)
			}
		}
		a.userinfo(got.AccessToken)
		if p := b.submit(b.open(publicURL+"/account/apps"), "id", "first"); p.Status != http.StatusOK || !bytes.Contains(p.Body, []byte("First")) {
			t.Errorf("taking back: %v", p.answer)
		}
		s.raw(a.meta.UserinfoEndpoint, bearer(got.AccessToken), nil).oauthRefusal(t, "taken back", "invalid_token")
	}, limitsOff)
}

// An app that asks for no page gets none, whatever is missing.
func TestPromptNoneShowsNoPage(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		s.ok(s.command.CreateGroup(t.Context(), "none"))
		for _, r := range []struct {
			id     string
			change func(*store.App)
			error  string
		}{
			{"closed", func(a *store.App) { a.Groups = []string{"none"} }, "access_denied"}, {"asking", func(a *store.App) { a.Consent = true }, "consent_required"},
			{"desk", func(a *store.App) { publicApp(a); a.RedirectURIs = []string{"http://127.0.0.1/"} }, "consent_required"},
		} {
			a, b := s.app(t, r.id, r.change), s.agent(t, "ann@example.org")
			more := []string{"prompt", "none", "code_challenge", challenge, "code_challenge_method", "S256"}
			a.refused(r.id+", not logged in", a.enter(b, a.request(more...)), "login_required")
			b.goOn(b.open(publicURL + "/login"))
			a.refused(r.id, a.enter(b, a.request(more...)), r.error)
			same(t, "questions", b.asked, 0)
		}
	}, limitsOff)
}

// Half a form of a question, or one that no page has made, leads nowhere.
func TestBadInputAtAQuestion(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		a := s.app(t, "first", func(a *store.App) { a.Consent = true })
		b, bob := s.agent(t, "ann@example.org"), s.agent(t, "bob@example.org")
		ask := func(b *agent, more ...string) (form, request string) {
			t.Helper()
			p := b.open(a.meta.AuthorizationEndpoint + "?" + a.request(more...).Encode())
			if p.at.Path == "/login" {
				p = b.submit(p, "username", b.email, "password", good)
			}
			return sealOf.FindStringSubmatch(string(p.Body))[1], p.at.RawQuery
		}
		seal, request := ask(b)
		_, wider := ask(b, "scope", "openid email")
		bobs, _ := ask(bob)
		for what, fields := range map[string]url.Values{
			"no form": {"request": {request}, "answer": {"yes"}}, "no request": {"form": {seal}, "answer": {"yes"}}, "no answer": {"form": {seal}, "request": {request}}, "another answer": {"form": {seal}, "request": {request}, "answer": {"YES"}}, "two answers": {"form": {seal}, "request": {request}, "answer": {"yes", "no"}},
			"two forms": {"form": {seal, seal}, "request": {request}, "answer": {"yes"}}, "two requests": {"form": {seal}, "request": {request, request}, "answer": {"yes"}}, "another request": {"form": {seal}, "request": {wider}, "answer": {"yes"}}, "more of a request": {"form": {seal}, "request": {request + "&x=y"}, "answer": {"yes"}},
			"another user's form": {"form": {bobs}, "request": {request}, "answer": {"yes"}}, "a changed form": {"form": {"x" + seal}, "request": {request}, "answer": {"yes"}}, "a line break": {"form": {seal}, "request": {request + "\r\nX: y"}, "answer": {"yes"}}, "a NUL": {"form": {seal}, "request": {request + "\x00"}, "answer": {"yes"}},
			"a fragment": {"form": {seal}, "request": {request + "#x"}, "answer": {"yes"}}, "what no address has": {"form": {seal}, "request": {request + "&x=é <x>"}, "answer": {"yes"}}, "20 KiB": {"form": {seal}, "request": {request + strings.Repeat("x", 20<<10)}, "answer": {"yes"}},
		} {
			p := b.follow(http.MethodPost, publicURL+"/consent", fields.Encode())
			if p.out != "" || p.at.Path != "/consent" && p.Status < 400 || p.Status >= http.StatusInternalServerError {
				t.Errorf("%s: %s %q %.120v", what, p.at, p.out, p.answer)
			}
			harmless(t, what, p.answer)
		}
		_, err := s.rules.Store.Read(t.Context()).Grant(s.idOf("ann@example.org"), "first")
		same(t, "a grant", errors.Is(err, store.ErrNotFound), true)
		p := b.follow(http.MethodPost, publicURL+"/consent", url.Values{"form": {seal}, "request": {request}, "answer": {"no"}}.Encode())
		a.refused("no", a.back(p, a.request().Get("state")), "access_denied")
		p = b.follow(http.MethodPost, publicURL+"/consent", url.Values{"form": {seal}, "request": {request}, "answer": {"yes"}}.Encode())
		a.idToken(a.got(a.exchange(a.back(p, a.request().Get("state")).Get("code"))))
	}, limitsOff)
}

func (s *site) idOf(email string) string {
	s.tb.Helper()
	u, err := s.command.User(s.tb.Context(), email)
	s.ok(err)
	return u.ID
}
