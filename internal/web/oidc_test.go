package web_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// The modules of OpenID's certification, by their names: what each demands of a
// provider, asked by an app of our own.

// registered are the metadata's parameters, as IANA lists them.
var registered = strings.Fields(`issuer authorization_endpoint token_endpoint userinfo_endpoint jwks_uri registration_endpoint scopes_supported
	response_types_supported response_modes_supported grant_types_supported acr_values_supported subject_types_supported
	id_token_signing_alg_values_supported id_token_encryption_alg_values_supported id_token_encryption_enc_values_supported
	userinfo_signing_alg_values_supported userinfo_encryption_alg_values_supported userinfo_encryption_enc_values_supported
	request_object_signing_alg_values_supported request_object_encryption_alg_values_supported request_object_encryption_enc_values_supported
	token_endpoint_auth_methods_supported token_endpoint_auth_signing_alg_values_supported display_values_supported claim_types_supported
	claims_supported service_documentation claims_locales_supported ui_locales_supported claims_parameter_supported request_parameter_supported
	request_uri_parameter_supported require_request_uri_registration op_policy_uri op_tos_uri revocation_endpoint
	revocation_endpoint_auth_methods_supported revocation_endpoint_auth_signing_alg_values_supported introspection_endpoint
	code_challenge_methods_supported signed_metadata authorization_response_iss_parameter_supported prompt_values_supported
	end_session_endpoint check_session_iframe frontchannel_logout_supported frontchannel_logout_session_supported
	backchannel_logout_supported backchannel_logout_session_supported`)

// modules is each, and the same over TLS and HTTP/2.
func modules(t *testing.T, f func(t *testing.T, s *site), options ...func(*setup)) {
	each(t, f, options...)
	t.Run("https", func(t *testing.T) {
		t.Parallel()
		s := start(t, storetest.SQLite(t), options...)
		server := httptest.NewUnstartedServer(s.handler)
		server.EnableHTTP2 = true
		server.StartTLS()
		t.Cleanup(server.Close)
		via := server.Client().Transport.(*http.Transport)
		via.TLSClientConfig.ServerName = "example.com" // whose certificate that server has
		via.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		}
		s.via = secure{t, via}
		f(t, s)
	})
}

// secure holds that each request goes over TLS and HTTP/2.
type secure struct {
	t   *testing.T
	via http.RoundTripper
}

func (s secure) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.via.RoundTrip(r)
	if err == nil && (r.URL.Scheme != "https" || res.TLS == nil || res.ProtoMajor != 2) {
		s.t.Errorf("%s %s went over %s", r.Method, r.URL, res.Proto)
	}
	return res, err
}

func TestOpenIDConfig(t *testing.T) {
	modules(t, func(t *testing.T, s *site) {
		s.forApps()
		t.Run("oidcc-discovery-endpoint-verification", func(t *testing.T) {
			a := s.raw(publicURL+"/.well-known/openid-configuration", nil, nil)
			same(t, "the status", a.Status, http.StatusOK)
			same(t, "the content type", a.Header.Get("Content-Type"), "application/json")
			var meta object
			s.ok(json.Unmarshal(a.Body, &meta))
			same[any](t, "the issuer", meta["issuer"], publicURL)
			list := func(name string) (all []string) {
				t.Helper()
				values, ok := meta[name].([]any)
				if !ok || len(values) == 0 {
					t.Errorf("%s is %v", name, meta[name])
				}
				for _, v := range values {
					all = append(all, v.(string))
				}
				return all
			}
			for name, want := range map[string]string{
				"response_types_supported": "code", "subject_types_supported": "public", "id_token_signing_alg_values_supported": "RS256", "scopes_supported": "openid",
				"claims_supported": "sub", "grant_types_supported": "authorization_code", "code_challenge_methods_supported": "S256", "token_endpoint_auth_methods_supported": "client_secret_basic",
			} {
				if !slices.Contains(list(name), want) {
					t.Errorf("%s is %v, without %q", name, meta[name], want)
				}
			}
			if !slices.Contains(list("grant_types_supported"), "refresh_token") {
				t.Error("refresh tokens aren't said to be supported")
			}
			for _, name := range []string{"request_parameter_supported", "request_uri_parameter_supported"} {
				same[any](t, name, meta[name], false)
			}
			locale := regexp.MustCompile(`^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$`)
			for _, l := range list("ui_locales_supported") {
				same(t, l+" is in canonical case", locale.MatchString(l), true)
			}
			for name, value := range meta {
				if !slices.Contains(registered, name) {
					t.Errorf("%s isn't registered", name)
				}
				if address, _ := value.(string); (strings.HasSuffix(name, "_endpoint") || strings.HasSuffix(name, "_uri")) && !strings.HasPrefix(address, "https://") {
					t.Errorf("%s is %v", name, value)
				}
			}
			for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"} {
				if meta[name] == nil {
					t.Errorf("there is no %s", name)
				}
			}
			same(t, "the metadata of OAuth", string(s.raw(publicURL+"/.well-known/oauth-authorization-server", nil, nil).Body), string(a.Body))
		})
		t.Run("the key set", func(t *testing.T) {
			var set struct{ Keys []object }
			s.ok(json.Unmarshal(s.raw(publicURL+keySetPath, nil, nil).Body, &set))
			ids := make(map[any]bool)
			var kinds []any
			for _, key := range set.Keys {
				if id, _ := key["kid"].(string); id == "" || ids[id] {
					t.Errorf("the id of %v is missing, or another's", key)
				}
				ids[key["kid"]] = true
				kinds = append(kinds, key["kty"])
				for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
					if key[private] != nil {
						t.Errorf("%v is published", private)
					}
				}
			}
			if !slices.Equal(kinds, []any{"EC", "RSA"}) {
				t.Errorf("the keys are of the kinds %v", kinds)
			}
		})
	})
}

// requestObject is an unsigned request object.
func requestObject(claims object) string {
	return encode(object{"alg": "none"}) + "." + encode(claims) + "."
}

// vschar is what RFC 6749, A.17, lets a refresh token be of.
var vschar = regexp.MustCompile(`^[ -~]+$`)

func TestOpenIDBasic(t *testing.T) {
	modules(t, func(t *testing.T, s *site) {
		s.forApps()
		annID := s.user("ann@example.org", good)
		s.ok(s.command.CreateGroup(t.Context(), "judoka"))
		s.ok(s.command.AddMembers(t.Context(), "judoka", "ann@example.org"))
		s.user("bob@example.org", good)
		app, second := s.app(t, "first"), s.app(t, "second")
		module := func(name string, f func(t *testing.T, a *oidcApp, b *agent)) {
			t.Run(name, func(t *testing.T) { f(t, app.in(t), s.agent(t, "ann@example.org")) })
		}
		// works is a happy flow that has these parameters.
		works := func(more ...string) func(*testing.T, *oidcApp, *agent) {
			return func(t *testing.T, a *oidcApp, b *agent) { t.Helper(); a.idToken(a.tokensOf(b, more...)) }
		}

		module("oidcc-server", func(t *testing.T, a *oidcApp, b *agent) {
			request := a.request("nonce", "n-0S6_WzA2Mj")
			q := a.enter(b, request)
			code := q.Get("code")
			if len(code) < 43 || len(code) > 2000 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
				t.Errorf("the code is %q", code)
			}
			got := a.got(a.exchange(code))
			same(t, "how long the access token is good", got.ExpiresIn, 3600)
			claims := a.idToken(got)
			same[any](t, "sub", claims["sub"], annID)
			same[any](t, "nonce", claims["nonce"], "n-0S6_WzA2Mj")
			if sid, _ := claims["sid"].(string); len(sid) < 22 {
				t.Errorf("sid is %v", claims["sid"])
			}
			other := a.enter(b, request).Get("code")
			common := 0
			for common < len(code) && common < len(other) && code[common] == other[common] {
				common++
			}
			if common > 20 {
				t.Errorf("two codes begin alike: %q, %q", code, other)
			}
		})
		module("oidcc-response-type-missing", func(_ *testing.T, a *oidcApp, b *agent) {
			a.refused("no response_type", a.enter(b, a.request("response_type", "")), "invalid_request", "unsupported_response_type")
		})
		module("oidcc-userinfo-get", func(t *testing.T, a *oidcApp, b *agent) {
			got := a.tokensOf(b)
			same(t, "sub", a.userinfo(got.AccessToken)["sub"], a.idToken(got)["sub"])
		})
		module("oidcc-userinfo-post-header", func(t *testing.T, a *oidcApp, b *agent) {
			got := a.tokensOf(b)
			for what, body := range map[string]string{"without a body": "", "with another field": "x=y"} {
				res := s.rawBody(http.MethodPost, a.meta.UserinfoEndpoint, bearer(got.AccessToken), body)
				same(t, what+": sub", res.field("sub"), annID)
			}
		})
		module("oidcc-userinfo-post-body", func(t *testing.T, a *oidcApp, b *agent) {
			res := s.raw(a.meta.UserinfoEndpoint, nil, url.Values{"access_token": {a.tokensOf(b).AccessToken}})
			same(t, "sub", res.field("sub"), annID)
			same(t, "the content type", res.Header.Get("Content-Type"), "application/json")
		})
		module("oidcc-ensure-request-without-nonce-succeeds-for-code-flow", func(t *testing.T, a *oidcApp, b *agent) {
			if nonce, has := a.idToken(a.tokensOf(b))["nonce"]; has {
				t.Errorf("there is a nonce: %v", nonce)
			}
		})
		for scope, want := range map[string][]string{
			"profile": {"family_name", "given_name", "name", "preferred_username", "sub"},
			"email":   {"email", "email_verified", "preferred_username", "sub"},
			"address": {"sub"},
			"phone":   {"sub"},
			"groups":  {"groups", "sub"},
			"all":     {"email", "email_verified", "family_name", "given_name", "groups", "name", "preferred_username", "sub"},
		} {
			module("oidcc-scope-"+scope, func(t *testing.T, a *oidcApp, b *agent) {
				asked := scope
				if scope == "all" {
					asked = "profile email address phone groups"
				}
				got := a.tokensOf(b, "scope", "openid "+asked)
				claims, inToken := a.userinfo(got.AccessToken), a.idToken(got)
				var names []string
				for name, value := range claims {
					names = append(names, name)
					same(t, name+" in the ID token", jsonOf(inToken[name]), jsonOf(value))
				}
				if slices.Sort(names); !slices.Equal(names, want) {
					t.Errorf("the claims are %q, want %q", names, want)
				}
				for _, granted := range strings.Fields(got.Scope) {
					if !slices.Contains(strings.Fields("openid "+asked), granted) || granted == "address" || granted == "phone" {
						t.Errorf("the scopes are %q", got.Scope)
					}
				}
			})
		}
		module("oidcc-alternate-happy-flow", func(t *testing.T, a *oidcApp, b *agent) {
			q := a.request("scope", "email openid")
			ordered := "state=" + url.QueryEscape(q.Get("state")) + "&scope=email%20openid&response_type=code&redirect_uri=" + url.QueryEscape(a.redirect) + "&client_id=" + a.id
			back := a.back(b.goOn(b.open(a.meta.AuthorizationEndpoint+"?"+ordered)), q.Get("state"))
			form := url.Values{"redirect_uri": {a.redirect}, "code": {back.Get("code")}, "grant_type": {"authorization_code"}}
			same[any](t, "email", a.idToken(a.got(a.post(a.meta.TokenEndpoint, form)))["email"], "ann@example.org")
		})
		module("oidcc-display-page", works("display", "page"))
		module("oidcc-display-popup", works("display", "popup"))
		module("oidcc-prompt-login", func(t *testing.T, a *oidcApp, b *agent) {
			first := a.idToken(a.tokensOf(b))
			s.clock.advance(2 * time.Second)
			next := a.idToken(a.tokensOf(b, "prompt", "login"))
			same(t, "logins", b.logins, 2)
			same(t, "sub", next["sub"], first["sub"])
			if next["auth_time"].(float64) <= first["auth_time"].(float64) {
				t.Errorf("auth_time is %v, after %v", next["auth_time"], first["auth_time"])
			}
		})
		module("oidcc-prompt-none-not-logged-in", func(t *testing.T, a *oidcApp, b *agent) {
			a.refused("prompt=none", a.enter(b, a.request("prompt", "none")), "login_required")
			same(t, "questions", b.logins+b.asked, 0)
		})
		module("oidcc-prompt-none-logged-in", func(t *testing.T, a *oidcApp, b *agent) {
			first := a.idToken(a.tokensOf(b))
			s.clock.advance(2 * time.Second)
			next := a.idToken(a.tokensOf(b, "prompt", "none"))
			same(t, "questions", b.logins+b.asked, 1)
			same(t, "sub", next["sub"], first["sub"])
			same(t, "auth_time", next["auth_time"], first["auth_time"])
			same(t, "sid", next["sid"], first["sid"])
		})
		module("oidcc-id-token-hint", func(t *testing.T, a *oidcApp, b *agent) {
			got := a.tokensOf(b)
			first := a.idToken(got)
			s.clock.advance(2 * time.Second)
			next := a.idToken(a.tokensOf(b, "prompt", "none", "id_token_hint", got.IDToken))
			same(t, "questions", b.logins+b.asked, 1)
			same(t, "sub", next["sub"], first["sub"])
			same(t, "auth_time", next["auth_time"], first["auth_time"])
		})
		module("an id_token_hint of somebody else", func(t *testing.T, a *oidcApp, b *agent) {
			bob := s.agent(t, "bob@example.org")
			hint := a.tokensOf(bob).IDToken
			a.tokensOf(b)
			a.refused("prompt=none", a.enter(b, a.request("prompt", "none", "id_token_hint", hint)), "login_required")
			same(t, "logins before", b.logins, 1)
			a.refused("the same user once more", a.enter(b, a.request("id_token_hint", hint)), "login_required")
			same(t, "logins", b.logins, 2)
			b.email = "bob@example.org"
			same(t, "sub", a.idToken(a.tokensOf(b, "id_token_hint", hint))["sub"], a.verified(hint)["sub"])
			same(t, "logins with the one who is meant", b.logins, 3)
		})
		module("oidcc-max-age-1", func(t *testing.T, a *oidcApp, b *agent) {
			first := a.idToken(a.tokensOf(b, "max_age", "1"))
			s.clock.advance(2 * time.Second)
			a.refused("prompt=none", a.enter(b, a.request("max_age", "1", "prompt", "none")), "login_required")
			next := a.idToken(a.tokensOf(b, "max_age", "1"))
			same(t, "logins", b.logins, 2)
			if at := next["auth_time"].(float64); at <= first["auth_time"].(float64) || at < float64(s.clock.now().Unix()-1) {
				t.Errorf("auth_time is %v, after %v", at, first["auth_time"])
			}
		})
		module("oidcc-max-age-10000", func(t *testing.T, a *oidcApp, b *agent) {
			first := a.idToken(a.tokensOf(b, "max_age", "10000"))
			s.clock.advance(2 * time.Second)
			next := a.idToken(a.tokensOf(b, "max_age", "10000"))
			same(t, "logins", b.logins, 1)
			same(t, "auth_time", next["auth_time"], first["auth_time"])
		})
		module("oidcc-ensure-request-with-unknown-parameter-succeeds", works("extra", "foobar"))
		module("oidcc-login-hint", func(t *testing.T, a *oidcApp, b *agent) {
			p := b.open(a.meta.AuthorizationEndpoint + "?" + a.request("login_hint", "ann@example.org").Encode())
			contains(t, "the login", string(p.Body), `value="ann@example.org"`)
			a.idToken(a.tokensOf(b, "login_hint", "nobody@example.org"))
		})
		module("oidcc-ui-locales", func(t *testing.T, a *oidcApp, b *agent) {
			p := b.open(a.meta.AuthorizationEndpoint + "?" + a.request("ui_locales", "se nl").Encode())
			same(t, "the language", p.Header.Get("Content-Language"), "nl")
			a.idToken(a.tokensOf(b, "ui_locales", "se"))
		})
		module("oidcc-claims-locales", works("claims_locales", "se"))
		module("oidcc-ensure-request-with-acr-values-succeeds", works("acr_values", "1 2"))
		for name, after := range map[string]time.Duration{"oidcc-codereuse": 0, "oidcc-codereuse-30seconds": 30 * time.Second} {
			module(name, func(t *testing.T, a *oidcApp, b *agent) {
				code := a.enter(b, a.request()).Get("code")
				got := a.got(a.exchange(code))
				a.userinfo(got.AccessToken)
				s.clock.advance(after)
				a.exchange(code).oauthRefusal(t, "the second use", "invalid_grant")
				s.raw(a.meta.UserinfoEndpoint, bearer(got.AccessToken), nil).oauthRefusal(t, "the access token of the first", "invalid_token")
				a.refresh(got.RefreshToken).oauthRefusal(t, "the refresh token of the first", "invalid_grant")
			})
		}
		module("oidcc-ensure-registered-redirect-uri", func(t *testing.T, a *oidcApp, b *agent) {
			for _, in := range []bool{false, true} {
				for _, uri := range []string{"https://first.example.com/other", "https://evil.example/", a.redirect + "?x=y", a.redirect + "/x", a.redirect + "x"} {
					a.told(uri, b.open(a.meta.AuthorizationEndpoint+"?"+a.request("redirect_uri", uri).Encode()))
				}
				if !in {
					a.tokensOf(b)
				}
			}
		})
		module("oidcc-ensure-post-request-succeeds", func(_ *testing.T, a *oidcApp, b *agent) {
			q := a.request("nonce", "n")
			back := a.back(b.goOn(b.follow(http.MethodPost, a.meta.AuthorizationEndpoint, q.Encode())), q.Get("state"))
			a.idToken(a.got(a.exchange(back.Get("code"))))
		})
		module("oidcc-server-client-secret-post", func(_ *testing.T, a *oidcApp, b *agent) {
			a.secretInBody = true
			a.idToken(a.tokensOf(b))
		})
		module("oidcc-request-uri-unsigned-supported-correctly-or-rejected-as-unsupported", func(_ *testing.T, a *oidcApp, b *agent) {
			a.refused("request_uri", a.enter(b, a.request("request_uri", "https://first.example.com/request.jwt")), "request_uri_not_supported")
		})
		module("oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported", func(_ *testing.T, a *oidcApp, b *agent) {
			a.refused("request", a.enter(b, a.request("request", requestObject(object{"client_id": a.id, "nonce": "n"}))), "request_not_supported")
		})
		module("oidcc-ensure-request-object-with-redirect-uri", func(_ *testing.T, a *oidcApp, b *agent) {
			q := a.request("redirect_uri", "https://first.example.com/other", "request", requestObject(object{"redirect_uri": a.redirect}))
			a.told("a bad redirect_uri", b.open(a.meta.AuthorizationEndpoint+"?"+q.Encode()))
		})
		module("oidcc-claims-essential", func(t *testing.T, a *oidcApp, b *agent) {
			got := a.tokensOf(b, "scope", "openid profile", "claims", `{"userinfo":{"name":{"essential":true}}}`)
			same[any](t, "name", a.userinfo(got.AccessToken)["name"], "Ann Other")
		})
		module("oidcc-refresh-token", func(t *testing.T, a *oidcApp, b *agent) {
			got := a.tokensOf(b, "nonce", "n", "scope", "openid offline_access")
			first := a.idToken(got)
			same(t, "the refresh token is of VSCHAR", vschar.MatchString(got.RefreshToken), true)
			s.clock.advance(2 * time.Second)
			second.in(t).refresh(got.RefreshToken).oauthRefusal(t, "another app", "invalid_grant")
			next := a.got(a.refresh(got.RefreshToken))
			claims := a.idToken(next)
			for _, name := range []string{"iss", "sub", "aud", "auth_time", "sid"} {
				same(t, name, claims[name], first[name])
			}
			if nonce := claims["nonce"]; nonce != nil && nonce != "n" {
				t.Errorf("nonce is %v", nonce)
			}
			if claims["iat"].(float64) <= first["iat"].(float64) {
				t.Errorf("iat is %v, after %v", claims["iat"], first["iat"])
			}
			same(t, "sub", a.userinfo(next.AccessToken)["sub"], first["sub"])
			a.got(a.refresh(next.RefreshToken))
		})
		module("oidcc-ensure-request-with-valid-pkce-succeeds", func(_ *testing.T, a *oidcApp, b *agent) {
			q := a.enter(b, a.request("code_challenge", challenge, "code_challenge_method", "S256"))
			a.idToken(a.got(a.exchange(q.Get("code"), "code_verifier", verifier)))
		})
	}, limitsOff)
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// An app that keeps no secret, and one that has PKCE, go the same way.
func TestOpenIDWithPKCE(t *testing.T) {
	modules(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		for _, app := range []*oidcApp{
			s.app(t, "public", publicApp), s.app(t, "confidential", func(a *store.App) { a.WithoutPKCE = false }),
			s.app(t, "desk", publicApp, func(a *store.App) { a.RedirectURIs = []string{"http://127.0.0.1:4000/callback"} }),
			s.app(t, "phone", publicApp, func(a *store.App) { a.RedirectURIs = []string{"com.example.phone:/callback"} }),
		} {
			t.Run(app.id, func(t *testing.T) {
				a, b := app.in(t), s.agent(t, "ann@example.org")
				a.refused("without PKCE", a.enter(b, a.request()), "invalid_request")
				q := a.enter(b, a.request("code_challenge", challenge, "code_challenge_method", "S256"))
				got := a.got(a.exchange(q.Get("code"), "code_verifier", verifier))
				a.idToken(got)
				a.idToken(a.got(a.refresh(got.RefreshToken)))
				same(t, "the app is shown before", b.asked == 1, a.id == "desk" || a.id == "phone")
			})
		}
	}, limitsOff)
}

func TestOpenIDRPInitiatedLogout(t *testing.T) {
	modules(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		app := s.app(t, "first")
		const prefix = "oidcc-rp-initiated-logout"
		// module logs in, and has the logout's answer judged.
		module := func(name string, request func(a *oidcApp, hint string) url.Values, judge func(t *testing.T, a *oidcApp, b *agent, p shown)) {
			t.Run(prefix+name, func(t *testing.T) {
				a, b := app.in(t), s.agent(t, "ann@example.org")
				hint := a.tokensOf(b).IDToken
				if name != "" {
					s.clock.advance(3 * time.Hour) // an expired hint is fine
				}
				judge(t, a, b, b.open(a.meta.EndSessionEndpoint+"?"+request(a, hint).Encode()))
			})
		}
		full := func(a *oidcApp, hint string) url.Values {
			return url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {a.loggedOut}, "state": {"a b&c"}}
		}
		with := func(name, value string) func(*oidcApp, string) url.Values {
			return func(a *oidcApp, hint string) url.Values {
				q := full(a, hint)
				if q.Set(name, value); value == "" {
					q.Del(name)
				}
				return q
			}
		}
		loggedOut := func(t *testing.T, a *oidcApp, b *agent) {
			t.Helper()
			a.refused("prompt=none afterwards", a.enter(b, a.request("prompt", "none")), "login_required")
		}
		// stays is an error or a question, and no way out.
		stays := func(t *testing.T, a *oidcApp, b *agent, p shown) {
			t.Helper()
			if p.out != "" || p.Status >= 500 || outside.Match(p.Body) {
				t.Errorf("it leads to %q: %v", p.out, p.answer)
			}
			if p = b.goOn(p); p.out != "" {
				t.Errorf("the question leads to %q", p.out)
			}
			if b.asked > 0 {
				loggedOut(t, a, b)
			} else {
				a.tokensOf(b, "prompt", "none")
			}
		}
		page := func(t *testing.T, a *oidcApp, b *agent, p shown) {
			t.Helper()
			if p = b.goOn(p); p.out != "" || p.Status != http.StatusOK {
				t.Errorf("it leads to %q: %v", p.out, p.answer)
			}
			loggedOut(t, a, b)
		}
		t.Run(prefix+"-discovery-endpoint-verification", func(t *testing.T) {
			same(t, "end_session_endpoint", app.meta.EndSessionEndpoint, publicURL+"/oauth2/logout")
		})
		module("", full, func(t *testing.T, a *oidcApp, b *agent, p shown) {
			same(t, "where it leads", p.out, a.loggedOut+"?state=a+b%26c")
			loggedOut(t, a, b)
		})
		t.Run(prefix+" by POST", func(t *testing.T) {
			a, b := app.in(t), s.agent(t, "ann@example.org")
			p := b.follow(http.MethodPost, a.meta.EndSessionEndpoint, full(a, a.tokensOf(b).IDToken).Encode())
			same(t, "where it leads", p.out, a.loggedOut+"?state=a+b%26c")
			loggedOut(t, a, b)
		})
		module("-no-state", with("state", ""), func(t *testing.T, a *oidcApp, b *agent, p shown) {
			same(t, "where it leads", p.out, a.loggedOut)
			loggedOut(t, a, b)
		})
		inside := func(t *testing.T, a *oidcApp, b *agent, p shown) { // logged out, and led nowhere
			t.Helper()
			page(t, a, b, p)
			same(t, "questions", b.asked, 0)
		}
		module("-bad-post-logout-redirect-uri", with("post_logout_redirect_uri", "https://first.example.com/other"), inside)
		module("-query-added-to-post-logout-redirect-uri", with("post_logout_redirect_uri", app.loggedOut+"?x=y"), inside)
		module("-modified-id-token-hint", func(a *oidcApp, hint string) url.Values {
			return full(a, encode(object{"alg": "none", "typ": "JWT"})+"."+strings.Split(hint, ".")[1]+".")
		}, stays)
		module("-bad-id-token-hint", func(a *oidcApp, hint string) url.Values {
			parts := strings.Split(hint, ".")
			return full(a, parts[0]+"."+parts[1]+"."+base64.RawURLEncoding.EncodeToString(make([]byte, 256)))
		}, stays)
		module("-no-id-token-hint", with("id_token_hint", ""), stays)
		module("-no-params", func(*oidcApp, string) url.Values { return nil }, page)
		module("-no-post-logout-redirect-uri", with("post_logout_redirect_uri", ""), page)
		module("-only-state", func(*oidcApp, string) url.Values { return url.Values{"state": {"x"}} }, page)
	}, limitsOff)
}

func TestOpenIDBackchannelLogout(t *testing.T) {
	modules(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		type received struct {
			method, contentType, path string
			tls                       uint16
			form                      url.Values
		}
		came := make(chan received, 10)
		listener := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			form, formErr := url.ParseQuery(string(body))
			if err != nil || formErr != nil {
				t.Errorf("the app reads %q: %v", body, errors.Join(err, formErr))
			}
			came <- received{r.Method, r.Header.Get("Content-Type"), r.URL.Path, r.TLS.Version, form}
			w.WriteHeader(http.StatusOK)
		}))
		t.Cleanup(listener.Close)
		app := s.app(t, "first", func(a *store.App) { a.BackchannelURL = listener.URL + "/logouts" })
		t.Run("oidcc-backchannel-logout-discovery-endpoint-verification", func(t *testing.T) {
			var meta object
			s.ok(json.Unmarshal(s.raw(publicURL+"/.well-known/openid-configuration", nil, nil).Body, &meta))
			same[any](t, "backchannel_logout_supported", meta["backchannel_logout_supported"], true)
			same[any](t, "backchannel_logout_session_supported", meta["backchannel_logout_session_supported"], true)
		})
		t.Run("oidcc-backchannel-rp-initiated-logout", func(t *testing.T) {
			a, b := app.in(t), s.agent(t, "ann@example.org")
			got := a.tokensOf(b, "nonce", "n")
			id := a.idToken(got)
			p := b.open(a.meta.EndSessionEndpoint + "?" + url.Values{"id_token_hint": {got.IDToken}, "post_logout_redirect_uri": {a.loggedOut}, "state": {"s"}}.Encode())
			same(t, "where it leads", p.out, a.loggedOut+"?state=s")
			s.ok((&auth.LogoutSender{Rules: s.rules, Keep: time.Hour, Transport: listener.Client().Transport}).Send(t.Context()))
			r := <-came
			same(t, "the method", r.method, http.MethodPost)
			same(t, "the path", r.path, "/logouts")
			same(t, "the content type", r.contentType, urlencoded)
			if r.tls < tls.VersionTLS12 {
				t.Errorf("TLS is %x", r.tls)
			}
			if len(r.form) != 1 || len(r.form["logout_token"]) != 1 {
				t.Errorf("the form has %v", r.form)
			}
			jws, err := jose.ParseSignedCompact(r.form.Get("logout_token"), []jose.SignatureAlgorithm{jose.RS256})
			s.ok(err)
			same[any](t, "typ", jws.Signatures[0].Header.ExtraHeaders[jose.HeaderType], "logout+jwt")
			claims := a.verified(r.form.Get("logout_token"))
			same(t, "events", fmt.Sprint(claims["events"]), "map[http://schemas.openid.net/event/backchannel-logout:map[]]")
			for _, name := range []string{"sub", "sid"} {
				same(t, name, claims[name], id[name])
			}
			if jti, _ := claims["jti"].(string); jti == "" || claims["nonce"] != nil {
				t.Errorf("the claims are %v", claims)
			}
			if len(came) > 0 {
				t.Errorf("%d more came", len(came))
			}
		})
	})
}
