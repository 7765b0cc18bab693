package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

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
		Env: append(os.Environ(),
			"DATABASE_URL="+pgtest.Database(t), "RUN_MIGRATIONS=1", "LISTEN_ADDR="+address, "BASE_URL="+home+"/", "DISABLE_SCHEDULER_SERVICE=1",
			"OAUTH2_PROVIDER=oidc", "OAUTH2_OIDC_PROVIDER_NAME=kwai", "OAUTH2_OIDC_DISCOVERY_ENDPOINT="+s.URL,
			"OAUTH2_CLIENT_ID="+app.ID, "OAUTH2_CLIENT_SECRET="+app.Secret, "OAUTH2_REDIRECT_URL="+home+"/oauth2/oidc/callback",
			"OAUTH2_USER_CREATION=1", "DISABLE_LOCAL_AUTH=1"),
	})

	b := openTab(t, browser, s.URL)
	b.open(200, home+"/")
	b.toKwai(home)
	b.landsAt(s.URL + "/login")
	b.logIn("ann@example.org")
	b.isReader(home)
	b.clickHere(".logout-button")
	b.toKwai(home) // which still knows the browser
	b.landsAt(home + "/unread")
	b.isReader(home)

	// Its logout is its own; after one at kwai it asks for a login there.
	b.logOutAtKwai()
	b.open(200, home+"/unread")
	b.clickHere(".logout-button")
	b.toKwai(home)
	b.landsAt(s.URL + "/login")
	b.logIn("ann@example.org")
	b.isReader(home)
}

// toKwai takes Miniflux's login link. Its pages may come from its service worker.
func (b *tab) toKwai(home string) {
	b.t.Helper()
	const link = `a[href$="/oauth2/oidc/redirect"]`
	b.wait(has(link))
	b.landsAt(home + "/")
	eval[chromedp.Void](b, fmt.Sprintf("document.querySelector(%q).click()", link))
}

// isReader waits until Miniflux knows who has come.
func (b *tab) isReader(home string) {
	b.t.Helper()
	b.wait(has(".logout-button"))
	if who := eval[string](b, `document.querySelector(".logout-button").title`); !strings.Contains(who, "ann@example.org") {
		b.t.Errorf("Miniflux shows %q", who)
	}
}

// has is a condition in a page.
func has(selector string) string { return fmt.Sprintf("document.querySelector(%q) != null", selector) }
