package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
)

// Names under which a browser reaches a site. To one that is not on loopback
// and speaks plain HTTP it tells less about where a form comes from.
const (
	loopbackName = "127.0.0.1"
	publicName   = "auth.example.org"
)

func TestInBrowser(t *testing.T) {
	t.Parallel()
	need.Time(t)
	browser := startBrowser(t)
	for _, tt := range []struct {
		promise, host string
		test          func(t *testing.T, b *tab, s *site, m *mailtest.Server)
	}{
		{"a forgotten password is replaced", loopbackName, recoverByMouse},
		{"a forgotten password is replaced by keyboard alone, over plain HTTP", publicName, recoverByKeyboard},
		{"a revoked user sees why there is no new password", publicName, meetRevocation},
		{"forms of another site are refused", loopbackName, postFromElsewhere},
		{"forms of another site are refused over plain HTTP", publicName, postFromElsewhere},
	} {
		t.Run(tt.promise, func(t *testing.T) {
			each(t, func(t *testing.T, k cluster.Kwai) {
				m := mailtest.Serve(t)
				s, public := startBehind(t, tt.host, "", k, "--smtp="+m.URL())
				s.user("ann@example.org", "the old password")
				tt.test(t, openTab(t, browser, public), s, m)
			})
		})
	}
}

// What the pages show to assistive technology.
const (
	emailField   = `textbox "E-mail address"`
	sendButton   = `button "Send the link"`
	backToLogin  = `link "Back to the login"`
	passwordHint = "At least 8 characters, any you like, spaces too. A few words that nobody would guess are better than one word with signs in it. Passwords that many people use are refused."
	saveButton   = `button "Save the password"`
	idHint       = "It is in the mail that we sent you: 36 letters, digits and hyphens."
	noAddress    = "Error: Type an e-mail address, such as name@example.org."
	tooCommon    = "Error: The password is one of the most used ones and would soon be guessed: choose another one."
	tooShort     = "Error: The password is too short: use at least 8 characters."
	noID         = "Error: This is not a unique id from one of our mails. Copy it from the mail."
)

var sentPage = []string{
	`heading "Look into your mail"`, `heading "No mail?"`, `link "Ask for another mail"`,
	`heading "The link can’t be opened?"`, `link "Type the unique id"`,
}

func recoverByMouse(t *testing.T, b *tab, s *site, m *mailtest.Server) {
	b.open(200, b.home+"/recover")
	b.sees("recover", `heading "Forgotten password"`, emailField, sendButton, backToLogin)

	b.typeInto("email", "ann at example.org")
	b.click(422, "button")
	b.sees("recover-error", `heading "Forgotten password"`, `alert "`+noAddress+`"`, emailField+` (`+noAddress+`) invalid`, sendButton, backToLogin)
	b.hasFocus("email")

	b.typeInto("email", "ann@example.org")
	b.click(200, "button")
	b.sees("sent", sentPage...)

	link := waitMails(t, m, 1)[0].RecoveryLink()
	b.open(200, link)
	b.sees("reset", `heading "Choose a new password"`, `textbox "New password" (`+passwordHint+`)`, saveButton)

	b.typeInto("password", "password1")
	b.click(422, "button")
	b.sees("reset-error", `heading "Choose a new password"`, `alert "`+tooCommon+`"`,
		`textbox "New password" (`+tooCommon+` `+passwordHint+`) invalid`, saveButton)
	b.hasFocus("password")

	b.typeInto("password", "a tatami by the sea")
	b.click(200, "button")
	b.sees("done", `heading "Your password is saved"`, `link "Log in"`)
	s.checkPassword(t, "a tatami by the sea")

	b.load(200, chromedp.Reload()) // sends no form again
	b.sees("", `heading "Your password is saved"`, `link "Log in"`)
	b.open(404, link)
	b.sees("used", `heading "This link has done its work"`, `link "Log in"`, `link "Ask for a new link"`)
	b.open(404, b.home+"/reset?uuid=00000000-0000-4000-8000-000000000000")
	b.sees("invalid", `heading "This link is no longer valid"`, `link "Ask for a new link"`, `link "Type it once more"`)
	b.click(200, `a[href="recover"]`)
	b.sees("", `heading "Forgotten password"`, emailField, sendButton, backToLogin)
}

// recoverByKeyboard also types the unique id instead of opening the link.
func recoverByKeyboard(t *testing.T, b *tab, s *site, m *mailtest.Server) {
	b.open(200, b.home+"/recover")
	b.press(kb.Tab)
	b.hasFocus("email")
	b.press("ann@example.org")
	b.submit(200, kb.Enter)
	b.sees("", sentPage...)

	id := waitMails(t, m, 1)[0].RecoveryID()
	b.press(kb.Tab + kb.Tab)
	b.submit(200, kb.Enter)
	b.sees("reset-by-id", `heading "Choose a new password"`, `textbox "Unique id" (`+idHint+`)`,
		`textbox "New password" (`+passwordHint+`)`, saveButton)
	b.press(kb.Tab)
	b.hasFocus("uuid")
	b.press("not the id" + kb.Tab)
	b.hasFocus("password")
	b.press("a tatami by the sea" + kb.Tab)
	b.submit(404, kb.Enter)
	b.sees("reset-wrong-id", `heading "Choose a new password"`, `alert "`+noID+`"`, `textbox "Unique id" (`+noID+` `+idHint+`) invalid`,
		`textbox "New password" (`+passwordHint+`)`, saveButton)
	b.hasFocus("uuid")

	b.typeInto("uuid", id)
	b.press(kb.Tab + "short")
	b.submit(422, kb.Enter)
	b.sees("", `heading "Choose a new password"`, `alert "`+tooShort+`"`,
		`textbox "New password" (`+tooShort+` `+passwordHint+`) invalid`, saveButton)
	b.hasFocus("password")
	b.press("a tatami by the sea")
	b.submit(200, kb.Enter)
	b.sees("", `heading "Your password is saved"`, `link "Log in"`)
	s.checkPassword(t, "a tatami by the sea")
}

func meetRevocation(t *testing.T, b *tab, s *site, m *mailtest.Server) {
	s.post("recover", "", "email", "ann@example.org")
	link := waitMails(t, m, 1)[0].RecoveryLink()
	s.mustCommand("", "user", "revoke", "ann@example.org")
	b.open(403, link)
	b.sees("revoked", `heading "This account is blocked"`)
}

func postFromElsewhere(t *testing.T, b *tab, _ *site, _ *mailtest.Server) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<link rel="icon" href="data:,"><form method="post" action="%s/recover"><input name="email" value="ann@example.org"><button>Win!</button></form>`, b.home)
	}))
	t.Cleanup(elsewhere.Close)
	b.open(200, elsewhere.URL+"/")
	b.click(403, "button")
	b.sees("elsewhere", `heading "Not allowed"`, `link "Your account"`)
}

// checkPassword says whether this is ann's password and the old one is not.
func (s *site) checkPassword(t *testing.T, password string) {
	t.Helper()
	s.post("login", "", "username", "ann@example.org", "password", password).wants(t, 200, "login with the new password")
	s.post("login", "", "username", "ann@example.org", "password", "the old password").wants(t, 401, "login with the old password")
}

// startBehind starts a server behind a reverse proxy that browsers reach under a
// host name, at a path that it strips, and returns its public URL too.
func startBehind(t *testing.T, host, prefix string, k cluster.Kwai, flags ...string) (s *site, public string) {
	t.Helper()
	return startBehindProxy(t, host, prefix, k, nil, flags...)
}

// startBehindProxy is startBehind with a proxy that does something with each answer.
func startBehindProxy(t *testing.T, host, prefix string, k cluster.Kwai, answered func(*http.Response) error, flags ...string) (s *site, public string) {
	t.Helper()
	inside := make(chan *url.URL, 1)
	proxy := httptest.NewServer(http.StripPrefix(prefix, &httputil.ReverseProxy{ModifyResponse: answered, Rewrite: func(r *httputil.ProxyRequest) {
		u := <-inside
		inside <- u
		r.SetURL(u)
		r.Out.Host = r.In.Host
	}}))
	t.Cleanup(proxy.Close)
	public = strings.Replace(proxy.URL, loopbackName, host, 1) + prefix
	s = start(t, k, append(flags, "--public-url="+public)...)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	inside <- u
	return s, public
}
