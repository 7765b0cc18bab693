package test

import (
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"kwai/internal/testing/need"
)

// TestPageExample runs examples/app-spa, a single page over oidc-client-ts: it logs in by a
// redirect and in a window of its own, renews, asks who is logged in, and logs out.
func TestPageExample(t *testing.T) {
	t.Parallel()
	need.Time(t)
	n := newNode(t)
	example(t, n, "app-spa", "oidc-client-ts", "index.html")
	const inPage = "http://localhost:8080"
	text := string(readFile(t, filepath.Join(n.Folder, "index.html")))
	if strings.Count(text, inPage) != 1 {
		t.Fatalf("the page doesn't name %s once", inPage)
	}
	browser := startBrowser(t)
	s := provider(t, install(t, ""))
	n.write("index.html", strings.ReplaceAll(text, inPage, s.URL))
	home := serveApp(t, http.FileServer(http.Dir(n.Folder))) + "/"
	s.appOf(t, "app-spa", "http://localhost:5173/", home)

	b := openTab(t, browser, s.URL)
	b.open(200, home)
	b.says("Nobody is logged in.")
	b.clickHere("#login")
	b.landsAt(s.URL + "/login")
	b.logIn("ann@example.org")
	b.shows("Go on to Page?") // other programs could stand behind an address of this machine
	b.click(200, "button")
	b.says("You are ann@example.org.")
	if at := eval[string](b, "location.href"); at != home {
		t.Errorf("the page is at %s: the code is still there", at)
	}
	b.clickHere("#who")
	b.says("kwai says that you are Ann Other.")
	const access = `JSON.parse(sessionStorage[Object.keys(sessionStorage).find(k => k.startsWith("oidc.user:"))]).access_token`
	for range 2 {
		old := eval[string](b, access)
		b.clickHere("#renew")
		b.says("Renewed.")
		if eval[string](b, access) == old {
			t.Error("the renewed access token is the old one")
		}
		b.clickHere("#who")
		b.says("kwai says that you are Ann Other.")
	}
	// By itself, too, as the token's end comes near.
	old := eval[string](b, access)
	await(t, b, `users.getUser().then(u => { u.expires_in = 1; return users.storeUser(u).then(() => users.events.load(u)) }).then(() => "")`)
	b.wait(access + " != " + strconv.Quote(old))

	b.clickHere("#logout")
	b.landsAt(home)
	b.says("Nobody is logged in.")
	b.open(200, s.URL+"/login")
	b.shows("Log in") // at kwai, too

	// In a window of its own.
	b.open(200, home)
	popup := b.popup("#popup")
	popup.landsAt(s.URL + "/login")
	popup.typeInto("username", "ann@example.org")
	popup.typeInto("password", good)
	popup.click(200, "button")
	popup.shows("Go on to Page?")
	popup.clickHere("button") // which closes it
	b.says("You are ann@example.org.")

	// After a logout elsewhere it can't renew.
	other := b.another()
	other.logOutAtKwai()
	b.mu.Lock()
	b.refused = append(b.refused, s.URL+"/oauth2/token", s.URL+"/oauth2/userinfo")
	b.mu.Unlock()
	b.clickHere("#renew")
	b.says("You are logged out.")
}

// popup clicks on what opens a window, and returns that.
func (b *tab) popup(selector string) *tab {
	b.t.Helper()
	opened := chromedp.WaitNewTarget(b.ctx, func(info *target.Info) bool { return info.OpenerID != "" })
	b.clickHere(selector)
	ctx, closeTab := chromedp.NewContext(b.ctx, chromedp.WithTargetID(<-opened))
	b.t.Cleanup(closeTab)
	other := &tab{t: b.t, home: b.home, origins: b.origins, ctx: ctx}
	if err := chromedp.Listen(ctx, other.hear); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(other.check)
	return other
}
