package test

import (
	"encoding/base32"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/passkeytest"
	"kwai/internal/testing/totp"
)

// jar are the cookies of a browser, by their names. Those of a server at https go over
// http here.
type jar map[string]string

// visit asks for a page as the browser does. A form without fields is a GET.
func (s *site) visit(t *testing.T, browser jar, status int, path string, fields ...string) answer {
	t.Helper()
	header := http.Header{}
	for name, value := range browser {
		header.Add("Cookie", name+"="+value)
	}
	a, err := requestWith(t.Context(), s.via, s.URL+path, header, form(fields...))
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != status {
		t.Fatalf("%s: %v, want %d", path, a, status)
	}
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		browser[c.Name] = c.Value
	}
	return a
}

// macOf adds what a text that the server vouches for ends with, and all of the text.
func (s secrets) macOf(t *testing.T, what, text string) {
	t.Helper()
	mac := decode(t, text[strings.LastIndexByte(text, '.')+1:])
	if len(mac) < 16 {
		t.Fatalf("%s has no MAC: %s", what, text)
	}
	s[what] = []byte(text)
	s.key(what+": its MAC", mac[len(mac)-16:])
}

var (
	secretIn = regexp.MustCompile(`<span class="code">([A-Z2-7 ]+)</span>`)
	codeIn   = regexp.MustCompile(`<li class="code">([A-Z2-7-]+)</li>`)
	offerIn  = regexp.MustCompile(`name="offer" value="([^"]+)"`)
)

// useFactors has an account with a password do all that there is with factors, adds what
// is secret of it, and returns recovery codes that are left.
func (s *site) useFactors(t *testing.T, hidden secrets, email, password string) []string {
	t.Helper()
	in := jar{}
	s.visit(t, in, http.StatusSeeOther, "/login", "username", email, "password", password)
	hidden.macOf(t, "a browser's cookie", in["__Host-kwai"])
	key := s.usePasskey(t, hidden, in)

	page := s.visit(t, in, http.StatusOK, "/account/security/app")
	secret, offer := string(secretIn.FindSubmatch(page.Body)[1]), string(offerIn.FindSubmatch(page.Body)[1])
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(secret, " ", ""))
	if err != nil || len(raw) != 20 {
		t.Fatalf("the authenticator app's secret is %q: %v", secret, err)
	}
	hidden.key("an authenticator app's secret", raw)
	hidden.text("an authenticator app's secret, as text", strings.ReplaceAll(secret, " ", ""))
	hidden.text("an authenticator app's secret, as it is shown", secret)
	hidden["an offer"] = []byte(html.UnescapeString(offer))
	var codes []string
	for _, m := range codeIn.FindAllSubmatch(page.Body, -1) {
		code := string(m[1])
		hidden.text("a recovery code "+code[:5], code)
		hidden.text("a recovery code without dashes "+code[:5], strings.ReplaceAll(code, "-", ""))
		codes = append(codes, code)
	}
	if len(codes) != 10 {
		t.Fatalf("%d recovery codes are shown", len(codes))
	}
	enrolment := []string{"form", page.seal(), "offer", html.UnescapeString(offer), "kept", "1"}
	s.visit(t, in, http.StatusUnprocessableEntity, "/account/security/app", append(enrolment, "code", "")...)
	s.visit(t, in, http.StatusSeeOther, "/account/security/app", append(enrolment, "code", totp.Code(secret, time.Now()))...)
	hidden.macOf(t, "a browser's cookie, raised", in["__Host-kwai"])

	other := jar{}
	login := s.halfLogin(t, hidden, other, email, password)
	s.visit(t, other, http.StatusUnauthorized, "/login/code", "login", login, "code", codes[0][6:]+codes[1][23:])
	s.visit(t, other, http.StatusSeeOther, "/login/code", "login", login, "code", totp.Code(secret, time.Now().Add(30*time.Second)))
	half := s.post("login", "", "username", email, "password", password).wants(t, http.StatusUnauthorized, "half a login")
	hidden.macOf(t, "an auth_session", half.field("auth_session"))
	hidden.tokens(t, "a login by a recovery code", s.post("login", "", "auth_session", half.field("auth_session"), "otp", codes[0]))
	s.halfLogin(t, hidden, jar{}, email, password) // and abandoned

	challenge := s.visit(t, jar{}, http.StatusOK, "/login/passkey/options")
	hidden.challenge(t, "a passkey's challenge", challenge)
	s.visit(t, jar{}, http.StatusSeeOther, "/login/passkey", "passkey", hidden.signature(t, key.Assert(challenge.Body)))
	hidden.challenge(t, "a challenge that nobody answers", s.visit(t, jar{}, http.StatusOK, "/login/passkey/options"))
	return codes[1:]
}

// usePasskey adds a passkey in the account of who is logged in.
func (s *site) usePasskey(t *testing.T, hidden secrets, in jar) *passkeytest.Key {
	t.Helper()
	page := s.visit(t, in, http.StatusOK, "/account/passkeys")
	hidden.macOf(t, "a form's seal", page.seal())
	options := s.visit(t, in, http.StatusOK, "/account/passkeys/options", "form", page.seal())
	hidden.challenge(t, "a passkey's first challenge", options)
	key := passkeytest.New(publicURL, strings.TrimPrefix(publicURL, "https://"))
	s.visit(t, in, http.StatusSeeOther, "/account/passkeys", "form", page.seal(), "name", "Phone", "passkey", string(key.Register(options.Body)))
	return key
}

// halfLogin is the login that waits behind a right password on the page.
func (s *site) halfLogin(t *testing.T, hidden secrets, browser jar, email, password string) string {
	t.Helper()
	s.visit(t, browser, http.StatusOK, "/login")
	a := s.visit(t, browser, http.StatusSeeOther, "/login", "username", email, "password", password)
	at, err := url.Parse(a.Header.Get("Location"))
	if err != nil || !strings.HasSuffix(at.Path, "login/code") {
		t.Fatalf("half a login leads to %v: %v", at, err)
	}
	hidden.macOf(t, "a login that waits", at.Query().Get("login"))
	hidden["the browser of a login that waits"] = []byte(browser["__Host-kwai-browser"])
	return at.Query().Get("login")
}

// challenge adds that of options.
func (s secrets) challenge(t *testing.T, what string, options answer) {
	t.Helper()
	var o struct{ PublicKey struct{ Challenge string } }
	if err := json.Unmarshal(options.Body, &o); err != nil {
		t.Fatal(err)
	}
	s.macOf(t, what, string(decode(t, o.PublicKey.Challenge)))
}

// signature adds that of a passkey's answer.
func (s secrets) signature(t *testing.T, answer []byte) string {
	t.Helper()
	var a struct{ Response struct{ Signature string } }
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatal(err)
	}
	s.key("a passkey's signature", decode(t, a.Response.Signature))
	return string(answer)
}
