package web_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/passkeytest"
)

func newKey() *passkeytest.Key { return passkeytest.New(publicURL, "auth.example.org") }

// addPasskey makes a passkey on the page.
func (b *browser) addPasskey(name string) *passkeytest.Key {
	b.t.Helper()
	key := newKey()
	b.goes("adding a passkey", b.send("/account/passkeys", "/account/passkeys", "name", name, "passkey", string(key.Register(b.passkeyOptions()))), "../account/passkeys?done=passkey-added")
	return key
}

func (b *browser) passkeyOptions() []byte {
	b.t.Helper()
	a := b.send("/account/passkeys", "/account/passkeys/options")
	if a.Status != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
		b.t.Fatal(a)
	}
	return a.Body
}

// assert has a key answer a new challenge.
func (b *browser) assert(key *passkeytest.Key) string {
	b.t.Helper()
	return string(key.Assert(b.get("/login/passkey/options").Body))
}

func (b *browser) byPasskey(key *passkeytest.Key, fields ...string) answer {
	b.t.Helper()
	return b.do(http.MethodPost, "/login/passkey", append(fields, "passkey", b.assert(key))...)
}

func TestPasskeysOnPages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		ann := s.browser(t).login("ann@example.org", good)
		ann.shows("/account/passkeys", "You have no passkey yet", `data-passkeys="auth.example.org"`)
		key := ann.addPasskey("My <phone>")
		ann.shows("/account/security", "Passkeys that you have: 1", "With a passkey you log in without a password")
		page := ann.shows("/account/passkeys?done=passkey-added", "The passkey is added", "My &lt;phone&gt;", "Not used yet", `href="../account/security"`)
		id := regexp.MustCompile(`href="../account/passkeys/remove\?id=([\w-]+)"`).FindStringSubmatch(page)[1]

		// Anybody may log in by it, and goes on as with a password.
		b := s.browser(t)
		b.goes("the login", b.byPasskey(key, "next", "account/profile"), "../account/profile")
		b.shows("/account/passkeys", "Last used") // it is fresh
		b.shows("/account/activity", "You logged in with a passkey")
		b.goes("the login, to nowhere of ours", s.browser(t).byPasskey(key, "next", "https://evil.example"), "../account")

		// A fresh proof.
		s.clock.advance(time.Hour)
		b.goes("the page", b.get("/account/passkeys"), "../login?prompt=login&next=account%2Fpasskeys")
		b.shows("/login?prompt=login&next=account/passkeys", `name="prove"`, "Use a passkey")
		b.goes("the proof", b.byPasskey(key, "prove", "1", "next", "account/passkeys"), "../account/passkeys")
		b.shows("/account/passkeys")

		b.goes("another name", b.send("/account/passkeys", "/account/passkeys", "name", "Telephone", "rename", id), "../account/passkeys?done=passkey-renamed")
		b.shows("/account/passkeys?done=passkey-renamed", "Telephone", "has its new name")
		for _, name := range []string{"a\u202eb", "", strings.Repeat("x", 300)} {
			a := b.send("/account/passkeys", "/account/passkeys", "name", name, "rename", id)
			same(t, "a wrong name", a.Status, http.StatusUnprocessableEntity)
			contains(t, "the page", string(a.Body), `id="name-0-error"`)
			contains(t, "the page", string(a.Body), `<strong><bdi>Telephone</bdi></strong>`)
			contains(t, "the page", string(a.Body), `value="`+name+`"`)
		}
		a := b.send("/account/passkeys", "/account/passkeys", "name", "x", "passkey", "{}")
		same(t, "nonsense", a.Status, http.StatusUnprocessableEntity)
		contains(t, "the page", string(a.Body), "No passkey was made")
		a = b.send("/account/passkeys", "/account/passkeys", "name", "x", "passkey", string(key.Register(b.passkeyOptions())))
		same(t, "the same again", a.Status, http.StatusConflict)
		contains(t, "the page", string(a.Body), "has a passkey for your account already")

		a = b.send("/account/passkeys", "/account/passkeys", "remove", id)
		same(t, "a removal that wasn't asked about", a.Status, http.StatusUnprocessableEntity)
		asks := "/account/passkeys/remove?id=" + id
		b.shows(asks, "<bdi>Telephone</bdi>", `value="`+id+`"`)
		b.goes("asking about none", b.get("/account/passkeys/remove?id=x"), "../../account/passkeys")
		b.goes("removing none", b.send(asks, "/account/passkeys/remove", "id", "x"), "../../account/passkeys")
		b.goes("the removal", b.send(asks, "/account/passkeys/remove", "id", id), "../../account/passkeys?done=passkey-removed")
		b.shows("/account/passkeys?done=passkey-removed", "The passkey is removed", "You have no passkey yet")
		a = s.browser(t).byPasskey(key, "next", "account/profile")
		same(t, "a login by a removed one", a.Status, http.StatusUnauthorized)
		contains(t, "the page", string(a.Body), "was not accepted")
		contains(t, "the page", string(a.Body), `name="next" value="account/profile"`)
	})
}

// Refusals look alike, set no cookie and leave a visitor logged in.
func TestRefusedPasskeysOnPages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		key := s.browser(t).login("ann@example.org", good).addPasskey("x")
		bob := s.browser(t).login("bob@example.org", good)
		used := bob.assert(key)
		s.browser(t).goes("the login", s.browser(t).do(http.MethodPost, "/login/passkey", "passkey", used), "../account")
		unknown := newKey()
		unknown.UserHandle = key.UserHandle
		want := ""
		for what, answer := range map[string]string{
			"a replay": used, "an unknown key": bob.assert(unknown), "nonsense": "{}", "nothing": "", "much": strings.Repeat("x", 40<<10),
		} {
			a := bob.do(http.MethodPost, "/login/passkey", "passkey", answer)
			same(t, what, a.Status, http.StatusUnauthorized)
			same(t, what+": Set-Cookie", a.Header.Get("Set-Cookie"), "")
			if page := string(a.Body); want == "" {
				want = page
			} else {
				same(t, what+": the page", page, want)
			}
		}
		same(t, "100 KiB", bob.do(http.MethodPost, "/login/passkey", "passkey", strings.Repeat("x", 100<<10)).Status, http.StatusRequestEntityTooLarge)
		a := bob.byPasskey(key, "prove", "1")
		same(t, "a proof by another user's", a.Status, http.StatusUnauthorized)
		bob.shows("/account", "bob@example.org")
		// Another login in the same browser ends the session before.
		before := bob.cookies["__Host-kwai"]
		bob.goes("another login", bob.byPasskey(key), "../account")
		bob.shows("/account", "ann@example.org")
		bob.cookies["__Host-kwai"] = before
		bob.goes("the session before", bob.get("/account"), "login?next=account")
	})
}

// The page's form is as fresh as the page, and so are its options.
func TestPasskeysNeedAFreshProof(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		ann, bob := s.browser(t).login("ann@example.org", good), s.browser(t)
		s.user("bob@example.org", good)
		bob.login("bob@example.org", good)
		seal := sealOf.FindStringSubmatch(ann.shows("/account/passkeys"))[1]
		s.clock.advance(14 * time.Minute)
		a := ann.do(http.MethodPost, "/account/passkeys/options", "form", seal)
		same(t, "the options after 14 minutes", a.Status, http.StatusOK)
		ann.goes("adding it", ann.do(http.MethodPost, "/account/passkeys", "form", seal, "name", "x", "passkey", string(newKey().Register(a.Body))), "../account/passkeys?done=passkey-added")
		s.clock.advance(12 * time.Minute)
		ann.goes("the options after 26 minutes", ann.do(http.MethodPost, "/account/passkeys/options", "form", seal), "../../login?next=account%2Fpasskeys%2Foptions")
		ann.goes("adding one after 26 minutes", ann.do(http.MethodPost, "/account/passkeys", "name", "x", "passkey", "{}", "form", seal), "../login?prompt=login&next=account%2Fpasskeys")
		const remove = "/account/passkeys/remove"
		ann.goes("removing one after 26 minutes", ann.do(http.MethodPost, remove, "id", "x", "form", seal), "../../login?prompt=login&next=account%2Fpasskeys%2Fremove")
		ann.goes("asking about that", ann.get(remove+"?id=x"), "../../login?prompt=login&next=account%2Fpasskeys%2Fremove")
		bob.goes("another user's form", bob.do(http.MethodPost, remove, "form", seal, "id", "x"), "../../account/passkeys/remove")
	})
}

// At an address there is nothing of passkeys but the list.
func TestPagesWithoutPasskeys(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		ann := s.browser(t).login("ann@example.org", good)
		ann.addPasskey("Telephone")
		for _, host := range []string{"192.0.2.1", "[2001:db8::1]:8443", "login.example.org"} {
			s.web.PublicURL = &url.URL{Scheme: "https", Host: host}
			s.rules.Settings.Issuer = s.web.PublicURL.String()
			possible := host == "login.example.org"
			page := ann.shows("/account/passkeys", "Telephone", "It is for auth.example.org")
			for what, body := range map[string]string{"the list": page, "the login": s.browser(t).shows("/login")} {
				same(t, what+" at "+host+" offers passkeys", strings.Contains(body, "<script") || strings.Contains(body, "data-passkeys"), possible)
			}
			if status := s.browser(t).get("/login/passkey/options").Status; (status == http.StatusOK) != possible {
				t.Errorf("at %s the options answer %d", host, status)
			}
		}
	})
}

// Where a group requires two steps and there is a passkey alone, the password leads to the
// passkey: who knows the password must not set an app up.
func TestAPasswordThatNeedsAPasskey(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps().user("ann@example.org", good)
		key := s.browser(t).login("ann@example.org", good).addPasskey("Phone")
		s.required("ann@example.org")
		b := s.browser(t)
		a := b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good, "next", "account/profile")
		b.goes("the password", a, "login?prompt=select_account&notice=passkey&next=account%2Fprofile")
		const noScript = "<noscript>Passkeys need JavaScript"
		b.shows("/login?prompt=select_account&notice=passkey&next=account/profile", "log in with your passkey", noScript, `value="account/profile"`)
		if strings.Contains(b.shows("/login?notice=over"), noScript) {
			t.Error("a login that needs no passkey asks for JavaScript")
		}
		api := s.post("login", "", "username", "ann@example.org", "password", good)
		same(t, "the API's status", api.Status, http.StatusUnauthorized)
		same(t, "the API's type", api.field("type"), "urn:kwai:enrolment")
		same(t, "the API's detail", api.field("detail"), "Your account needs more than the password. Log in with your passkey at "+publicURL+"/login.")
		same(t, "the status of the account", b.get("/account").Status, http.StatusSeeOther)
		b.goes("the passkey", b.byPasskey(key, "next", "account/profile"), "../account/profile")

		s.clock.advance(time.Hour)
		a = b.do(http.MethodPost, "/login", "prove", "1", "password", good, "next", "account/security/app")
		b.goes("the password as a proof", a, "login?prompt=login&notice=passkey&next=account%2Fsecurity%2Fapp")
		b.goes("the passkey as a proof", b.byPasskey(key, "prove", "1", "next", "account/security/app"), "../account/security/app")
		phone := b.enrol()
		out := s.browser(t)
		out.goes("a code", out.takes(out.password("login/code"), "code", phone.code()), "../account")
	})
}
