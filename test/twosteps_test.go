package test

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// otherApp is an authenticator app of others: zbarimg is its camera, oathtool makes its
// codes.
type otherApp struct {
	t      *testing.T
	secret string
}

// scan reads the QR code from a picture of the page.
func (b *tab) scan() otherApp {
	b.t.Helper()
	shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	file := filepath.Join(b.t.TempDir(), "page.png")
	if err := os.WriteFile(file, shot, 0o600); err != nil {
		b.t.Fatal(err)
	}
	out, err := exec.CommandContext(b.t.Context(), need.Program(b.t, "zbarimg"), "--raw", "-q", file).Output()
	if err != nil {
		b.t.Fatalf("zbarimg sees nothing on the page: %v", err)
	}
	u, err := url.Parse(strings.TrimSpace(string(out)))
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Query().Get("issuer") == "" || !strings.HasSuffix(u.Path, "@example.org") {
		b.t.Fatalf("the QR code has %q: %v", out, err)
	}
	return otherApp{b.t, u.Query().Get("secret")}
}

// code is what the app shows at a time such as "+30 seconds".
func (a otherApp) code(when string) string {
	a.t.Helper()
	out, err := exec.CommandContext(a.t.Context(), need.Program(a.t, "oathtool"), "--totp", "--base32", "--now="+when, a.secret).Output()
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// An authenticator app of others is set up, and asked for at the next login: by
// keyboard, without a script.
func TestTwoStepsInBrowser(t *testing.T) {
	need.Time(t)
	browser := startBrowser(t)
	each(t, func(t *testing.T, k cluster.Kwai) {
		s, public := startBehind(t, loopbackName, "/some/where", k)
		s.user("ann@example.org", "the old password")
		b := openTab(t, browser, strings.TrimSuffix(public, "/some/where"))
		b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
			_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
			return chromedp.Void{}, err
		})
		b.open(200, public+"/account/security/app")           // leads to the login
		b.waitFor(`document.activeElement.id === "username"`) // a browser focuses it after the load
		b.press("ann@example.org" + kb.Tab + "the old password")
		b.submit(200, kb.Enter)
		const code = "Six digits. There is a new code every 30 seconds."
		b.sees("", slices.Concat(navigation, []string{`heading "Set up an authenticator app"`, `heading "Scan the QR code"`, `link "Open it in an app on this device"`,
			`heading "Keep the recovery codes"`, `checkbox "I have kept the recovery codes"`, `heading "Type the code that the app shows"`, `textbox "Code" (` + code + `)`,
			`button "Switch it on"`, `link "Back"`})...)
		app := b.scan()
		b.press(kb.Tab + kb.Tab + kb.Tab + kb.Tab + kb.Tab + app.code("now")) // past the link and the box, which isn't ticked
		const unkept = "Error: Print the recovery codes or write them down, then tick this box."
		b.submit(422, kb.Enter)
		b.sees("", slices.Concat(navigation, []string{`heading "Set up an authenticator app"`, `heading "Scan the QR code"`, `link "Open it in an app on this device"`,
			`heading "Keep the recovery codes"`, `alert "` + unkept + `"`, `checkbox "I have kept the recovery codes" (` + unkept + `) invalid`, `heading "Type the code that the app shows"`,
			`textbox "Code" (` + code + `)`, `button "Switch it on"`, `link "Back"`})...)
		if again := b.scan(); again.secret != app.secret {
			t.Error("the page comes back with another QR code")
		}
		b.press(" " + kb.Tab + app.code("now")) // the focus is on the box
		b.submit(200, kb.Enter)
		b.sees("", slices.Concat(navigation, []string{`heading "Two steps and passkeys"`, `status "The authenticator app is set up. From now on each login by password asks for a code."`, `link "See where you are logged in, and log out elsewhere"`,
			`heading "Authenticator app"`, `link "Make new recovery codes"`, `link "Replace the authenticator app"`, `link "Remove the authenticator app"`,
			`heading "Two steps"`, `link "Switch two steps off"`, `heading "Passkeys"`, `link "Your passkeys"`})...)
		b.open(200, public+"/logout")
		b.press(kb.Tab + kb.Tab + kb.Tab)
		b.submit(200, kb.Enter)

		b.open(200, public+"/account/activity")
		b.waitFor(`document.activeElement.id === "username"`) // a browser focuses it after the load
		b.press("ann@example.org" + kb.Tab + "the old password")
		b.submit(200, kb.Enter)
		const hint = "Six digits. A recovery code works as well."
		b.sees("", `heading "Type the code"`, `textbox "Code" (`+hint+`)`, `button "Go on"`, `link "Back to the login"`)
		const wrong = "Error: This code is wrong, or was used before. Type the one that the app shows now, or a recovery code that you haven’t used."
		b.press("000 000") // the focus is on the field
		b.submit(401, kb.Enter)
		b.sees("", `heading "Type the code"`, `alert "`+wrong+`"`, `textbox "Code" (`+wrong+` `+hint+`) invalid`, `button "Go on"`, `link "Back to the login"`)
		b.press(app.code("+30 seconds"))
		b.submit(200, kb.Enter)
		b.sees("", append(navigation, `heading "What happened"`)...)
	})
}

// axe-core finds nothing on the pages of two steps either, in any state and language, dark
// and light, and they fit a screen of 320 pixels. The QR code can be read in all of them.
func TestAxeFindsNothingOnTwoSteps(t *testing.T) {
	t.Parallel()
	need.Time(t)
	script := axeScript(t)
	browser := startBrowser(t)
	s, public := startBehind(t, loopbackName, "", install(t, ""), "--limits=off")
	for _, language := range []string{"en", "nl", "fr", "de"} {
		for _, scheme := range []string{"light", "dark"} {
			email := language + scheme + "@example.org"
			s.user(email, "the old password")
			b := openTab(t, browser, public)
			b.home = public
			check := axe(t, b, script, language, scheme)
			visit := func(path string) {
				t.Helper()
				b.open(200, public+path)
				check(path)
			}
			b.open(200, public+"/account/security")
			b.enter(email)
			check("/account/security")
			visit("/account/security/app")
			app := b.scan()
			b.click(422, "button")
			check("/account/security/app, with errors")
			b.typeInto("code", app.code("now"))
			b.do(chromedp.Click(chromedp.CSS("#kept")))
			b.click(200, "button")
			check("/account/security, with an app")
			b.open(200, public+"/account/security/codes") // asks for a proof: that of the password alone was one before
			b.typeInto("password", "the old password")
			b.click(200, "button")
			b.typeInto("code", app.code("+30 seconds"))
			b.click(200, "button")
			check("/account/security/codes")
			b.do(chromedp.EmulateViewport(320, 720))
			if broken := eval[int](b, `[...document.querySelectorAll(".codes li")].filter((li) => li.offsetHeight > 2 * parseFloat(getComputedStyle(li).fontSize)).length`); broken > 0 {
				t.Errorf("%s: %d recovery codes are broken on a screen of 320", language, broken)
			}
			b.do(chromedp.EmulateViewport(1280, 720))
			b.click(422, "button")
			check("/account/security/codes, with an error")
			visit("/account/security/remove")
			visit("/account/security/two-steps")
			visit("/account/passkeys")
			b.open(200, public+"/logout")
			b.click(200, "button")
			b.open(200, public+"/login")
			b.enter(email)
			check("/login/code")
			b.click(422, "button")
			check("/login/code, with an error")
			b.open(200, public+"/login/code?login=x")
			check("/login, with a notice")
		}
	}
}
