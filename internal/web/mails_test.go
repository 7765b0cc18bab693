package web_test

import (
	"fmt"
	"maps"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
)

func TestNamesDoNotReachHeadersAndCarryNoAdvertisement(t *testing.T) {
	names := []struct{ first, last, greeting string }{
		{"Ann", "Other", "Hello Ann Other,"},
		{"Zoë", "d’Arc-Łęcka", "Hello Zoë d’Arc-Łęcka,"},
		{"嘉納", "治五郎", "Hello 嘉納 治五郎,"},
		{"", "", "Hello,"},
		{`Ann" <eve@example.net>, "`, "", "Hello,"},
		{"=?utf-8?q?Bcc=3A?=", "eve@example.net", "Hello,"},
		{"<b>Ann</b>", "&amp;", "Hello,"},
		{"You won! https://evil.example.net/", "", "Hello,"},
		{"evil.example.net", "", "Hello,"},
		{"{{.Code}}", "%s", "Hello,"},
	}
	withMail(t, func(t *testing.T, s *site) {
		for _, name := range []string{"Ann\r\nBcc: eve@example.net", "Ann\nOther", "Ann\x00", "Ann \u202egro.elpmaxe"} {
			if id, err := s.command.CreateUser(t.Context(), auth.NewUser{Email: "eve@example.org", FirstName: name, Password: good}); auth.CodeOf(err) != auth.Invalid || id != "" {
				t.Errorf("a user with the name %q was made: %q, %v", name, id, err)
			}
		}
		greetings := map[string]string{} // by address
		for i, n := range names {
			email := fmt.Sprintf("user%d@example.org", i)
			greetings[email] = n.greeting
			s.create(auth.NewUser{Email: email, FirstName: n.first, LastName: n.last, Password: good})
			s.post("recover", "", "email", email).done(t, "a recovery")
		}
		for _, mail := range s.sent(len(names)) {
			parsed, err := netmail.ReadMessage(strings.NewReader(string(mail.Raw)))
			if err != nil {
				t.Fatal(err)
			}
			h := parsed.Header
			if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, []string{"Auto-Submitted", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "X-Auto-Response-Suppress"}) {
				t.Errorf("to %s: headers %q", mail.To, got)
			}
			same(t, "To", h.Get("To"), "<"+mail.To+">")
			same(t, "Subject", h.Get("Subject"), "Choose a new password for auth.example.org")
			same(t, "From", h.Get("From"), "<noreply@auth.example.org>")
			greeting, _, _ := strings.Cut(mail.Text, "\n")
			same(t, "the greeting of "+mail.To, greeting, greetings[mail.To])
			delete(greetings, mail.To)
			link := publicURL + "/reset?uuid=" + mail.RecoveryID()
			for part, text := range map[string]string{"text": mail.Text, "HTML": mail.HTML} {
				what := "to " + mail.To + ": the " + part
				contains(t, what, text, link)
				same(t, what+": how often it has the unique id", strings.Count(text, mail.RecoveryID()), 2)
				if strings.Contains(text, "example.net") {
					t.Errorf("%s carries what stands in the name:\n%s", what, text)
				}
			}
		}
		if len(greetings) != 0 {
			t.Errorf("no mail came to %v", greetings)
		}
	})
}

func TestEachChangeOfAPasswordIsToldByMail(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.setPassword("ann@example.org", better)
		s.sent(1)
		s.post("recover", "", "email", "ann@example.org").done(t, "a recovery")
		s.post("reset", "", "uuid", s.sent(2)[1].RecoveryID(), "password", good).done(t, "a reset")
		mails := s.sent(3)
		for i, n := range []int{0, 2} {
			what := []string{"the operator's change", "the reset"}[i]
			same(t, what+": to whom the notice goes", mails[n].To, "ann@example.org")
			same(t, what+": its subject", mails[n].Subject, "Your password for auth.example.org was changed")
			same(t, what+": the recovery's id in it", mails[n].RecoveryID(), "")
		}
	})
}

func TestReplayEndsTheSessionAndIsToldByMail(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		stolen := s.login("ann@example.org").field("refresh_token")
		current := s.post("access_token", "", "refresh_token", stolen)
		if current.Status != 200 {
			t.Fatal(current)
		}
		// Within the reuse window it gets the current token, which prolongs nothing.
		for range 3 {
			s.clock.advance(15 * time.Second)
			a := s.post("access_token", "", "refresh_token", stolen)
			if a.Status != 200 || a.field("refresh_token") != current.field("refresh_token") {
				t.Fatalf("a replaced token got other tokens than the current one: %v", a)
			}
		}
		s.sent(0)
		s.clock.advance(75 * time.Second) // two windows since it was replaced
		s.post("access_token", "", "refresh_token", stolen).problem(t, 401)
		s.post("access_token", "", "refresh_token", current.field("refresh_token")).problem(t, 401)
		s.get(userPath, current.field("access_token")).problem(t, 401)
		notice := s.sent(1)[0]
		same(t, "to whom the notice goes", notice.To, "ann@example.org")
		same(t, "its subject", notice.Subject, "Your session at auth.example.org was used elsewhere")
		same(t, "the recovery's id in it", notice.RecoveryID(), "")
	})
}
