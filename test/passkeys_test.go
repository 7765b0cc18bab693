package test

import (
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

const passkeyButton = `button "Log in with a passkey"`

// authenticator is one that Chromium has in software. It belongs to the tab.
type authenticator struct {
	b  *tab
	id webauthn.AuthenticatorID
}

func (b *tab) authenticator() authenticator {
	b.t.Helper()
	call(b, webauthn.Enable, webauthn.EnableParams{})
	// So that a test knows what the page has asked for.
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		const get = navigator.credentials.get.bind(navigator.credentials);
		window.asked = 0;
		navigator.credentials.get = (options) => (window.asked++, get(options));`})
	added := call(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: "ctap2", Ctap2version: "ctap2_1", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	return authenticator{b, added.AuthenticatorID}
}

// present says whether somebody touches it at the next requests. A request that waits
// goes on to wait.
func (a authenticator) present(is bool) {
	a.b.t.Helper()
	call(a.b, webauthn.SetAutomaticPresenceSimulation, webauthn.SetAutomaticPresenceSimulationParams{AuthenticatorID: a.id, Enabled: is})
}

// waits opens a login on which autofill waits for somebody.
func (a authenticator) waits(path string) {
	a.b.t.Helper()
	a.present(false)
	a.b.open(200, a.b.home+path)
	a.b.waitFor(`window.asked === 1`)
}

func (a authenticator) verified(is bool) {
	a.b.t.Helper()
	call(a.b, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: a.id, IsUserVerified: is})
}

func (a authenticator) credentials() []*webauthn.Credential {
	a.b.t.Helper()
	return call(a.b, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: a.id}).Credentials
}

// People add a passkey, log in by it from the button and from autofill, prove by it that
// it is them, and remove it.
func TestPasskeysInBrowser(t *testing.T) {
	t.Parallel()
	need.Time(t)
	browser := startBrowser(t)
	for name, prefix := range map[string]string{"at the top": "", "below a path of a proxy": "/some/where"} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, k cluster.Kwai) {
				s, public := startBehind(t, "localhost", prefix, k)
				s.user("ann@example.org", "the old password")
				b := openTab(t, browser, "http://localhost"+public[len("http://localhost"):len(public)-len(prefix)])
				b.home = public
				passkeysInBrowser(b)
			})
		})
	}
}

func passkeysInBrowser(b *tab) {
	key := b.authenticator()
	form := []string{`heading "Log in"`, emailField, passwordField, `checkbox "Stay logged in on this device"`, loginButton, passkeyButton, `link "Forgotten the password?"`}
	b.open(200, b.home+"/login?next=account/passkeys")
	b.sees("login", form...)
	b.typeInto("username", "ann@example.org")
	b.typeInto("password", "the old password")
	b.click(200, "button")
	none := slices.Concat(navigation, []string{`heading "Passkeys"`, `heading "Add a passkey"`, `textbox "Name"`, `button "Add a passkey"`})
	b.sees("passkeys-none", none...)
	b.typeInto("name", "Laptop")
	b.click(200, "form[data-passkeys] button")
	one := slices.Insert(slices.Clone(none), 3, `textbox "Name"`, `button "Rename"`, `button "Remove"`)
	b.sees("passkeys", one...)
	if n := len(key.credentials()); n != 1 {
		b.t.Fatalf("the authenticator has %d passkeys", n)
	}
	// The same device a second time: its browser refuses.
	b.do(chromedp.Click(chromedp.CSS("form[data-passkeys] button")))
	b.waitFor(`document.querySelector("form[data-passkeys] [role=alert]").textContent.includes("has a passkey")`)

	logout := func() {
		b.open(200, b.home+"/logout")
		b.click(200, "button")
	}
	// By the button, while autofill waits.
	logout()
	key.waits("/login?next=account/passkeys")
	b.sees("login-autofill", form...)
	key.verified(false)
	key.present(true)
	b.do(chromedp.Click(chromedp.CSS("form[data-passkeys] button")))
	b.waitFor(`document.querySelector("form[data-passkeys] [role=alert]").textContent.startsWith("It was cancelled")`)
	key.verified(true)
	key.waits("/login?next=account/passkeys")
	key.present(true)
	b.click(200, "form[data-passkeys] button")
	b.sees("", one...)

	// By autofill, which the browser answers by itself here, with a passkey that syncs now.
	logout()
	c := key.credentials()[0]
	yes := true
	call(b, webauthn.SetCredentialProperties, webauthn.SetCredentialPropertiesParams{AuthenticatorID: key.id, CredentialID: c.CredentialID, BackupEligibility: &yes, BackupState: &yes})
	b.do(chromedp.Navigate(b.home + "/login?next=account/passkeys"))
	b.waitFor(`document.title === "Passkeys"`)
	b.sees("", one...)

	// It proves, too.
	key.present(false)
	b.open(200, b.home+"/login?prompt=login&next=oauth2/authorize%3Fx")
	b.sees("proof-passkey", `heading "Is it you?"`, emailField, passwordField, `button "Go on"`, `button "Use a passkey"`, `link "Forgotten the password?"`, `link "Back to your account"`)

	b.open(200, b.home+"/account/passkeys")
	b.click(200, "button[name=remove]")
	b.sees("", none...)
	logout()
	key.waits("/login")
	key.present(true)
	b.click(401, "form[data-passkeys] button")
	b.sees("login-passkey-error", append([]string{form[0], `alert "The passkey is not known here, or was not accepted. Try again, or use your password."`}, form[1:]...)...)
}

// waitFor waits until a script is true, over pages that come and go.
func (b *tab) waitFor(script string) {
	b.t.Helper()
	for {
		if is, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](script)); err == nil && is {
			return
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatal("the tab is closed before it is so: ", script)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
