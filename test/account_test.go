package test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// What the account's pages show to assistive technology.
const (
	passwordField = `textbox "Password"`
	loginButton   = `button "Log in"`
	languageField = `combobox "Language" (Of these pages, and of the mails that we send you.)`
	longName      = "Error: The name is too long: use at most 100 characters."
	wrongLogin    = "Error: The address or the password is wrong."
)

var (
	navigation   = []string{`link "Your account"`, `link "Log out"`}
	accountLinks = []string{`link "Name and language"`, `link "Change the e‑mail address"`, `link "Change the password"`, `link "Two steps and passkeys"`, `link "Where you are logged in"`, `link "What apps see"`, `link "What happened"`, `link "Your data"`, `link "Delete the account"`}
	accountPage  = accountDone()
)

// accountDone is the account's page, with what has just been done.
func accountDone(done ...string) []string {
	return slices.Concat(navigation, []string{`heading "Your account"`}, done, accountLinks)
}

// People log in and look after their account on the pages, by mouse or by keyboard,
// without a script.
func TestAccountInBrowser(t *testing.T) {
	t.Parallel()
	need.Time(t)
	browser := startBrowser(t)
	for _, tt := range []struct {
		promise, host, prefix string
		test                  func(t *testing.T, b *tab)
	}{
		{"an account is looked after by mouse", loopbackName, "", accountByMouse},
		{"an account is looked after by keyboard, without scripts", loopbackName, "", accountByKeyboard},
		{"pages below a path of a proxy lead to each other", loopbackName, "/some/where", accountByMouse},
		{"eight tabs log in at once, each where it began", loopbackName, "", eightTabs},
		{"a login lands on our own pages, however next is spelled", loopbackName, "", landsAtHome},
	} {
		t.Run(tt.promise, func(t *testing.T) {
			each(t, func(t *testing.T, k cluster.Kwai) {
				s, public := startBehind(t, tt.host, tt.prefix, k)
				s.user("ann@example.org", "the old password")
				b := openTab(t, browser, strings.TrimSuffix(public, tt.prefix))
				b.home = public
				tt.test(t, b)
			})
		})
	}
}

func accountByMouse(_ *testing.T, b *tab) {
	b.open(200, b.home+"/account/sessions") // leads to the login
	b.sees("login", `heading "Log in"`, emailField, passwordField, `checkbox "Stay logged in on this device"`, loginButton, `link "Forgotten the password?"`)
	b.typeInto("username", "ann@example.org")
	b.typeInto("password", "a wrong password")
	b.click(401, "button")
	b.sees("login-error", `heading "Log in"`, emailField, `alert "`+wrongLogin+`"`, passwordField+` (`+wrongLogin+`) invalid`,
		`checkbox "Stay logged in on this device"`, loginButton, `link "Forgotten the password?"`)
	b.hasFocus("password")
	b.typeInto("password", "the old password")
	b.click(200, "button") // and back to where it began
	b.sees("sessions", append(navigation, `heading "Where you are logged in"`)...)
	b.click(200, `a[href="../account"]`)
	b.sees("account", accountPage...)
	b.click(200, `a[href="account/activity"]`)
	b.sees("activity", append(navigation, `heading "What happened"`)...)
	b.open(200, b.home+"/account/email")
	b.typeInto("email", "nonsense")
	b.click(422, "button")
	const noAddress = "Error: Type an e-mail address, such as name@example.org."
	b.sees("email-error", append(navigation, `heading "Change the e‑mail address"`, `alert "`+noAddress+`"`, `textbox "New e-mail address" (`+noAddress+`) invalid`, `button "Send the link"`)...)
	b.hasFocus("email")
	b.typeInto("email", "ann@example.net")
	b.click(200, "button")
	b.sees("email-sent", accountDone(`status "If the address can be used, a mail is on its way to it. Follow the link in that mail, in this browser."`)...)
	b.open(404, b.home+"/account/email/confirm?code=x")
	b.sees("email-invalid", append(navigation, `heading "This link is no longer valid"`, `link "Ask for a new link"`)...)
	b.open(200, b.home+"/account/data")
	b.sees("data", append(navigation, `heading "Your data"`, `link "Download the file"`)...)
	b.open(200, b.home+"/account/profile")
	profile := []string{`heading "Name and language"`, `textbox "First name"`, `textbox "Last name"`, languageField, `button "Save"`}
	b.sees("profile", append(navigation, profile...)...)
	b.typeInto("last_name", strings.Repeat("x", 101))
	b.click(422, "button")
	b.sees("profile-error", append(navigation, `heading "Name and language"`, `textbox "First name"`, `alert "`+longName+`"`, `textbox "Last name" (`+longName+`) invalid`, languageField, `button "Save"`)...)
	b.hasFocus("last_name")
	b.typeInto("last_name", "Other")
	b.click(200, "button")
	b.sees("profile-done", accountDone(`status "Name and language are saved."`)...)
	b.open(200, b.home+"/account/password")
	b.typeInto("password", "password1")
	b.click(422, "button")
	b.sees("password-error", append(navigation, `heading "Change the password"`, emailField, `alert "`+tooCommon+`"`,
		`textbox "New password" (`+tooCommon+` `+passwordHint+`) invalid`, saveButton)...)
	b.typeInto("password", "a tatami by the sea")
	b.click(200, "button")
	b.sees("", accountDone(`status "The password is changed."`)...)
	b.open(200, b.home+"/account/delete")
	deletion := []string{`heading "Delete the account"`, `link "Download your data first"`, `button "Delete my account"`, `link "Keep the account"`}
	b.sees("delete", append(navigation, deletion...)...)
	b.click(200, `p:last-child a`)
	b.sees("", accountPage...)
	b.click(200, `a[href="logout"]`)
	b.sees("logout", append(navigation, `heading "Log out"`, `button "Log out here"`, `button "Log out everywhere"`)...)
	b.click(200, "button")
	b.sees("out", `heading "You are logged out"`, `link "Log in again"`)
	b.open(200, b.home+"/account/delete")
	b.typeInto("username", "ann@example.org")
	b.typeInto("password", "a tatami by the sea")
	b.click(200, "button")
	b.sees("", append(navigation, deletion...)...)
	b.click(200, "button")
	b.sees("gone", `heading "Your account is deleted"`)
	b.open(200, b.home+"/account")
	b.sees("", `heading "Log in"`, emailField, passwordField, `checkbox "Stay logged in on this device"`, loginButton, `link "Forgotten the password?"`)
}

func accountByKeyboard(_ *testing.T, b *tab) {
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return chromedp.Void{}, err
	})
	b.open(200, b.home+"/")
	b.waitFor(`document.activeElement.id === "username"`) // a browser focuses it after the load
	b.press("ann@example.org" + kb.Tab + "the old password" + kb.Tab + " " + kb.Tab)
	b.submit(200, kb.Enter)
	b.sees("", accountPage...)
	b.press(kb.Tab + kb.Tab + kb.Tab) // past the navigation
	b.submit(200, kb.Enter)
	b.press(kb.Tab + kb.Tab + kb.Tab + "Ann" + kb.Tab + "Other" + kb.Tab + "n" + kb.Tab) // Nederlands
	b.submit(200, kb.Enter)
	b.sees("", `link "Je account"`, `link "Uitloggen"`, `heading "Je account"`, `status "Naam en taal zijn opgeslagen."`,
		`link "Naam en taal"`, `link "E‑mailadres wijzigen"`, `link "Wachtwoord wijzigen"`, `link "Twee stappen en passkeys"`, `link "Waar je bent ingelogd"`, `link "Wat apps zien"`, `link "Recente activiteit"`, `link "Je gegevens"`, `link "Account verwijderen"`)
	b.press(kb.Tab + kb.Tab + kb.Tab)
	b.submit(200, kb.Enter)
	b.press(kb.Tab + kb.Tab + kb.Tab + kb.Tab + kb.Tab + kb.Home + kb.Tab) // as the browser asks
	b.submit(200, kb.Enter)
	b.sees("", accountDone(`status "Name and language are saved."`)...)
	b.press(kb.Tab + kb.Tab + kb.Tab + kb.Tab + kb.Tab)
	b.submit(200, kb.Enter)
	b.press(kb.Tab + kb.Tab + kb.Tab + kb.Tab + "a tatami by the sea")
	b.submit(200, kb.Enter)
	b.sees("", accountDone(`status "The password is changed."`)...)
	b.press(kb.Tab + kb.Tab)
	b.submit(200, kb.Enter)
	b.press(kb.Tab + kb.Tab + kb.Tab)
	b.submit(200, kb.Enter)
	b.sees("", `heading "You are logged out"`, `link "Log in again"`)
}

// landsAtHome has the browser judge: it reads a Location in ways that no server knows all
// of.
func landsAtHome(t *testing.T, b *tab) {
	elsewhere := httptest.NewServer(http.NotFoundHandler()) // asking for it would be seen
	t.Cleanup(elsewhere.Close)
	evil := strings.TrimPrefix(elsewhere.URL, "http:")
	spellings := []string{
		evil, "/" + evil, "/\\" + evil[2:], "\\\\" + evil[2:], "%2f%2f" + evil[2:], "/%09" + evil, "\t" + evil, "/\t/" + evil[2:], "/\n/" + evil[2:], "\r\n" + evil,
		elsewhere.URL, "http:" + evil[2:], "https:" + evil, "HTTP:" + evil, "javascript:alert(1)", "data:text/html,x", "account@" + evil[2:], "account/" + evil, "account\\" + evil,
		"／／" + evil[2:], "\u2044\u2044" + evil[2:], "account/../" + evil, "account?x=" + evil, "account#" + evil, ".", "..", "//", "/\\", "?", "#", strings.Repeat("/", 2000) + evil[2:],
	}
	for _, first := range []bool{true, false} { // at the login, then logged in
		for _, next := range spellings {
			b.open(200, b.home+"/login?next="+url.QueryEscape(next))
			if first {
				b.typeInto("username", "ann@example.org")
				b.typeInto("password", "the old password")
				b.click(200, "button")
			}
			if got := eval[string](b, "location.href"); got != b.home+"/account" {
				t.Errorf("next %.60q leads to %s", next, got)
			}
			if first {
				b.open(200, b.home+"/logout")
				b.click(200, "button")
			}
		}
		if first {
			b.open(200, b.home+"/login")
			b.typeInto("username", "ann@example.org")
			b.typeInto("password", "the old password")
			b.click(200, "button")
		}
	}
}

func eightTabs(t *testing.T, first *tab) {
	places := []string{"account", "account/sessions", "account/activity", "account/password"}
	tabs := []*tab{first}
	for len(tabs) < 8 {
		tabs = append(tabs, first.another())
	}
	for i, b := range tabs {
		b.open(200, first.home+"/"+places[i%len(places)])
		b.typeInto("username", "ann@example.org")
		b.typeInto("password", "the old password")
	}
	var all sync.WaitGroup
	for _, b := range tabs {
		all.Go(func() { b.click(200, "button") })
	}
	all.Wait()
	for i, b := range tabs {
		if got, want := eval[string](b, "location.href"), fmt.Sprintf("%s/%s", first.home, places[i%len(places)]); got != want {
			t.Errorf("tab %d is at %s, want %s", i, got, want)
		}
		b.load(200, chromedp.Reload())
	}
}
