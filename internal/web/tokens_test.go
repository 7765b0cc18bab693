package web_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"kwai/internal/token"
	"kwai/verify"
)

func decode(tb testing.TB, part string) []byte {
	tb.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// object is a part of a token.
type object = map[string]any

// partsOf are an access token's header and claims, unchecked.
func partsOf(tb testing.TB, access string) (header, claims object) {
	tb.Helper()
	parts := strings.Split(access, ".")
	if len(parts) != 3 {
		tb.Fatalf("not a JWT: %s", access)
	}
	if json.Unmarshal(decode(tb, parts[0]), &header) != nil || json.Unmarshal(decode(tb, parts[1]), &claims) != nil {
		tb.Fatalf("not a JWT: %s", access)
	}
	return header, claims
}

// signES256 signs what it is given.
func signES256(key *ecdsa.PrivateKey, header, claims string) string {
	text := header + "." + claims
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		panic(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func signHS256(secret []byte, header, claims string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(header + "." + claims))
	return header + "." + claims + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// signingKey is the site's own, as a thief of both the database and the master
// key has it: what it signs is wrong in nothing but what a test makes so.
func (s *site) signingKey() *ecdsa.PrivateKey {
	s.tb.Helper()
	keys, err := s.rules.Store.Read(s.tb.Context()).Keys()
	s.ok(err)
	for _, k := range keys {
		if k.Purpose == string(token.Sign) {
			plain, err := s.master.Open(k.Sealed, "kwai server key/sign/"+k.ID)
			s.ok(err)
			key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), plain)
			s.ok(err)
			return key
		}
	}
	s.tb.Fatal("no signing key")
	return nil
}

// notLoggedIn holds an answer against the one that each wrong access token gets.
func (a answer) notLoggedIn(tb testing.TB, why string) {
	tb.Helper()
	same(tb, why+": the detail", a.problem(tb, 401), "You are not logged in.")
	if got := a.Header.Values("WWW-Authenticate"); !slices.Equal(got, []string{"Bearer"}) {
		tb.Errorf("%s: WWW-Authenticate is %q", why, got)
	}
}

func TestForgedAccessTokens(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		in, other, ended := s.login("ann@example.org"), s.login("bob@example.org"), s.login("ann@example.org")
		access := in.field("access_token")
		if a := s.post("logout", access, "refresh_token", ended.field("refresh_token")); a.Status != 200 {
			t.Fatal(a)
		}
		header, claims := partsOf(t, access)
		_, others := partsOf(t, other.field("access_token"))
		_, dead := partsOf(t, ended.field("access_token"))
		key := s.signingKey()
		foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		with := func(o object, name string, value any) string {
			o = maps.Clone(o)
			if o[name] = value; value == nil {
				delete(o, name)
			}
			return encode(o)
		}
		h, c := encode(header), encode(claims)
		now := s.clock.now().Unix()
		public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
		hs := with(header, "alg", "HS256")
		own := jose.JSONWebKey{Key: &foreign.PublicKey, KeyID: header["kid"].(string)}
		parts := strings.Split(access, ".")
		signature := parts[2]

		if a := s.get(userPath, signES256(key, h, c)); a.Status != 200 {
			t.Fatalf("an honest token signed by this test: %v: the others would prove nothing", a)
		}
		forgeries := map[string]string{
			"another's signature":              parts[0] + "." + parts[1] + "." + strings.Split(other.field("access_token"), ".")[2],
			"another's claims":                 parts[0] + "." + strings.Split(other.field("access_token"), ".")[1] + "." + signature,
			"no signature":                     h + "." + c + ".",
			"two parts":                        h + "." + c,
			"four parts":                       access + ".x",
			"five parts, as in a JWE":          access + ".x.x",
			"padding":                          access + "=",
			"another spelling":                 parts[0] + "." + parts[1] + "." + respelt(signature),
			"alg none":                         with(header, "alg", "none") + "." + c + ".",
			"alg None":                         with(header, "alg", "None") + "." + c + ".",
			"alg none, signed":                 signES256(key, with(header, "alg", "none"), c),
			"no alg":                           signES256(key, with(header, "alg", nil), c),
			"alg ES384":                        signES256(key, with(header, "alg", "ES384"), c),
			"HS256, the public key":            signHS256(public, hs, c),
			"HS256, the public PEM":            signHS256(asPEM, hs, c),
			"HS256, no key":                    signHS256(nil, hs, c),
			"a foreign key":                    signES256(foreign, h, c),
			"a foreign key, its own kid":       signES256(foreign, with(header, "kid", "foreign"), c),
			"a foreign key in jwk":             signES256(foreign, with(header, "jwk", own), c),
			"an unknown kid":                   signES256(key, with(header, "kid", "unknown"), c),
			"no kid":                           signES256(key, with(header, "kid", nil), c),
			"a kid that is a path":             signES256(key, with(header, "kid", "../../dev/null"), c),
			"a kid that is a number":           signES256(key, with(header, "kid", 1), c),
			"typ JWT":                          signES256(key, with(header, "typ", "JWT"), c),
			"no typ":                           signES256(key, with(header, "typ", nil), c),
			"jku":                              signES256(key, with(header, "jku", s.URL+keySetPath), c),
			"x5u":                              signES256(key, with(header, "x5u", s.URL), c),
			"crit":                             signES256(key, with(header, "crit", []string{"exp"}), c),
			"zip":                              signES256(key, with(header, "zip", "DEF"), c),
			"expired":                          signES256(key, h, with(claims, "exp", now)),
			"expired long ago":                 signES256(key, h, with(claims, "exp", 0)),
			"no end":                           signES256(key, h, with(claims, "exp", nil)),
			"an end that is text":              signES256(key, h, with(claims, "exp", "9999999999")),
			"an end out of range":              signES256(key, h, with(claims, "exp", 1<<62)),
			"from the future":                  signES256(key, h, with(claims, "iat", now+120)),
			"not valid yet":                    signES256(key, h, with(claims, "nbf", now+120)),
			"another issuer":                   signES256(key, h, with(claims, "iss", "https://evil.example")),
			"the issuer with a slash":          signES256(key, h, with(claims, "iss", claims["iss"].(string)+"/")),
			"another audience":                 signES256(key, h, with(claims, "aud", "other")),
			"a list of audiences":              signES256(key, h, with(claims, "aud", []string{"kwai"})),
			"another user":                     signES256(key, h, with(claims, "sub", others["sub"])),
			"another user's session":           signES256(key, h, with(claims, "sid", others["sid"])),
			"an unknown session":               signES256(key, h, with(claims, "sid", uuid.NewString())),
			"a session that is no UUID":        signES256(key, h, with(claims, "sid", "' OR 1=1 --")),
			"an ended session":                 signES256(key, h, with(claims, "sid", dead["sid"])),
			"a live session's token, it ended": ended.field("access_token"),
			"no session":                       signES256(key, h, with(claims, "sid", nil)),
			"no claims":                        signES256(key, h, encode(nil)),
			"claims that are a list":           signES256(key, h, encode([]object{claims})),
			"a member twice":                   signES256(key, h, base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x",`+string(decode(t, parts[1]))[1:]))),
			"a long one":                       signES256(key, h, with(claims, "other", strings.Repeat("x", 10<<10))),
			"10 KiB of nothing":                strings.Repeat("x", 10<<10),
			"many dots":                        strings.Repeat(".", 10<<10),
			"JSON":                             `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + signature + `"}`,
			"a refresh token":                  in.field("refresh_token"),
			"garbage":                          "garbage",
		}
		second := s.login("ann@example.org")
		old := maps.Clone(claims)
		old["exp"] = now
		for what, more := range map[string][2]string{"sub": {"sub", others["sub"].(string)}, "iss": {"iss", "https://evil.example"}, "aud": {"aud", "other"}, "sid": {"sid", ""}} {
			forgeries["old, with another "+what] = signES256(key, h, with(old, more[0], more[1]))
		}
		// At once, as tokens with unknown keys wait a second for the next look at
		// the keys, all for the same one.
		var asking sync.WaitGroup
		for what, forged := range forgeries {
			asking.Go(func() { s.get(userPath, forged).notLoggedIn(t, what) })
			refresh := in.field("refresh_token")
			if strings.HasPrefix(what, "expired") { // good for its own session's end, and for no other's
				refresh = second.field("refresh_token")
			}
			asking.Go(func() { s.post("logout", forged, "refresh_token", refresh).notLoggedIn(t, what) })
		}
		asking.Wait()
		if a := s.get(userPath, access); a.Status != 200 {
			t.Errorf("the true token afterwards: %v", a)
		}
	})
}

// respelt changes the bits at the end of base64url that mean nothing.
func respelt(text string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, text[len(text)-1])
	return text[:len(text)-1] + string(digits[last^1])
}

func TestBearer(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		access := s.login("ann@example.org").field("access_token")
		s = s.listen()
		ask := func(method, path, body string, headers ...string) answer {
			r := s.request(method, path, strings.NewReader(body))
			r.Header["Authorization"] = headers
			if body != "" {
				r.Header.Set("Content-Type", urlencoded)
			}
			return s.do(r)
		}
		for _, header := range []string{"Bearer " + access, "bearer " + access, "BEARER " + access, "Bearer   " + access} {
			if a := ask("GET", userPath, "", header); a.Status != 200 {
				t.Errorf("%.12q: %v", header, a)
			}
		}
		for _, headers := range [][]string{
			{}, {""}, {"Bearer"}, {"Bearer "}, {access}, {"Token " + access}, {"Basic " + access}, {"BearerX " + access}, {"Bearer:" + access},
			{"Bearer\t" + access}, {"Bearer," + access}, {"Bearer \"" + access + "\""}, {"Bearer " + access + " x"}, {"Bearer " + access + "," + access},
			{"Bearer token=" + access}, {"Bearer Bearer " + access}, {"Basic YW5uOng=", "Bearer " + access}, {"Bearer " + access, "Bearer " + access},
		} {
			ask("GET", userPath, "", headers...).notLoggedIn(t, strings.Join(headers, " and "))
		}
		// RFC 6750's other two ways, and a cookie.
		ask("GET", userPath+"?access_token="+access, "").notLoggedIn(t, "in the query")
		ask("POST", "/api/v1/auth/logout", encodeURL("access_token", access, "refresh_token", "x")).notLoggedIn(t, "in the body")
		r := s.request("GET", userPath, nil)
		r.Header.Set("Cookie", "access_token="+access)
		s.do(r).notLoggedIn(t, "in a cookie")
	})
}

// TestKeySet: who has only the public URL can check the tokens.
func TestKeySet(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		id := s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		a := s.get(keySetPath, "")
		var keys jose.JSONWebKeySet
		if err := json.Unmarshal(a.Body, &keys); err != nil || a.Status != 200 {
			t.Fatal(a, err)
		}
		var raw struct{ Keys []object }
		if err := json.Unmarshal(a.Body, &raw); err != nil {
			t.Fatal(err)
		}
		for _, k := range raw.Keys {
			if got := slices.Sorted(maps.Keys(k)); !slices.Equal(got, []string{"alg", "crv", "kid", "kty", "use", "x", "y"}) {
				t.Errorf("a key has the members %q", got)
			}
		}
		// Who reaches it by another address than its tokens name.
		for issuer, fine := range map[string]bool{publicURL: true, s.URL: false} {
			v := verify.Verifier{Issuer: issuer, Server: s.URL, PlainHTTP: true, Transport: s.via, Audience: "kwai", Now: s.clock.now, Log: slog.New(slog.DiscardHandler)}
			_, refused := v.Verify(in.field("access_token"))
			if ready := v.Ready(t.Context()); (ready == nil) != fine || (refused == nil) != fine {
				t.Errorf("for the issuer %s: Ready says %v, Verify %v", issuer, ready, refused)
			}
		}
		v := verify.Verifier{Issuer: publicURL, Audience: "kwai", Keys: keys, Now: s.clock.now}
		claims, err := v.Verify(in.field("access_token"))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "the subject", claims.Subject, id)
		same(t, "the client", claims.ClientID, "kwai")
		same(t, "expiration", in.field("expiration"), claims.ExpiresAt.UTC().Format("2006-01-02 15:04:05"))
		same(t, "expires_in", in.field("expires_in"), "3600")
		same(t, "the token's life", claims.ExpiresAt.Sub(claims.IssuedAt), time.Hour)
		s.clock.advance(time.Minute)
		next := s.post("access_token", "", "refresh_token", in.field("refresh_token"))
		renewed, err := v.Verify(next.field("access_token"))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "a renewed token's session", renewed.SessionID, claims.SessionID)
		same(t, "that its id is the same", renewed.ID == claims.ID, false)
		same(t, "that its auth_time is the same", renewed.AuthTime.Equal(claims.AuthTime), true)
		if again := s.login("ann@example.org"); partSid(t, again) == claims.SessionID {
			t.Error("two logins share a session")
		}
	})
}

func partSid(tb testing.TB, in answer) string {
	tb.Helper()
	_, claims := partsOf(tb, in.field("access_token"))
	return claims["sid"].(string)
}
