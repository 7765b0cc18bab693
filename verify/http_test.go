package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/testing/need"
	"kwai/verify"
)

// through sends a request with these Authorization headers through h.
func through(t testing.TB, h http.Handler, authorization ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// whoami answers with the user.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprint(w, verify.FromContext(r.Context()).Subject)
})

// refused holds an answer against RFC 9457 and what every refusal has.
func refused(t testing.TB, w *httptest.ResponseRecorder, status int, header map[string]string) {
	t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	if w.Code != status {
		t.Errorf("got %d %s, want %d", w.Code, w.Body, status)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Errorf("%s is no problem: %v", w.Body, err)
	}
	if p.Type != "about:blank" || p.Status != status || p.Title != http.StatusText(status) {
		t.Errorf("the problem is of type %q, status %d and title %q, want that of %d", p.Type, p.Status, p.Title, status)
	}
	if p.Detail == "" {
		t.Errorf("the problem %s has no detail", w.Body)
	}
	want := http.Header{
		"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
	}
	for name, value := range header {
		want.Set(name, value)
	}
	if fmt.Sprint(w.Header()) != fmt.Sprint(want) {
		t.Errorf("the headers are %v, want %v", w.Header(), want)
	}
}

func TestProtectTakesOneBearerToken(t *testing.T) {
	t.Parallel()
	v := load(t)
	good := v.good(t)
	h := v.verifier().Protect(whoami)
	const none, bad = "Bearer", `Bearer error="invalid_token"`
	for name, test := range map[string]struct {
		authorization []string
		challenge     string // "" for none: it is let through
	}{
		"good":                {[]string{"Bearer " + good}, ""},
		"another case":        {[]string{"bEARER " + good}, ""},
		"two spaces":          {[]string{"Bearer  " + good}, ""},
		"no header":           {nil, none},
		"an empty one":        {[]string{""}, none},
		"another scheme":      {[]string{"Basic " + good}, none},
		"no scheme":           {[]string{good}, none},
		"no token":            {[]string{"Bearer"}, none},
		"an empty token":      {[]string{"Bearer "}, none},
		"twice":               {[]string{"Bearer " + good, "Bearer " + good}, none},
		"with another before": {[]string{"Basic YTpi", "Bearer " + good}, none},
		"with another behind": {[]string{"Bearer " + good + ", Basic YTpi"}, bad},
		"twice in one":        {[]string{"Bearer " + good + " " + good}, bad},
		"a tab":               {[]string{"Bearer\t" + good}, none},
		"space behind":        {[]string{"Bearer " + good + " "}, bad},
		"forged":              {[]string{"Bearer " + good[:len(good)-8] + "AAAAAAAA"}, bad},
		"too long":            {[]string{"Bearer " + strings.Repeat("A", verify.MaxSize+1)}, bad},
	} {
		w := through(t, h, test.authorization...)
		if test.challenge == "" {
			if w.Code != http.StatusOK || w.Body.String() != user {
				t.Errorf("%s: got %d %s, want the user", name, w.Code, w.Body)
			}
			continue
		}
		t.Run(name, func(t *testing.T) {
			refused(t, w, http.StatusUnauthorized, map[string]string{"WWW-Authenticate": test.challenge})
		})
	}
}

func TestProtectDoesNotTakeATokenFromElsewhere(t *testing.T) {
	t.Parallel()
	v := load(t)
	good := v.good(t)
	r := httptest.NewRequest(http.MethodPost, "/?access_token="+good, strings.NewReader(url.Values{"access_token": {good}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: "access_token", Value: good})
	w := httptest.NewRecorder()
	v.verifier().Protect(whoami).ServeHTTP(w, r)
	refused(t, w, http.StatusUnauthorized, map[string]string{"WWW-Authenticate": "Bearer"})
}

// TestRefusalsAreAlike for all bad tokens.
func TestRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	v := load(t)
	h := v.verifier().Protect(whoami)
	answers := map[string]string{}
	for _, test := range v.Tokens {
		w := through(t, h, "Bearer "+test.Token)
		switch {
		case test.Token == "": // which is no token
		case test.Want == "valid":
			if w.Code != http.StatusOK {
				t.Errorf("%s: got %d %s", test.Name, w.Code, w.Body)
			}
		default:
			answers[fmt.Sprint(w.Code, w.Header(), w.Body)] = test.Name
		}
	}
	if len(answers) != 1 {
		t.Errorf("bad tokens get different answers: %v", maps.Collect(maps.All(answers)))
	}
}

func TestProtectAnswers503WhereKeysCannotBeHad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, status(http.StatusInternalServerError))
		h := s.verifier().Protect(whoami)
		refused(t, through(t, h, "Bearer "+k.token(t)), http.StatusServiceUnavailable, map[string]string{"Retry-After": "2"})
		s.set(publish(k))
		time.Sleep(2 * time.Second) // as it says
		if w := through(t, h, "Bearer "+k.token(t)); w.Code != http.StatusOK || w.Body.String() != user {
			t.Errorf("then got %d %s, want the user", w.Code, w.Body)
		}
	})
}

func TestNobodyIsInTheContextOfARequestThatIsNotProtected(t *testing.T) {
	t.Parallel()
	if claims := verify.FromContext(t.Context()); claims != nil {
		t.Errorf("got %v", claims)
	}
}

func TestIssuersThatMayBeAsked(t *testing.T) {
	t.Parallel()
	k := newKey("a")
	const refusing = "it is not asked"
	for base, want := range map[string]string{
		"https://auth.example.org":         "/.well-known/jwks.json",
		"https://auth.example.org/":        "/.well-known/jwks.json",
		"https://example.org/a/login":      "/a/login/.well-known/jwks.json",
		"https://example.org/a%2Fb":        "/a%2Fb/.well-known/jwks.json",
		"http://127.0.0.1:8080":            "/.well-known/jwks.json",
		"http://127.8.7.6":                 "/.well-known/jwks.json",
		"http://[::1]:8080":                "/.well-known/jwks.json",
		"http://localhost:8080":            "/.well-known/jwks.json",
		"http://auth.example.org":          refusing,
		"http://10.0.0.1":                  refusing,
		"http://0.0.0.0":                   refusing,
		"http://localhost.example.org":     refusing,
		"http://127.0.0.1.example.org":     refusing,
		"https://user@auth.example.org":    refusing,
		"https://auth.example.org?a=b":     refusing,
		"https://auth.example.org?":        refusing,
		"https://auth.example.org#a":       refusing,
		"https://":                         refusing,
		"https://:8080":                    refusing,
		"auth.example.org":                 refusing,
		"ftp://auth.example.org":           refusing,
		"file:///etc/jwks.json":            refusing,
		"https://auth.example.org/\x7f":    refusing,
		"https://auth.example.org:notport": refusing,
	} {
		synctest.Test(t, func(t *testing.T) {
			asked := refusing
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.EscapedPath()
				r.URL.Path = "/.well-known/jwks.json"
				publish(k)(w, r)
			})
			v := s.verifier()
			v.Issuer = base
			_, err := v.Verify(k.tokenOf(t, base))
			ready := v.Ready(t.Context())
			synctest.Wait()
			if asked != want {
				t.Errorf("%q: asked %s, want %s", base, asked, want)
			}
			if ok := want != refusing; ok != (err == nil) || ok != (ready == nil) {
				t.Errorf("%q: Verify says %v, Ready says %v", base, err, ready)
			}
		})
	}
}

// Where a server is reached by another address than its tokens name, Server says so.
func TestAServerAtAnotherAddress(t *testing.T) {
	t.Parallel()
	k := newKey("a")
	for _, tt := range []struct {
		name, issuer, server string
		plain                bool
		asked                string // "": nobody
	}{
		{"at the issuer's", issuer, "", false, "auth.example.org/.well-known/jwks.json"},
		{"inside a cluster", issuer, "http://kwai.auth.svc:8080", true, "kwai.auth.svc:8080/.well-known/jwks.json"},
		{"in a folder", issuer, "https://proxy.internal/auth/", false, "proxy.internal/auth/.well-known/jwks.json"},
		{"on loopback", issuer, "http://127.0.0.1:8080", false, "127.0.0.1:8080/.well-known/jwks.json"},
		{"an issuer that is no URL that may be asked", "http://auth.example.org", "https://kwai.internal", false, "kwai.internal/.well-known/jwks.json"},
		{"plain, which isn't allowed", issuer, "http://kwai.auth.svc:8080", false, ""},
		{"no URL", issuer, "kwai.auth.svc:8080", true, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			asked := ""
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				asked = r.Host + r.URL.Path
				r.URL.Path = "/.well-known/jwks.json"
				publishAs(tt.issuer, k)(w, r)
			})
			v := s.verifier()
			v.Issuer, v.Server, v.PlainHTTP = tt.issuer, tt.server, tt.plain
			_, err := v.Verify(k.tokenOf(t, tt.issuer))
			ready := v.Ready(t.Context())
			if asked != tt.asked || (err == nil) != (tt.asked != "") || (ready == nil) != (err == nil) {
				t.Errorf("%s: asked %q, want %q; Verify says %v, Ready says %v", tt.name, asked, tt.asked, err, ready)
			}
		})
	}
}

// Ready isn't nil where the server signs for another issuer, and is again once that
// is put right at the server.
func TestReadyRefusesAnotherIssuer(t *testing.T) {
	t.Parallel()
	k := newKey("a")
	for _, configured := range []string{"http://127.0.0.1:8080", issuer + "/", "https://AUTH.example.org"} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, publishAs(issuer, k))
			var log bytes.Buffer
			v := s.verifier()
			v.Issuer, v.Server, v.Log = configured, "https://kwai.internal", slog.New(slog.NewTextHandler(&log, nil))
			for range 3 {
				if _, err := v.Verify(k.token(t)); !errors.Is(err, verify.ErrInvalid) {
					t.Fatalf("%s: Verify says %v", configured, err)
				}
				err := v.Ready(t.Context())
				if !errors.Is(err, verify.ErrUnavailable) || !strings.Contains(err.Error(), issuer) || !strings.Contains(err.Error(), "Server") {
					t.Fatalf("%s: Ready says %v", configured, err)
				}
				time.Sleep(time.Minute)
			}
			if n := strings.Count(log.String(), "access tokens are refused"); n != 1 {
				t.Errorf("%s: it is logged %d times", configured, n)
			}
			s.set(publishAs(configured, k))
			if err := v.Ready(t.Context()); err != nil {
				t.Errorf("%s: once it is put right, Ready says %v", configured, err)
			}
			if _, err := v.Verify(k.tokenOf(t, configured)); err != nil {
				t.Errorf("%s: once it is put right, Verify says %v", configured, err)
			}
		})
	}
}

func TestPlainHTTPWhereItIsAllowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		v := newServer(t, publish(k)).verifier()
		v.Issuer, v.PlainHTTP = "http://auth.internal", true
		if _, err := v.Verify(k.tokenOf(t, v.Issuer)); err != nil {
			t.Error(err)
		}
	})
}

// An issuer as it is displayed, not as tokens have it, is refused at the start.
func TestReadyRefusesAnIssuerThatIsNotInPunycode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		v := newServer(t, publishAs("https://xn--bcher-kva.example", k)).verifier()
		v.Issuer = "https://bücher.example"
		if err := v.Ready(t.Context()); !errors.Is(err, verify.ErrInvalid) || !strings.Contains(err.Error(), "in punycode (xn--…)") {
			t.Errorf("Ready says %v", err)
		}
		if _, err := v.Verify(k.tokenOf(t, "https://xn--bcher-kva.example")); !errors.Is(err, verify.ErrInvalid) {
			t.Errorf("Verify says %v", err)
		}
	})
}

// TestOverTLS, with a server on a real socket.
func TestOverTLS(t *testing.T) {
	t.Parallel()
	k := newKey("a")
	s := httptest.NewTLSServer(publish(k))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	for name, test := range map[string]struct {
		transport http.RoundTripper
		want      int
	}{
		"a certificate that is trusted": {s.Client().Transport, http.StatusOK},
		"one that is not":               {nil, http.StatusServiceUnavailable},
	} {
		v := &verify.Verifier{Issuer: s.URL, Audience: "kwai", Transport: test.transport, Log: slog.New(slog.DiscardHandler)}
		if w := through(t, v.Protect(whoami), "Bearer "+k.tokenOf(t, s.URL)); w.Code != test.want {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, test.want)
		}
	}
}

// TestHugeHeaders, with the transport that is used unless there is another.
func TestHugeHeaders(t *testing.T) {
	t.Parallel()
	k := newKey("a")
	size := 1 << 10
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Filler", strings.Repeat("x", size))
		publish(k)(w, r)
	}))
	defer s.Close()
	for _, want := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		v := &verify.Verifier{Issuer: s.URL, Audience: "kwai", Log: slog.New(slog.DiscardHandler)}
		if w := through(t, v.Protect(whoami), "Bearer "+k.tokenOf(t, s.URL)); w.Code != want {
			t.Errorf("with headers of %d bytes: got %d %s, want %d", size, w.Code, w.Body, want)
		}
		size = 1 << 20
	}
}

// TestManyRequestsAtOnce is for the race detector: keys come and go under load.
func TestManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := []key{newKey("0"), newKey("1"), newKey("2")}
		s := newServer(t, publish(keys...))
		h := s.verifier().Protect(whoami)
		rounds := need.Rounds(50, 200)
		pause := 2000 * time.Second / time.Duration(rounds*rounds) // a quarter of an hour in all
		for i, k := range keys {
			token := "Bearer " + k.token(t)
			for range 8 {
				go func() {
					for n := range rounds {
						if w := through(t, h, token); w.Code != http.StatusOK {
							t.Errorf("key %d: got %d %s", i, w.Code, w.Body)
						}
						time.Sleep(time.Duration(n) * pause)
					}
				}()
			}
		}
		time.Sleep(time.Hour)
	})
}
