package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
