package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
	"kwai/internal/token"
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
	// So that a test knows what the page has asked for, and what the button asks for waits
	// until the authenticator is touched.
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		const get = navigator.credentials.get.bind(navigator.credentials);
		window.asked = 0;
		navigator.credentials.get = async (options) => {
			window.asked++;
			if (options.mediation !== "conditional") await new Promise((touched) => (window.touched = touched));
			return get(options);
		};`})
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

// touch presses the page's button and touches the authenticator, as the only request that
// waits then: autofill's was ended by the button.
func (a authenticator) touch() chromedp.Action[chromedp.Void] {
	a.b.t.Helper()
	a.b.do(chromedp.Click(chromedp.CSS("form[data-passkeys] button")))
	a.b.waitFor(`window.touched !== undefined`)
	a.present(true)
	return chromedp.Evaluate[chromedp.Void](`window.touched()`)
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
	none := slices.Concat(navigation, []string{`heading "Passkeys"`, `heading "Add a passkey"`, `textbox "Name"`, `button "Add a passkey"`, `link "Back"`})
	b.sees("passkeys-none", none...)
	b.typeInto("name", "Laptop")
	b.click(200, "form[data-passkeys] button")
	did := func(page []string, what string) []string {
		return slices.Insert(slices.Clone(page), 3, `status "`+what+`"`, `link "See where you are logged in, and log out elsewhere"`)
	}
	one := slices.Insert(slices.Clone(none), 3, `textbox "Name"`, `button "Rename"`, `link "Remove Laptop"`)
	b.sees("passkeys", did(one, "The passkey is added. You can log in with it from now on.")...)
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
	b.do(key.touch())
	b.waitFor(`document.querySelector("form[data-passkeys] [role=alert]").textContent.startsWith("It was cancelled, took too long, or there is no passkey")`)
	key.present(false) // else autofill, which begins anew, may be answered at once
	key.verified(true)
	key.waits("/login?next=account/passkeys")
	b.load(200, key.touch())
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
	b.removePasskey()
	b.sees("", did(none, "The passkey is removed. Nobody can log in with it from now on.")...)
	logout()
	key.waits("/login")
	b.load(401, key.touch())
	b.sees("login-passkey-error", append([]string{form[0], `alert "The passkey is not known here, or was not accepted. Try again, or use your password."`}, form[1:]...)...)
}

// removePasskey removes the passkey on the page, and confirms it.
func (b *tab) removePasskey() {
	b.t.Helper()
	b.click(200, "a[href*='passkeys/remove']")
	b.sees("passkey-remove", slices.Concat(navigation, []string{`heading "Remove the passkey"`, `button "Remove it"`, `link "Back"`})...)
	b.click(200, "main form button")
}

// copied gives it a passkey of another device, as that one would be with so many
// signatures less.
func (a authenticator) copied(c *webauthn.Credential, less float64) {
	a.b.t.Helper()
	// A raw command: the library's sends members that this Chromium refuses.
	type credential struct {
		ID         []byte  `json:"credentialId"`
		Resident   bool    `json:"isResidentCredential"`
		RPID       string  `json:"rpId"`
		PrivateKey []byte  `json:"privateKey"`
		UserHandle []byte  `json:"userHandle"`
		SignCount  float64 `json:"signCount"`
	}
	type params struct {
		Authenticator webauthn.AuthenticatorID `json:"authenticatorId"`
		Credential    credential               `json:"credential"`
	}
	call(a.b, cdp.Command[params, cdp.Empty]{Method: webauthn.CommandAddCredential}, params{
		a.id, credential{c.CredentialID, true, c.RpID, c.PrivateKey, c.UserHandle, c.SignCount - less},
	})
}

// login logs in by it, and out again.
func (a authenticator) login() {
	a.b.t.Helper()
	a.waits("/login?next=account/passkeys")
	a.b.load(200, a.touch())
	if title := eval[string](a.b, "document.title"); title != "Passkeys" {
		a.b.t.Fatalf("the passkey leads to %q", title)
	}
	a.b.open(200, a.b.home+"/logout")
	a.b.click(200, "button")
}

// refused tries a login by it in vain.
func (a authenticator) refused() {
	a.b.t.Helper()
	a.waits("/login")
	a.b.load(401, a.touch())
}

// startAt starts an installation at an address, of which localhost is the public URL.
func startAt(t *testing.T, k cluster.Kwai, address string) (s *site, public string) {
	t.Helper()
	command, err := k.Serve(t.Context(), quick...)
	if err != nil {
		t.Fatal(err)
	}
	public = "http://" + strings.Replace(address, loopbackName, "localhost", 1)
	command.Address = address
	command.Args = append(command.Args, "--log-format=json", "--jwks-max-age=1s", "--listen="+address, "--public-url="+public)
	return startCommand(t, k, command), public
}

// A passkey stays its owner's through what operators do to a server whose address stays: a
// restore into another folder, new keys, a move to PostgreSQL. So does a copy of it in a
// second browser, until the passkey is removed.
func TestAPasskeyOutlivesItsServer(t *testing.T) {
	t.Parallel()
	need.Time(t)
	pgtest.Require(t)
	browser := startBrowser(t)
	address, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := install(t, "")
	s, public := startAt(t, k, address)
	s.user("ann@example.org", good)
	laptop := openTab(t, browser, public).authenticator()
	laptop.b.open(200, public+"/login?next=account/passkeys")
	laptop.b.typeInto("username", "ann@example.org")
	laptop.b.typeInto("password", good)
	laptop.b.click(200, "button")
	laptop.b.click(200, "form[data-passkeys] button")
	laptop.b.open(200, public+"/logout")
	laptop.b.click(200, "button")
	laptop.login()

	backup := filepath.Join(t.TempDir(), "backup.db")
	s.mustCommand("", "backup", backup)
	laptop.login() // which the backup doesn't know
	s.stop()
	key := readFile(t, s.masterKey())
	k = install(t, "")
	if err := os.WriteFile(filepath.Join(k.Folder, "master.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	(&site{tb: t, kwai: k}).mustCommand("", "restore", backup)
	s, _ = startAt(t, k, address)
	laptop.login()

	s.replaceMACKey()
	laptop.login()

	s.stop()
	k.Database = patient(pgtest.Database(t))
	s.moveTo(k.Database)
	s, _ = startAt(t, k, address)
	laptop.login()
	s.replaceMACKey()
	laptop.login()

	phone := openTab(t, browser, public).authenticator()
	phone.copied(laptop.credentials()[0], 3)
	const standsStill = "a passkey's counter stands still"
	if strings.Contains(s.log.String(), standsStill) {
		t.Error("a counter stands still before there is a copy")
	}
	phone.login()
	s.waitLog(1, standsStill)
	laptop.login()
	phone.login()
	s.waitLog(2, standsStill)

	laptop.waits("/login?next=account/passkeys")
	laptop.b.load(200, laptop.touch())
	laptop.b.removePasskey()
	phone.refused()
	laptop.b.open(200, public+"/logout")
	laptop.b.click(200, "button")
	laptop.refused()
}

// replaceMACKey has the server use another MAC key, and no longer accept the one before.
func (s *site) replaceMACKey() {
	s.tb.Helper()
	flags := []string{"--master-key-file=" + s.masterKey(), "--jwks-max-age=1s"}
	active := func() string {
		s.tb.Helper()
		var keys []struct{ ID, Purpose, State string }
		if err := json.Unmarshal([]byte(s.mustCommand("", append([]string{"key", "list", "--json"}, flags...)...)), &keys); err != nil {
			s.tb.Fatal(err)
		}
		for _, k := range keys {
			if k.Purpose == string(token.MAC) && k.State == "active" {
				return k.ID
			}
		}
		s.tb.Fatalf("no MAC key is used: %v", keys)
		return ""
	}
	before := active()
	s.mustCommand("", append([]string{"key", "rotate", "--purpose=mac"}, flags...)...)
	for active() == before {
		pass(s.tb.Context(), 100*time.Millisecond)
	}
	s.mustCommand("", append([]string{"key", "revoke", before}, flags...)...)
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
