package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/mail"
	"kwai/internal/mail/mailtest"
)

func TestMailsAreOfTheConfiguredDomain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, flag, from, sender string }{
		{"by default", "--service-name=The Club", "<noreply@auth.example.org>", "noreply@auth.example.org"},
		{"as set", "--mail-from=The Club <office@club.example.org>", `"The Club" <office@club.example.org>`, "office@club.example.org"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
				s.user("ann@example.org", good)
				s.recover("ann@example.org")
				mail := waitMails(t, m, 1)[0]
				h := headersOf(t, mail)
				if h.Get("From") != tt.from || mail.From != tt.sender || !strings.HasSuffix(h.Get("Message-ID"), "@auth.example.org>") || mail.Helo != "auth.example.org" {
					t.Errorf("From %q (envelope: %q), Message-ID %q, EHLO %q", h.Get("From"), mail.From, h.Get("Message-ID"), mail.Helo)
				}
			}, tt.flag)
		})
	}
}

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
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		for _, name := range []string{"Ann\r\nBcc: eve@example.net", "Ann\nOther", "Ann\x00", "Ann \u202egro.elpmaxe"} {
			if out, _, code := s.command(good, "user", "create", "eve@example.org", "--first-name="+name, "--password-stdin"); code == 0 || out != "" {
				t.Errorf("a user with the name %q was made: %q", name, out)
			}
		}
		greetings := map[string]string{} // by address
		for i, n := range names {
			email := fmt.Sprintf("user%d@example.org", i)
			greetings[email] = n.greeting
			s.mustCommand(good, "user", "create", email, "--first-name="+n.first, "--last-name="+n.last, "--password-stdin")
			s.recover(email)
		}
		for _, mail := range waitMails(t, m, len(names)) {
			h := headersOf(t, mail)
			if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, []string{"Auto-Submitted", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To"}) {
				t.Errorf("to %s: headers %q", mail.To, got)
			}
			if h.Get("To") != "<"+mail.To+">" || h.Get("Subject") != "Choose a new password for auth.example.org" || h.Get("From") != "<noreply@auth.example.org>" {
				t.Errorf("to %s: headers %q", mail.To, h)
			}
			if greeting, _, _ := strings.Cut(mail.Text, "\n"); greeting != greetings[mail.To] {
				t.Errorf("to %s: the greeting is %q, want %q", mail.To, greeting, greetings[mail.To])
			}
			delete(greetings, mail.To)
			link := publicURL + "/reset?uuid=" + mail.RecoveryID()
			for part, text := range map[string]string{"text": mail.Text, "HTML": mail.HTML} {
				if !strings.Contains(text, link) || strings.Count(text, mail.RecoveryID()) != 2 {
					t.Errorf("to %s: the %s lacks the link or the unique id alone:\n%s", mail.To, part, text)
				}
				if strings.Contains(text, "example.net") {
					t.Errorf("to %s: the %s carries what stands in the name:\n%s", mail.To, part, text)
				}
			}
		}
		if len(greetings) != 0 {
			t.Errorf("no mail came to %v", greetings)
		}
	})
}

func TestWithoutAMailServerMailIsWrittenToFiles(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		folder := filepath.Join(strings.TrimPrefix(s.flags[0], "--data="), "mail")
		if !strings.Contains(s.log.String(), `"folder":"`+folder+`"`) {
			t.Errorf("the log doesn't tell the folder %s:\n%s", folder, s.log)
		}
		s.user("ann@example.org", good)
		s.recover("ann@example.org")
		s.log.wait(t, 1, "sent a mail")
		files, err := filepath.Glob(folder + "/*.eml")
		if err != nil || len(files) != 1 {
			t.Fatalf("in %s are %q, %v", folder, files, err)
		}
		info, err := os.Stat(files[0])
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%v, %v: want mode 0600", info, err)
		}
		f, err := os.Open(files[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := mail.Parse(f)
		if err != nil || m.To != "ann@example.org" {
			t.Fatalf("%+v, %v", m, err)
		}
		letter := mailtest.Mail{Text: m.Text}
		if a := s.post("reset", "", "uuid", letter.RecoveryID(), "password", "a tatami by the sea"); a.Status != http.StatusOK {
			t.Errorf("the link in the file: %v", a)
		}
	})
}

func TestInvitationLeadsToAPassword(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.mustCommand("", "user", "create", "ann@example.org", "--first-name=Ann", "--last-name=Other")
		invitation := waitMails(t, m, 1)[0]
		if invitation.To != "ann@example.org" || invitation.Subject != "Your account at auth.example.org" {
			t.Errorf("the invitation is %+v", invitation)
		}
		s.post("login", "", "username", "ann@example.org", "password", good).problem(t, 401)
		if a := s.post("reset", "", "uuid", invitation.RecoveryID(), "password", good); a.Status != http.StatusOK {
			t.Fatalf("the link in the invitation: %v", a)
		}
		s.login("ann@example.org")
	})
}

func TestEachChangeOfAPasswordIsToldByMail(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		s.mustCommand("a tatami by the sea", "user", "password", "ann@example.org", "--password-stdin")
		waitMails(t, m, 1)
		s.recover("ann@example.org")
		id := waitMails(t, m, 2)[1].RecoveryID()
		if a := s.post("reset", "", "uuid", id, "password", good); a.Status != http.StatusOK {
			t.Fatal(a)
		}
		waitMails(t, m, 3)
		s.endsWithNothingLeft()
		mails := m.Mails()
		if len(mails) != 3 {
			t.Fatalf("%d mails came, want 3", len(mails))
		}
		for _, n := range []mailtest.Mail{mails[0], mails[2]} {
			if n.To != "ann@example.org" || n.Subject != "Your password for auth.example.org was changed" || n.RecoveryID() != "" {
				t.Errorf("the notice is %+v", n)
			}
		}
	})
}

func TestReplayEndsTheSessionAndIsToldByMail(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		stolen := s.login("ann@example.org").field("refresh_token")
		current := s.post("access_token", "", "refresh_token", stolen)
		if current.Status != http.StatusOK {
			t.Fatal(current)
		}
		// Within the reuse window it gets the current token, which prolongs
		// nothing: to try it again and again is to wait for the window's end.
		try, end := time.NewTicker(50*time.Millisecond), time.After(time.Minute)
		defer try.Stop()
		for a := current; a.Status != http.StatusUnauthorized; a = s.post("access_token", "", "refresh_token", stolen) {
			if a.field("refresh_token") != current.field("refresh_token") {
				t.Fatalf("a replaced token got other tokens than the current one: %v", a)
			}
			select {
			case <-try.C:
			case <-end:
				t.Fatal("a replaced token works after two reuse windows")
			}
		}
		s.post("access_token", "", "refresh_token", current.field("refresh_token")).problem(t, 401)
		s.get("/api/v1/auth/user", current.field("access_token")).problem(t, 401)
		notice := waitMails(t, m, 1)[0]
		if notice.To != "ann@example.org" || notice.Subject != "Your session at auth.example.org was used elsewhere" || notice.RecoveryID() != "" {
			t.Errorf("the notice is %+v", notice)
		}
		s.endsWithNothingLeft()
		if n := len(m.Mails()); n != 1 {
			t.Errorf("%d mails came, want 1", n)
		}
	}, "--reuse-window=1s")
}
