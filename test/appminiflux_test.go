package test

import (
	"os"
	"strings"
	"testing"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
)

// TestMiniflux has Miniflux, a feed reader, make its users of kwai's.
func TestMiniflux(t *testing.T) {
	t.Parallel()
	need.Time(t)
	program := goInstall(t, "miniflux.app/v2@v2.3.5")
	browser := startBrowser(t)
	s := provider(t, install(t, ""))
	s.mustCommand("", "group", "create", "readers")
	s.mustCommand("", "group", "add", "readers", "ann@example.org")
	name, address := freePort(t)
	home := "http://" + name
	app := s.app("Feeds", "--redirect-uri="+home+"/oauth2/oidc/callback", "--groups=readers")
	run(t, cluster.Command{
		Program: program, Address: address, Ready: "/readyz",
		Env: append(append(os.Environ(), "DATABASE_URL="+pgtest.Database(t), "RUN_MIGRATIONS=1", "LISTEN_ADDR="+address, "DISABLE_SCHEDULER_SERVICE=1"),
			strings.Fields(s.appSettings(t, "sh", home, "", app))...),
	})

	const link = "/oauth2/oidc/redirect" // of its login page
	b := openTab(t, browser, s.URL)
	b.open(200, home+"/")
	b.shows("Sign in with kwai")
	b.open(200, home+link)
	b.logIn("ann@example.org")
	b.at(home + "/unread")
	if who := eval[string](b, `document.querySelector(".logout-button").title`); !strings.Contains(who, "ann@example.org") {
		t.Errorf("Miniflux shows %q", who)
	}

	// Its sessions are its own: they stay after a logout at kwai. A new login asks there.
	b.logOutAtKwai()
	b.open(200, home+"/unread")
	b.at(home + "/unread")
	b.open(200, home+link)
	b.logIn("ann@example.org")
}
