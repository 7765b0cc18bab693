package web_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/auth"
)

// TestRecoverTellsNothing: every address has the same answer.
func TestRecoverTellsNothing(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s = s.listen()
		s.user("ann@example.org", good)
		s.user("revoked@example.org", good)
		s.revoke("revoked@example.org")
		var first answer
		for i, email := range []string{
			"ann@example.org", "ann@example.org", "ANN@example.org", "nobody@example.org", "nobody@example.org", "revoked@example.org", "malformed", " ",
			"ann@example.org\x00", "ann@example.org, bob@example.org", strings.Repeat("a", 10<<10) + "@example.org", "ann@example.org",
		} {
			for _, post := range []func(endpoint, bearer string, fields ...string) answer{s.post, s.postMultipart} {
				a := post("recover", "", "email", email)
				a.Header.Del("Date")
				if i == 0 {
					first = a
				}
				a.done(t, fmt.Sprintf("%.99q", email))
				if diff := cmp.Diff(first, a); diff != "" {
					t.Errorf("%.99q is answered otherwise:\n%s", email, diff)
				}
			}
		}
		s.post("recover", "").problem(t, 422, "email")
		s.post("recover", "", "email", "").problem(t, 422, "email")
	})
}

// TestRecoverMailsTheAccountAlone: one mail, to the stored address, with a link
// that the request has no part in.
func TestRecoverMailsTheAccountAlone(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("Ann@example.org", good)
		s.user("revoked@example.org", good)
		s.revoke("revoked@example.org")
		for _, email := range []string{"revoked@example.org", "nobody@example.org", "malformed", "ann@example.org, eve@example.org", "\u0430nn@example.org"} {
			if a := s.post("recover", "", "email", email); a.Status != 200 {
				t.Error(a)
			}
		}
		r := s.request("POST", "/api/v1/auth/recover?email=eve@example.org", strings.NewReader(encodeURL("email", "aNN@EXAMPLE.org")))
		r.Host = "evil.example"
		r.Header = http.Header{"Content-Type": {urlencoded}, "X-Forwarded-Host": {"evil.example"}, "Forwarded": {"host=evil.example"}, "Origin": {"https://evil.example"}}
		if a := s.do(r); a.Status != 200 {
			t.Fatal(a)
		}
		m := s.sent(1)[0]
		uuid := regexp.MustCompile(`^` + regexp.QuoteMeta(publicURL) + `/reset\?uuid=[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
		same(t, "to whom the mail goes", m.To, "Ann@example.org")
		if !uuid.MatchString(m.RecoveryLink()) {
			t.Errorf("the link is %q", m.RecoveryLink())
		}
		if strings.Contains(string(m.Raw), "evil") {
			t.Errorf("the mail has something of the request:\n%s", m.Raw)
		}
	})
}

func TestReset(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		in, bob := s.login("ann@example.org"), s.login("bob@example.org")
		replaced := s.recovery("ann@example.org")
		id := s.recovery("ann@example.org")
		const chosen = "quite another one"

		// The id comes first, whatever the password; only its one spelling counts.
		for what, wrong := range map[string]string{
			"replaced": replaced, "unknown": "00000000-0000-4000-8000-000000000000", "malformed": "x", "upper case": strings.ToUpper(id),
			"braces": "{" + id + "}", "a URN": "urn:uuid:" + id, "no hyphens": strings.ReplaceAll(id, "-", ""), "a space": id + " ", "a line break": id + "\n",
			"a NUL": id + "\x00", "a letter less": id[1:], "full width": strings.Replace(id, "-", "－", 1), "a wildcard": "%", "10 KiB": strings.Repeat(id, 300),
		} {
			for _, password := range []string{chosen, "short"} {
				if detail := s.post("reset", "", "uuid", wrong, "password", password).problem(t, 404); detail != "The unique id is not valid (any more). Ask for a new one." {
					t.Errorf("%s: %s", what, detail)
				}
			}
		}
		// Each broken rule is named, and nothing is used up.
		for rule, password := range map[string]string{
			"too short": "1234567", "too long": strings.Repeat("x", 1025), "can't be typed": "a line\nbreak", "most used": "password123",
			"only of your name": "ann.example.org!", "8 characters": "e\u0301e\u0301e\u0301e\u0301",
		} {
			if detail := s.post("reset", "", "uuid", id, "password", password).problem(t, 422, "password"); !strings.Contains(detail, rule) {
				t.Errorf("%q: %s, want it to say %q", password, detail, rule)
			}
		}
		if a := s.get(userPath, in.field("access_token")); a.Status != 200 {
			t.Errorf("the session after refused resets: %v", a)
		}

		s.revoke("ann@example.org")
		s.post("reset", "", "uuid", id, "password", chosen).problem(t, 403)
		s.post("reset", "", "uuid", id, "password", "short").problem(t, 403)
		s.reinstate("ann@example.org")
		in = s.login("ann@example.org")

		s.sent(2)
		s.post("reset", "", "uuid", id, "password", chosen).done(t, "a reset")
		s.post("reset", "", "uuid", id, "password", "yet another one").problem(t, 404)
		s.post("login", "", "username", "ann@example.org", "password", good).problem(t, 401)
		s.get(userPath, in.field("access_token")).notLoggedIn(t, "a session before the reset")
		s.post("access_token", "", "refresh_token", in.field("refresh_token")).problem(t, 401)
		if a := s.get(userPath, bob.field("access_token")); a.Status != 200 {
			t.Errorf("another user's session: %v", a)
		}
		if a := s.post("login", "", "username", "ann@example.org", "password", chosen); a.Status != 200 {
			t.Errorf("with the new password: %v", a)
		}
		notice := s.sent(3)[2]
		same(t, "to whom the notice goes", notice.To, "ann@example.org")
		same(t, "the recovery's id in it", notice.RecoveryID(), "")
		contains(t, "its subject", notice.Subject, "was changed")
		if strings.Contains(string(notice.Raw), chosen) {
			t.Errorf("it has the password:\n%s", notice.Raw)
		}
		// The next recovery has another id.
		if again := s.recovery("ann@example.org"); again == id {
			t.Error("an id came twice")
		}
	}, noMailPause)
}

// TestInvitation: an account without a password chooses one by its mail.
func TestInvitation(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.create(auth.NewUser{Email: "ann@example.org", FirstName: "Ann", LastName: "Other"})
		invitation := s.sent(1)[0]
		same(t, "to whom the invitation goes", invitation.To, "ann@example.org")
		same(t, "its subject", invitation.Subject, "Your account at auth.example.org")
		s.post("login", "", "username", "ann@example.org", "password", good).problem(t, 401)
		s.postMultipart("reset", "", "uuid", invitation.RecoveryID(), "password", good).done(t, "the link in the invitation")
		s.login("ann@example.org")
	})
}

// The first password is no change, on the pages and in the mail.
func TestTheFirstPasswordOnThePages(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.create(auth.NewUser{Email: "ann@example.org"})
		id := s.sent(1)[0].RecoveryID()
		for _, p := range []answer{s.get("/reset?uuid="+id, ""), s.submit("/reset", "uuid", id, "password", "short")} {
			contains(t, "the page", string(p.Body), ">Choose a password</h1>")
			if strings.Contains(string(p.Body), "logged out everywhere") {
				t.Errorf("the page speaks of sessions: %s", p.Body)
			}
		}
		done := s.leadsTo("done", s.submit("/reset", "uuid", id, "password", good))
		if !slices.Contains(done.links, "login") {
			t.Errorf("the links are %q", done.links)
		}
		notice := s.sent(2)[1]
		same(t, "the notice", notice.Subject, "Your account at auth.example.org has a password")
		contains(t, "the notice", notice.Text, publicURL+"/login")
		id = s.recovery("ann@example.org")
		contains(t, "the page for the next one", string(s.get("/reset?uuid="+id, "").Body), ">Choose a new password</h1>")
	}, noMailPause)
}
