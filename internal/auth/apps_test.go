package auth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/token"
)

// verifier is what the tests' apps prove by PKCE.
var verifier = strings.Repeat("verifier~", 5)

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// idKey is an RSA key for all tests: each takes a tenth of a second to make.
var idKey = sync.OnceValue(func() []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return x509.MarshalPKCS1PrivateKey(key)
})

// forApps gives a server the keys of apps.
func (s *server) forApps(t *testing.T) *server {
	t.Helper()
	const id = "keyOfIDTokensInTests00"
	sealed := must(s.master.Seal(idKey(), "kwai server key/id/"+id))(t)
	ok(t, s.Store.Statement(t.Context(), func(tx *store.Tx) error {
		return tx.InsertKey(store.Key{ID: id, Purpose: string(token.ID), Sealed: sealed, CreatedAt: tx.Now, ActiveAt: tx.Now})
	}))
	ok(t, s.ReadKeys(t.Context()))
	must(s.Keys.RotateDue(t.Context()))(t)
	ok(t, s.ReadKeys(t.Context()))
	return s
}

// eachForApps is each, with the keys of apps.
func eachForApps(t *testing.T, f func(t *testing.T, s *server, c *clock)) {
	t.Helper()
	each(t, func(t *testing.T, s *server, c *clock) { f(t, s.forApps(t), c) })
}

// app makes an app of that id, which hears of logouts, and returns its secret.
func (s *server) app(t *testing.T, id string, change ...func(*store.App)) (store.App, string) {
	t.Helper()
	a := store.App{ID: id, Name: "The " + id, RedirectURIs: []string{"https://" + id + ".example.org/callback"}, BackchannelURL: "https://" + id + ".example.org/logout"}
	for _, c := range change {
		c(&a)
	}
	made, secret, err := s.CreateApp(t.Context(), a, false, "")
	ok(t, err)
	return made, secret
}

// asks is an app's request for a code, with these scopes beside openid.
func (s *server) asks(a store.App, scopes ...string) auth.AuthRequest {
	return auth.AuthRequest{
		App: a, RedirectURI: a.RedirectURIs[0], Scopes: append([]string{"openid"}, scopes...),
		Challenge: challenge(verifier), MaxAge: -1, Begun: s.Store.Now(),
	}
}

// code is one that an app gets for a visitor, who agrees if that must be.
func (s *server) code(t *testing.T, v auth.Visitor, a store.App, scopes ...string) string {
	t.Helper()
	code, needs, err := s.Authorize(t.Context(), auth.Client{}, v, s.asks(a, scopes...), a.Consent)
	ok(t, err)
	if needs != auth.Nothing {
		t.Fatalf("a code needs %v", needs)
	}
	return code
}

func (s *server) tryExchange(t *testing.T, a store.App, code string) (auth.AppTokens, error) {
	t.Helper()
	return s.Exchange(t.Context(), auth.Client{}, a, code, a.RedirectURIs[0], verifier)
}

func (s *server) exchange(t *testing.T, a store.App, code string) auth.AppTokens {
	t.Helper()
	return must(s.tryExchange(t, a, code))(t)
}

func (s *server) tryRenewApp(t *testing.T, a store.App, tokens auth.AppTokens) (auth.AppTokens, error) {
	t.Helper()
	return s.RenewApp(t.Context(), auth.Client{}, a, tokens.Refresh, s.Store.Now())
}

func (s *server) renewApp(t *testing.T, a store.App, tokens auth.AppTokens) auth.AppTokens {
	t.Helper()
	return must(s.tryRenewApp(t, a, tokens))(t)
}

// appDead holds that an app's tokens open nothing.
func (s *server) appDead(t *testing.T, a store.App, all ...auth.AppTokens) {
	t.Helper()
	for _, tokens := range all {
		_, err := s.UserInfo(t.Context(), tokens.Access)
		wantErr(t, "userinfo of an ended session", err, auth.ErrNotLoggedIn)
		_, err = s.tryRenewApp(t, a, tokens)
		wantErr(t, "a refresh of an ended session", err, auth.ErrGrant)
	}
}

// appAlive holds that an app's tokens are those of a session that goes on.
func (s *server) appAlive(t *testing.T, a store.App, all ...auth.AppTokens) {
	t.Helper()
	for _, tokens := range all {
		must(s.UserInfo(t.Context(), s.renewApp(t, a, tokens).Access))(t)
	}
}

// toHear are the logouts that apps are still to hear of, as "app sid".
func (s *server) toHear(t *testing.T) (all []string) {
	t.Helper()
	for l, err := range s.Logouts(t.Context()) {
		ok(t, err)
		all = append(all, l.AppID+" "+l.SID)
	}
	return all
}

// idClaims reads a token for an app by the published keys.
func (s *server) idClaims(t *testing.T, kind, text string) (claims map[string]any) {
	t.Helper()
	parsed := must(jose.ParseSigned(text, []jose.SignatureAlgorithm{jose.RS256}))(t)
	same(t, "typ", parsed.Signatures[0].Header.ExtraHeaders["typ"], any(kind))
	keys := s.Keys.JWKS(t.Context())
	found := keys.Key(parsed.Signatures[0].Header.KeyID)
	if len(found) != 1 {
		t.Fatalf("%d keys of the id %q are published", len(found), parsed.Signatures[0].Header.KeyID)
	}
	ok(t, json.Unmarshal(must(parsed.Verify(found[0]))(t), &claims))
	return claims
}

func keysOf(claims map[string]any) []string { return slices.Sorted(maps.Keys(claims)) }

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}
