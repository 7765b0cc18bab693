package test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// TestOAuth2Proxy puts oauth2-proxy in front of a program that knows no login.
func TestOAuth2Proxy(t *testing.T) {
	t.Parallel()
	need.Time(t)
	program := goInstall(t, "github.com/oauth2-proxy/oauth2-proxy/v7@v7.15.6")
	browser := startBrowser(t)
	s := provider(t, install(t, ""))
	s.mustCommand("", "group", "create", "judo")
	s.mustCommand("", "group", "add", "judo", "ann@example.org")

	behind := serveApp(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told, err := json.Marshal(map[string]string{
			"user": r.Header.Get("X-Forwarded-User"), "email": r.Header.Get("X-Forwarded-Email"), "groups": r.Header.Get("X-Forwarded-Groups"),
			"name": r.Header.Get("X-Forwarded-Preferred-Username"), "token": r.Header.Get("X-Forwarded-Access-Token"),
		})
		if err != nil {
			t.Error(err)
		}
		htmlPage(w, string(told)) // with an icon: the proxy would take a look for one for a login
	}))
	name, address := freePort(t)
	home := "http://" + name
	app := s.app("A guarded app", "--redirect-uri="+home+"/oauth2/callback", "--groups=judo")
	settings := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(settings, []byte(s.appSettings(t, "toml", home, behind, app)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, cluster.Command{
		Program: program, Address: address, Ready: "/ping",
		Args: []string{"--config=" + settings, "--http-address=" + address, "--cookie-secure=false", "--cookie-refresh=1s", "--pass-access-token"},
	})

	b := openTab(t, browser, s.URL)
	b.open(200, home+"/some/page")
	b.logIn("ann@example.org")
	b.at(home + "/some/page")
	first := b.json()
	token := first["token"]
	subject := s.get(userPath, s.login("ann@example.org").field("access_token")).field("id")
	for name, want := range map[string]string{"user": subject, "email": "ann@example.org", "name": "ann@example.org", "groups": "judo"} {
		if first[name] != want {
			t.Errorf("the app is told %s %q, want %q", name, first[name], want)
		}
	}
	for token == b.json()["token"] { // until it renews
		b.open(200, home+"/some/page")
	}
	token = b.json()["token"]
	if a := s.get("/oauth2/userinfo", token); a.field("email") != "ann@example.org" {
		t.Errorf("userinfo by a renewed token: %v", a)
	}

	// A logout there ends what the app had, and leaves the browser's session at kwai.
	b.open(200, home+"/oauth2/sign_out?rd="+url.QueryEscape(home+"/ping"))
	for s.get("/oauth2/userinfo", token).Status == http.StatusOK {
		continue // it doesn't wait for kwai's answer
	}
	b.open(200, home+"/some/page")
	b.at(home + "/some/page") // without a login

	// One that leads on to kwai asks there.
	b.open(200, home+"/oauth2/sign_out?rd="+url.QueryEscape(s.URL+"/oauth2/logout"))
	b.at(s.URL + "/logout")
	b.click(200, "button")
	b.open(200, home+"/some/page")
	b.logIn("ann@example.org")

	// After a logout at kwai it can't renew, and asks for a login.
	b.logOutAtKwai()
	for b.open(200, home+"/some/page"); strings.HasPrefix(eval[string](b, "location.href"), home); {
		b.open(200, home+"/some/page")
	}
	b.logIn("ann@example.org")
	b.at(home + "/some/page")

	// Once the user has left the group, the app learns nothing more.
	s.mustCommand("", "group", "remove", "judo", "ann@example.org")
	s.get("/oauth2/userinfo", b.json()["token"]).wants(t, http.StatusUnauthorized, "userinfo for a user who has left the group")
}

// json is what the page shows.
func (b *tab) json() (v map[string]string) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.text()), &v); err != nil {
		b.t.Fatalf("%v: %s", err, b.text())
	}
	return v
}
