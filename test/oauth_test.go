package test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// TestGoOAuthClient has Go's OAuth 2 library log in and renew at the token URL.
func TestGoOAuthClient(t *testing.T) {
	each(t, func(t *testing.T, k cluster.Kwai) {
		s := start(t, k)
		s.user("ann@example.org", good)
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: s.via})
		for name, style := range map[string]oauth2.AuthStyle{
			"the client in the form": oauth2.AuthStyleInParams,
			"the client in a header": oauth2.AuthStyleInHeader,
			"as it finds out":        oauth2.AuthStyleAutoDetect,
		} {
			t.Run(name, func(t *testing.T) {
				config := oauth2.Config{
					ClientID: "an app", ClientSecret: "not needed", Scopes: []string{"any"},
					Endpoint: oauth2.Endpoint{TokenURL: s.URL + api + "login", AuthStyle: style},
				}
				first, err := config.PasswordCredentialsToken(ctx, "ann@example.org", good)
				if err != nil {
					t.Fatal(err)
				}
				first.Expiry = time.Now().Add(-time.Hour)
				client := config.Client(ctx, first)
				res, err := client.Get(s.URL + userPath)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != http.StatusOK {
					t.Errorf("the current user with a renewed token: %d", res.StatusCode)
				}
				second, err := config.TokenSource(ctx, first).Token() // within the reuse window
				if err != nil {
					t.Fatal(err)
				}
				if second.AccessToken == first.AccessToken || second.RefreshToken == first.RefreshToken || !second.Valid() {
					t.Errorf("renewed from %+v to %+v", first, second)
				}

				_, err = config.PasswordCredentialsToken(ctx, "ann@example.org", "the wrong one")
				wantsOAuth(t, err, http.StatusUnauthorized, "invalid_grant")
				s.post("logout", second.AccessToken, "refresh_token", second.RefreshToken).wants(t, http.StatusOK, "logout")
				_, err = config.TokenSource(ctx, first).Token()
				wantsOAuth(t, err, http.StatusUnauthorized, "invalid_grant")
				_, err = config.TokenSource(ctx, &oauth2.Token{RefreshToken: "none of ours"}).Token()
				wantsOAuth(t, err, http.StatusUnauthorized, "invalid_grant")
				_, err = config.Exchange(ctx, "a code")
				wantsOAuth(t, err, http.StatusUnprocessableEntity, "unsupported_grant_type")
			})
		}
	})
}

// wantsOAuth says whether the library understood a refusal.
func wantsOAuth(t *testing.T, err error, status int, code string) {
	t.Helper()
	refusal, is := errors.AsType[*oauth2.RetrieveError](err)
	if !is || refusal.Response.StatusCode != status || refusal.ErrorCode != code || refusal.ErrorDescription == "" {
		t.Errorf("%v, want %d %s with a description", err, status, code)
	}
}

// python is Debian's: one of the user's own lacks Debian's libraries.
const python = "/usr/bin/python3"

// TestPythonOAuthClients has the two OAuth 2 libraries of Python do the same.
func TestPythonOAuthClients(t *testing.T) {
	need.Time(t)
	need.Program(t, python)
	for _, library := range []string{"authlib", "requests_oauthlib"} {
		if out, err := exec.CommandContext(t.Context(), python, "-c", "import "+library).CombinedOutput(); err != nil {
			need.Missing(t, errors.New(string(out)))
		}
	}
	eachOfAll(t, func(t *testing.T, k cluster.Kwai) {
		s := start(t, k)
		s.user("ann@example.org", good)
		for _, library := range []string{"authlib", "requests_oauthlib"} {
			t.Run(library, func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), python, "testdata/oauth_"+library+".py", s.URL+api+"login", s.URL+userPath, s.URL+api+"logout", good)
				cmd.Env = append(os.Environ(), "OAUTHLIB_INSECURE_TRANSPORT=1", "NO_PROXY=*")
				out, err := cmd.CombinedOutput()
				if err != nil || strings.TrimSpace(string(out)) != "done" {
					t.Errorf("%v: %s\n%s", err, out, s.log)
				}
			})
		}
	})
}
