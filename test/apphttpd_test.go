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

// httpdSettings are those of Apache itself; docs/apps.md has what is added.
const httpdSettings = `
ServerRoot FOLDER
ServerName HOST
PidFile FOLDER/pid
DefaultRuntimeDir FOLDER
ErrorLog /dev/stderr
Listen ADDRESS
User www-data
Group www-data
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authn_core_module MODULES/mod_authn_core.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule authz_user_module MODULES/mod_authz_user.so
LoadModule proxy_module MODULES/mod_proxy.so
LoadModule proxy_http_module MODULES/mod_proxy_http.so
LoadModule auth_openidc_module MODULES/mod_auth_openidc.so
`

// TestModAuthOpenIDC puts Apache with mod_auth_openidc in front of a program.
func TestModAuthOpenIDC(t *testing.T) {
	t.Parallel()
	need.Time(t)
	program := need.Program(t, "apache2")
	const modules = "/usr/lib/apache2/modules"
	if _, err := os.Stat(modules + "/mod_auth_openidc.so"); err != nil {
		need.Missing(t, err)
	}
	browser := startBrowser(t)
	s := provider(t, install(t, ""))
	s.mustCommand("", "group", "create", "judo")
	s.mustCommand("", "group", "add", "judo", "ann@example.org")
	behind := serveApp(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told, err := json.Marshal(map[string]string{
			"path": r.URL.Path, "email": r.Header.Get("OIDC_CLAIM_email"), "name": r.Header.Get("OIDC_CLAIM_name"),
			"groups": r.Header.Get("OIDC_CLAIM_groups"), "token": r.Header.Get("OIDC_access_token"),
		})
		if err != nil {
			t.Error(err)
		}
		htmlPage(w, string(told))
	}))
	name, address := freePort(t)
	home := "http://" + name
	app := s.app("Apache", "--redirect-uri="+home+"/oidc", "--post-logout-uri="+home+"/out", "--backchannel-logout-uri="+home+"/oidc?logout=backchannel")
	folder := t.TempDir()
	settings := strings.NewReplacer("FOLDER", folder, "HOST", name, "ADDRESS", address, "MODULES", modules).Replace(httpdSettings) +
		s.appSettings(t, "apache", home, behind, app) +
		"OIDCRefreshAccessTokenBeforeExpiry 3599\n<Location /ready>\nAuthType None\nRequire all granted\n</Location>\n"
	if err := os.WriteFile(filepath.Join(folder, "settings"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	// -X: one process, which leaves none behind.
	run(t, cluster.Command{Program: program, Args: []string{"-X", "-f", filepath.Join(folder, "settings")}, Address: address, Ready: "/ready"})

	b := openTab(t, browser, s.URL)
	b.open(200, home+"/some/page")
	b.logIn("ann@example.org")
	b.at(home + "/some/page")
	first := b.json()
	for name, want := range map[string]string{"path": "/some/page", "email": "ann@example.org", "name": "Ann Other", "groups": "judo"} {
		if first[name] != want {
			t.Errorf("the app is told %s %q, want %q", name, first[name], want)
		}
	}
	for b.json()["token"] == first["token"] { // until it renews
		b.open(200, home+"/some/page")
	}
	token := b.json()["token"]
	if a := s.get("/oauth2/userinfo", token); a.field("email") != "ann@example.org" {
		t.Errorf("userinfo by a renewed token: %v", a)
	}

	// Out of the app, and of kwai, and back.
	b.open(200, home+"/oidc?logout="+url.QueryEscape(home+"/out"))
	b.at(home + "/out")
	s.get("/oauth2/userinfo", token).wants(t, http.StatusUnauthorized, "userinfo after a logout")
	b.open(200, home+"/some/page")
	b.logIn("ann@example.org")
	b.at(home + "/some/page")

	// Out of kwai: the app hears of it, and asks for a login.
	b.logOutAtKwai()
	for s.mustCommand("", "app", "logouts", "--json") != "[]\n" {
		continue
	}
	b.open(200, home+"/some/page")
	b.logIn("ann@example.org")
	b.at(home + "/some/page")

	// Who isn't in the group may not come in.
	s.mustCommand("", "group", "remove", "judo", "ann@example.org")
	b.open(200, home+"/oidc?logout="+url.QueryEscape(home+"/out"))
	b.open(200, home+"/some/page")
	b.typeInto("username", "ann@example.org")
	b.typeInto("password", good)
	b.click(401, "button")
}
