package main

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/mail/mailtest"
)

// wait returns the mails once there are n.
func wait(t testing.TB, mails *mailtest.Server, n int) []mailtest.Mail {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all, err := mails.Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// recovery asks for a mail and returns the unique id in it.
func (s *site) recovery(mails *mailtest.Server, email string) string {
	s.tb.Helper()
	n := len(mails.Mails())
	if a := s.post("recover", "", "email", email); a.Status != 200 {
		s.tb.Fatal(a)
	}
	id := wait(s.tb, mails, n+1)[n].RecoveryID()
	if id == "" {
		s.tb.Fatalf("the mail has no unique id: %s", mails.Mails()[n].Text)
	}
	return id
}

// TestRecoverTellsNothing: every address has the same answer.
func TestRecoverTellsNothing(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("revoked@example.org", good)
		s.mustCommand("", "user", "revoke", "revoked@example.org")
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
				if diff := cmp.Diff(first, a); diff != "" || a.Status != 200 || string(a.Body) != "{}\n" {
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
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.user("Ann@example.org", good)
		s.user("revoked@example.org", good)
		s.mustCommand("", "user", "revoke", "revoked@example.org")
		for _, email := range []string{"revoked@example.org", "nobody@example.org", "malformed", "ann@example.org, eve@example.org", "\u0430nn@example.org"} {
			if a := s.post("recover", "", "email", email); a.Status != 200 {
				t.Error(a)
			}
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/auth/recover?email=eve@example.org", strings.NewReader(encodeURL("email", "aNN@EXAMPLE.org")))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example"
		r.Header = http.Header{"Content-Type": {urlencoded}, "X-Forwarded-Host": {"evil.example"}, "Forwarded": {"host=evil.example"}, "Origin": {"https://evil.example"}}
		if a := s.do(r); a.Status != 200 {
			t.Fatal(a)
		}
		m := wait(t, mails, 1)[0]
		uuid := regexp.MustCompile(`^` + regexp.QuoteMeta(publicURL) + `/reset\?uuid=[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
		if m.To != "Ann@example.org" || !uuid.MatchString(m.RecoveryLink()) || strings.Contains(string(m.Raw), "evil") {
			t.Errorf("got a mail to %s:\n%s", m.To, m.Raw)
		}
		// Shutting down sends all that waits.
		if code := s.close(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if all := mails.Mails(); len(all) != 1 {
			t.Errorf("%d mails, the last to %s", len(all), all[len(all)-1].To)
		}
	})
}

func TestReset(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		in, bob := s.login("ann@example.org"), s.login("bob@example.org")
		replaced := s.recovery(mails, "ann@example.org")
		id := s.recovery(mails, "ann@example.org")
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
		// Each rule is told, and uses nothing up.
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

		s.mustCommand("", "user", "revoke", "ann@example.org")
		s.post("reset", "", "uuid", id, "password", chosen).problem(t, 403)
		s.post("reset", "", "uuid", id, "password", "short").problem(t, 403)
		s.mustCommand("", "user", "enact", "ann@example.org")
		in = s.login("ann@example.org")

		sent := len(mails.Mails())
		if a := s.post("reset", "", "uuid", id, "password", chosen); a.Status != 200 || string(a.Body) != "{}\n" {
			t.Fatal(a)
		}
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
		notice := wait(t, mails, sent+1)[sent]
		if notice.To != "ann@example.org" || notice.RecoveryID() != "" || !strings.Contains(notice.Subject, "was changed") || strings.Contains(string(notice.Raw), chosen) {
			t.Errorf("the notice:\n%s", notice.Raw)
		}
		// The next recovery has another id.
		if again := s.recovery(mails, "ann@example.org"); again == id {
			t.Error("an id came twice")
		}
	}, "--limit-mail-pause=0s")
}

// TestInvitation: an account without a password chooses one by its mail.
func TestInvitation(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.mustCommand("", "user", "create", "ann@example.org")
		id := wait(t, mails, 1)[0].RecoveryID()
		if a := s.postMultipart("reset", "", "uuid", id, "password", good); a.Status != 200 {
			t.Fatal(a)
		}
		s.login("ann@example.org")
	})
}
