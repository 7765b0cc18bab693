package test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
	"kwai/internal/testing/totp"
)

// TestWebExample has the page of examples/web, on an origin of its own, log in,
// renew in two tabs at once, log out of both, and log in by two steps.
func TestWebExample(t *testing.T) {
	need.Time(t)
	text, err := os.ReadFile("../examples/web/index.html")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n >= 120 {
		t.Errorf("the example has %d lines", n)
	}
	const inPage = "http://localhost:8080"
	if !strings.Contains(string(text), inPage) {
		t.Fatalf("the page doesn't name %s", inPage)
	}
	browser := startBrowser(t)
	each(t, func(t *testing.T, k cluster.Kwai) {
		var api string
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte(strings.ReplaceAll(string(text), inPage, api)))
		}))
		t.Cleanup(page.Close)
		s, public := startBehind(t, loopbackName, "", k, "--cors-origins="+page.URL)
		api = public
		s.user("ann@example.org", "the old password")

		first := openTab(t, browser, public)
		first.open(200, page.URL+"/")
		first.typeInto("email", "ann@example.org")
		first.typeInto("password", "the old password")
		first.clickHere("#login button")
		first.says("You are logged in.")
		first.clickHere("#who")
		first.says("You are ann@example.org")

		// The second one finds the session of the first, and renews it to begin.
		second := first.another()
		second.open(200, page.URL+"/")
		second.says("You are ann@example.org")
		for _, tab := range []*tab{first, second} {
			eval[chromedp.Void](tab, `said = []; new MutationObserver(changes => said.push(...changes.map(c => c.addedNodes[0]?.data)))
				.observe(document.getElementById("out"), { childList: true })`)
		}
		for range 5 {
			eval[chromedp.Void](first, `document.getElementById("renew").click()`)
			eval[chromedp.Void](second, `document.getElementById("renew").click()`)
		}
		for _, tab := range []*tab{first, second} {
			tab.saysTimes(5, "Renewed.") // a later one would hide what comes next
			tab.clickHere("#who")
			tab.says("You are ann@example.org")
		}
		second.clickHere("#logout")
		second.says("You are logged out.")
		first.says("You are logged out.")

		// Who logs in in one tab is logged in in the other.
		second.typeInto("email", "ann@example.org")
		second.typeInto("password", "the old password")
		second.clickHere("#login button")
		first.says("You are ann@example.org")

		s.user("bob@example.org", "the old password")
		s.user("carl@example.org", "the old password")
		s.mustCommand("", "group", "create", "board", "--require-two-steps")
		s.mustCommand("", "group", "add", "board", "carl@example.org")
		secret := enrol(openTab(t, browser, public), "bob@example.org")
		third := openTab(t, browser, public)
		third.open(200, page.URL+"/")
		third.refuses(public + "/api/v1/auth/login") // the browser complains of each 401
		password := func(email string) {
			third.typeInto("email", email)
			third.typeInto("password", "the old password")
			third.clickHere("#login button")
		}
		password("carl@example.org")
		third.says("Your account needs two steps, and has no authenticator app yet. Log in at " + public + "/login to set one up.")
		password("bob@example.org")
		third.says("Your account asks for a code, too.")
		third.clickHere("#second [type=reset]")
		third.says("")
		password("bob@example.org")
		third.says("Your account asks for a code, too.")
		third.hasFocus("otp")
		third.press("000000")
		third.clickHere("#second button")
		third.says("The code is wrong, or was used before.")
		third.wait(`document.getElementById("otp").value == ""`)
		third.press(totp.Code(secret, time.Now().Add(30*time.Second))) // the one of now was used
		third.clickHere("#second button")
		third.says("You are logged in.")
		third.clickHere("#who")
		third.says("You are bob@example.org")
	})
}

// enrol gives a user an authenticator app, on the pages, and returns its secret.
func enrol(b *tab, email string) (secret string) {
	b.t.Helper()
	b.open(200, b.home+"/account/security/app")
	b.enter(email)
	secret = eval[string](b, `document.querySelector(".code").textContent`)
	b.typeInto("code", totp.Code(secret, time.Now()))
	b.do(chromedp.Click(chromedp.CSS("#kept")))
	b.click(200, "button")
	return secret
}

// refuses says that the server rightly refuses what the page sends there.
func (b *tab) refuses(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = append(b.refused, url)
}

// another is a second tab of the same visit: it shares what the first one stores.
func (b *tab) another() *tab {
	b.t.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx)
	b.t.Cleanup(closeTab)
	other := &tab{t: b.t, home: b.home, origins: []string{b.home}, ctx: ctx}
	if err := chromedp.Listen(ctx, other.hear); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(other.check)
	return other
}

// clickHere is click where that loads no page.
func (b *tab) clickHere(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// says waits until the page says that.
func (b *tab) says(text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf(`document.getElementById("out")?.textContent == %q`, text))
}

// saysTimes waits until the page has shown that text so many times, since it began to
// record its texts.
func (b *tab) saysTimes(n int, text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf(`said.filter(text => text == %q).length == %d`, text, n))
}

// wait waits until the condition is true in the page. A page that is just being left
// can't be asked: its error counts only when the time is over.
func (b *tab) wait(condition string) {
	b.t.Helper()
	for {
		is, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](condition))
		if err == nil && is {
			return
		}
		if b.ctx.Err() != nil {
			b.t.Fatal(context.Cause(b.ctx), err)
		}
	}
}
