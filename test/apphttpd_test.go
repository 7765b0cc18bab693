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

// httpdSettings are Apache's, with mod_auth_openidc as docs/apps.md has it.
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

OIDCProviderMetadataURL KWAI/.well-known/openid-configuration
OIDCClientID CLIENT_ID
OIDCClientSecret CLIENT_SECRET
OIDCRedirectURI http://HOST/oidc
OIDCCryptoPassphrase "a secret of this server's own"
OIDCScope "openid profile email groups"
OIDCPKCEMethod S256
OIDCRemoteUserClaim email
OIDCRefreshAccessTokenBeforeExpiry 3599
<Location />
	AuthType openid-connect
	Require claim groups:judo
	ProxyPass BEHIND
</Location>
<Location /oidc>
	Require valid-user
	ProxyPass !
</Location>
<LocationMatch "^/(ready|out)$">
	AuthType None
	Require all granted
</LocationMatch>
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
	settings := strings.NewReplacer("FOLDER", folder, "HOST", name, "ADDRESS", address, "MODULES", modules, "KWAI", s.URL, "BEHIND", behind+"/",
		"CLIENT_ID", app.ID, "CLIENT_SECRET", app.Secret).Replace(httpdSettings)
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
