package main

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"kwai/internal/auth"
	"kwai/internal/password"
	"kwai/internal/testing/storetest"
)

// Each setting of the rules is that of one flag.
func TestRulesFollowTheSettings(t *testing.T) {
	t.Parallel()
	want := auth.Settings{
		Audience:  "club",
		AccessTTL: time.Minute, RefreshIdle: 2 * time.Minute, SessionLife: 3 * time.Minute, ReuseWindow: 4 * time.Second,
		RecoveryLife: 5 * time.Minute, InvitationLife: 6 * time.Minute,
		Limits: auth.Limits{
			Off: true, Free: 7, FirstWait: 8 * time.Second, LongestWait: 9 * time.Second, Most: 10, Remember: 11 * time.Hour,
			NetworkBurst: 12, NetworkHour: 13, MailPause: 14 * time.Second, MailHour: 15,
		},
		AuditKeep: 100 * time.Hour, LoginNotices: false,
	}
	wantKeys := auth.KeySettings{Rotation: 16 * time.Hour, JWKSMaxAge: 17 * time.Second, Lifetimes: want.KeyLifetimes()}
	var k cli
	parser, err := kong.New(&k, helpVars())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"version"}, strings.Fields(`--audience=club
		--access-life=1m --refresh-idle=2m --session-life=3m --reuse-window=4s --recovery-life=5m --invitation-life=6m
		--limits=off --limit-free=7 --limit-first-wait=8s --limit-longest-wait=9s --limit-most=10 --limit-remember=11h
		--limit-network=12 --limit-network-hour=13 --limit-mail-pause=14s --limit-mail-hour=15
		--trail-keep=100h --login-notices=off --key-rotation=16h --jwks-max-age=17s`)...)); err != nil {
		t.Fatal(err)
	}
	if err := k.finish(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, k.rules()); diff != "" {
		t.Errorf("the rules (+) are not what the flags say (-):\n%s", diff)
	}
	if diff := cmp.Diff(wantKeys, k.keyRules()); diff != "" {
		t.Errorf("the keys' rules (+) are not what the flags say (-):\n%s", diff)
	}
	// The test knows them all.
	for _, s := range []reflect.Value{reflect.ValueOf(want), reflect.ValueOf(want.Limits), reflect.ValueOf(wantKeys)} {
		for field, value := range s.Fields() {
			if value.IsZero() && field.Name != "Issuer" && field.Name != "LoginNotices" {
				t.Errorf("no flag for %s is tried", field.Name)
			}
		}
	}
}

// The defaults of the flags are those of the packages that the settings go to.
func TestDefaultsAreThoseOfThePackages(t *testing.T) {
	t.Parallel()
	var k cli
	parser, err := kong.New(&k, helpVars())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"version"}); err != nil {
		t.Fatal(err)
	}
	keys := auth.KeyDefaults
	keys.Lifetimes = auth.Defaults.KeyLifetimes()
	for _, diff := range []string{cmp.Diff(auth.Defaults, k.rules()), cmp.Diff(keys, k.keyRules()), cmp.Diff(password.Default, k.hashing())} {
		if diff != "" {
			t.Errorf("the flags' defaults (+) are not the package's (-):\n%s", diff)
		}
	}
}

// What package web's tests set by themselves follows the settings in a server.
func TestSettingsReachTheSite(t *testing.T) {
	t.Parallel()
	const club = "https://club.example.org"
	s := start(t, storetest.SQLite(t), "--public-url="+publicURL, "--cors-origins="+club+"/, https://Bücher.example:443,capacitor://localhost", "--trusted-proxies=127.0.0.1",
		"--limit-free=1", "--limit-first-wait=1h", "--access-life=10m", "--self-delete=off")
	id := s.user("ann@example.org", good)
	send := func(method, path, form string, headers http.Header) answer {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = headers
		if form != "" {
			r.Header.Set("Content-Type", urlencoded)
		}
		return s.do(r)
	}
	for origin, want := range map[string]string{
		club: club, "https://xn--bcher-kva.example": "https://xn--bcher-kva.example", "capacitor://localhost": "capacitor://localhost", "https://evil.example": "", publicURL: "",
	} {
		if got := send("GET", "/openapi.yaml", "", http.Header{"Origin": {origin}}).Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("Access-Control-Allow-Origin for %s is %q, want %q", origin, got, want)
		}
	}
	for origin, want := range map[string]int{publicURL: 303, club: 403} { // though the Host is another one
		if a := send("POST", "/recover", "email=nobody%40example.org", http.Header{"Origin": {origin}}); a.Status != want {
			t.Errorf("the form from %s: %d, want %d", origin, a.Status, want)
		}
	}
	if a := send("GET", "/account/delete", "", http.Header{}); a.Status != 404 {
		t.Errorf("with --self-delete=off its page: %d", a.Status)
	}
	in := s.login("ann@example.org")
	if got := in.field("expires_in"); got != "600" {
		t.Errorf("expires_in is %s, want 600", got)
	}
	_, claims := partsOf(t, in.field("access_token"))
	for name, want := range map[string]string{"iss": publicURL, "sub": id, "aud": "kwai"} {
		if claims[name] != want {
			t.Errorf("the claim %s is %v, want %s", name, claims[name], want)
		}
	}
	wrong := encodeURL("username", "ann@example.org", "password", "wrong")
	s.log.forget()
	for _, want := range []int{401, 429} {
		a := send("POST", "/api/v1/auth/login", wrong, http.Header{"X-Forwarded-For": {"203.0.113.9"}, "Forwarded": {"for=198.51.100.1"}})
		a.problem(t, want)
	}
	s.log.wait(t, 2, `"route":"/api/v1/auth/login"`)
	if n := strings.Count(s.log.String(), `"client":"203.0.113.9"`); n != 2 {
		t.Errorf("%d of 2 requests are of the client that the proxy names:\n%s", n, s.log)
	}
}
