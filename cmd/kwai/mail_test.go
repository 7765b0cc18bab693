package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kwai/internal/mail"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/storetest"
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

// A test mail goes now, without server and database, and what the mail server
// says of it is told in full.
func TestATestMailTellsWhatTheServerAnswers(t *testing.T) {
	t.Parallel()
	m := mailtest.Serve(t)
	data := t.TempDir()
	send := func(args ...string) (code int, out, errs string) {
		t.Helper()
		var stdout, stderr strings.Builder
		args = append([]string{"mail", "test", "ann@example.org", "--data=" + data, "--public-url=https://auth.example.org"}, args...)
		code = run(t.Context(), args, console{strings.NewReader(""), &stdout, &stderr})
		return code, stdout.String(), stderr.String()
	}
	want := func(what string, code, wantCode int, text, wantText string) {
		t.Helper()
		if code != wantCode || !strings.Contains(text, wantText) || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want %d, %q in one line", what, code, text, wantCode, wantText)
		}
	}
	code, out, errs := send("--smtp=" + m.URL())
	want("taken", code, 0, out+errs, m.Addr()+" took the mail to ann@example.org: 250 ")
	if mails := m.Mails(); len(mails) != 1 || mails[0].To != "ann@example.org" || mails[0].Subject != "A test mail from auth.example.org" {
		t.Errorf("mails %+v", mails)
	}
	for _, step := range []mailtest.Step{mailtest.MailFrom, mailtest.RcptTo, mailtest.Content} {
		m.RefuseAt(step, 554, "5.7.1 not from you, see the rules")
		code, out, errs = send("--smtp=" + m.URL())
		want(string(step), code, 1, out+errs, "refused with 554 5.7.1 not from you, see the rules")
		m.RefuseAt(step, 0, "")
	}
	m.Stop()
	code, out, errs = send("--smtp=" + m.URL())
	want("away", code, 1, out+errs, "connection refused")
	code, out, errs = send()
	want("no server is set", code, 0, out+errs, filepath.Join(data, "mail"))
	files, err := filepath.Glob(data + "/mail/*.eml")
	if err != nil || len(files) != 1 {
		t.Errorf("files %q (%v)", files, err)
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 1 {
		t.Errorf("more than mail was made: %v (%v)", entries, err)
	}
	code, out, errs = send("--listen=0.0.0.0:1", "--public-url=")
	want("no public URL", code, 2, out+errs, "--public-url")
}

// An address as public URL has no domain for mails: the server starts all the same,
// and says so.
func TestMailsOfAPublicURLWithoutADomain(t *testing.T) {
	t.Parallel()
	const warning = "the public URL has no domain for a sender"
	for public, want := range map[string]struct {
		from   string
		warned bool
	}{
		"http://[2001:db8::1]:8080": {"noreply@localhost.localdomain", true},
		"http://192.168.1.5":        {"noreply@localhost.localdomain", true},
		"http://localhost:8080":     {"noreply@localhost.localdomain", true},
		"http://kwai.example.":      {"noreply@kwai.example", false},
		"http://kwai:8080":          {"noreply@kwai", false},
		"http://[2001:db8::1] --mail-from=office@club.example.org": {"office@club.example.org", false},
	} {
		mails := mailtest.Serve(t)
		s := start(t, storetest.SQLite(t), append(strings.Fields("--public-url="+public), "--smtp="+mails.URL())...)
		s.user("ann@example.org", good)
		s.recover("ann@example.org")
		if mail := wait(t, mails, 1)[0]; mail.From != want.from {
			t.Errorf("%s: from %s, want %s", public, mail.From, want.from)
		}
		if got := strings.Contains(s.log.String(), warning); got != want.warned {
			t.Errorf("%s: %q is logged: %v", public, warning, got)
		}
	}
}
