package test

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
)

// axe-core finds nothing on any page, in any state and language, dark and light.
func TestAxeFindsNothing(t *testing.T) {
	t.Parallel()
	need.Time(t)
	script := axeScript(t)
	browser := startBrowser(t)
	k := install(t, "")
	m := mailtest.Serve(t)
	s, public := startBehind(t, loopbackName, "", k, "--smtp="+m.URL(), "--limits=off")
	s.user("ann@example.org", "the old password")
	s.user("bob@example.org", "the old password")
	s.mustCommand("", "group", "create", "judo")
	s.mustCommand("", "app", "create", "Wiki", "--id=wiki", "--public", "--redirect-uri=http://127.0.0.1:9/cb", "--home-url=https://wiki.example.org", "--consent")
	s.mustCommand("", "app", "create", "Notes", "--id=notes", "--redirect-uri=https://notes.example.org/cb", "--groups=judo")
	ask := func(app, redirect, more string) string {
		return "/oauth2/authorize?client_id=" + app + "&response_type=code&scope=openid%20profile%20email%20groups&code_challenge_method=S256&code_challenge=" + strings.Repeat("x", 43) + "&redirect_uri=" + url.QueryEscape(redirect) + more
	}
	s.post("recover", "", "email", "ann@example.org")
	link := waitMails(t, m, 1)[0].RecoveryLink()
	sent := 1
	for _, language := range []string{"en", "nl", "fr", "de"} {
		for _, scheme := range []string{"light", "dark"} {
			b := openTab(t, browser, public)
			check := axe(t, b, script, language, scheme)
			visit := func(status int, path string) {
				t.Helper()
				b.open(status, public+path)
				check(path)
			}
			visit(200, "/recover")
			if language == "en" && scheme == "light" { // it would find something
				eval[chromedp.Void](b, `document.querySelector("label").remove()`)
				if !strings.Contains(await(t, b, `axe.run().then(r => r.violations.map(v => v.id).join(" "))`), "label") {
					t.Error("axe doesn't miss a label")
				}
				visit(200, "/recover")
			}
			b.click(422, "button")
			check("/recover, with an error")
			visit(200, "/sent")
			b.open(200, link)
			check("/reset")
			b.click(422, "button")
			check("/reset, with an error")
			visit(200, "/reset")
			visit(200, "/done")
			visit(404, "/reset?uuid=00000000-0000-4000-8000-000000000000")
			visit(200, "/login")
			b.typeInto("username", "bob@example.org")
			b.click(401, "button")
			check("/login, with an error")
			b.typeInto("password", "the old password")
			b.click(200, "button")
			check("/account")
			visit(200, "/account/profile")
			b.typeInto("last_name", strings.Repeat("x", 101))
			b.click(422, "button")
			check("/account/profile, with an error")
			visit(200, "/account/data")
			visit(200, "/account/email")
			b.click(422, "button")
			check("/account/email, with an error")
			b.typeInto("email", "new-"+language+scheme+"@example.org")
			b.click(200, "button")
			check("/account, with a message")
			sent += 2 // the link, and a notice to the address of now
			for _, mail := range waitMails(t, m, sent)[sent-2:] {
				if link := confirmLink(mail.Text); link != "" {
					b.open(200, link)
				}
			}
			check("/account/email/confirm")
			visit(404, "/account/email/confirm?code=x")
			visit(200, "/account/sessions")
			visit(200, "/account/apps")
			visit(200, ask("wiki", "http://127.0.0.1:9/cb", ""))
			visit(200, ask("wiki", "http://127.0.0.1:9/cb", "&prompt=select_account"))
			visit(400, ask("wiki", "https://evil.example/cb", ""))
			visit(403, ask("notes", "https://notes.example.org/cb", ""))
			visit(200, "/account/activity")
			visit(200, "/account/password")
			b.click(422, "button")
			check("/account/password, with an error")
			visit(200, "/account/delete")
			visit(200, "/gone")
			visit(200, "/logout")
			b.click(200, "button")
			check("/out")
		}
	}
}

// A page that shows whose it is has nothing to be found either, whatever accent is
// taken.
func TestAxeFindsNothingOnBrandedPages(t *testing.T) {
	t.Parallel()
	need.Time(t)
	script, browser, logo := axeScript(t), startBrowser(t), writeLogo(t)
	for _, brand := range [][]string{
		{"--service-name=Judo club Example", "--accent-color=#7a1f3d", "--logo=" + logo, "--support-url=mailto:help@example.org"},
		{"--accent-color=#000000", "--logo=" + logo, "--terms-url=https://example.org/terms", "--privacy-url=https://example.org/privacy"},
		{"--accent-color=#006e4f", "--service-name=" + strings.Repeat("A very long name ", 8) + strings.Repeat("x", 60)}, // hardly dark enough
	} {
		s, public := startBehind(t, loopbackName, "/some/where", install(t, ""), brand...)
		s.user("ann@example.org", "the old password")
		for _, scheme := range []string{"light", "dark"} {
			b := openTab(t, browser, strings.TrimSuffix(public, "/some/where"))
			check := axe(t, b, script, "en", scheme)
			b.open(200, public+"/login")
			check("/login")
			b.click(401, "button")
			check("/login, with an error")
			b.typeInto("username", "ann@example.org")
			b.typeInto("password", "the old password")
			b.click(200, "button")
			check("/account")
			b.open(200, public+"/account/sessions")
			check("/account/sessions")
			b.do(chromedp.EmulateViewport(320, 720))
			if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("%q: %d pixels too wide for a screen of 320", brand, over)
			}
			if eval[bool](b, `[...document.images].some(i => i.naturalHeight == 0)`) {
				t.Errorf("%q: the browser doesn't show the logo", brand)
			}
		}
	}
}

func axeScript(t *testing.T) string {
	t.Helper()
	return string(readFile(t, filepath.Join(newNode(t).Folder, "node_modules/axe-core/axe.min.js")))
}

// axe has a tab look at pages in a language and a colour scheme. What it returns looks
// for faults in the tab's page.
func axe(t *testing.T, b *tab, script, language, scheme string) (check func(state string)) {
	t.Helper()
	call(b, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	call(b, network.Enable, network.EnableParams{})
	call(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": language}})
	return func(state string) {
		t.Helper()
		if got := eval[string](b, "document.documentElement.lang"); got != language {
			t.Errorf("%s %s: the page is in %q", state, language, got)
		}
		eval[chromedp.Void](b, script)
		found := await(t, b, `axe.run().then(r => r.passes.length < 10 ? "axe looked at nothing" : r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).join(" ")).join("\n"))`)
		if found != "" {
			t.Errorf("%s, %s, %s:\n%s", state, language, scheme, found)
		}
		// A screen of 320 pixels is also what is left of 1280 at a zoom of 400 %.
		b.do(chromedp.EmulateViewport(320, 720))
		if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("%s, %s: %d pixels too wide for a screen of 320", state, language, over)
		}
		b.do(chromedp.EmulateViewport(1280, 720))
	}
}

// confirmLink is the link in a mail to a new address.
func confirmLink(text string) string {
	return regexp.MustCompile(`\S+/account/email/confirm\?\S+`).FindString(text)
}

// call calls a method of the browser's protocol.
func call[P, R any](b *tab, method cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, method, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// await is eval of a promise.
func await(t *testing.T, b *tab, script string) string {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
